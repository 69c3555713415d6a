//! Why a filter is refused, and where.

use crate::fault::Fault;

/// Characters of the line that are shown.
const SHOWN: usize = 60;

/// What kind of problem it is, for a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It is no expression of CEL, or uses what filters do not have.
    Syntax,
    /// It is about what is not there, or compares what can't be compared.
    Type,
    /// It is longer, deeper or dearer than a filter may be.
    Limit,
}

/// A problem with the character at which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which kind.
    pub cause: Cause,
    /// The byte of the source, at the beginning of a character or at the end.
    pub at: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Problem {
    pub(super) fn syntax(at: usize, what: impl Into<String>) -> Self {
        Self { cause: Cause::Syntax, at, what: what.into() }
    }

    pub(super) fn of_type(at: usize, what: impl Into<String>) -> Self {
        Self { cause: Cause::Type, at, what: what.into() }
    }

    pub(super) fn limit(at: usize, what: impl Into<String>) -> Self {
        Self { cause: Cause::Limit, at, what: what.into() }
    }

    /// For the caller: with the line, and a caret under the character.
    #[must_use]
    pub fn fault(&self, source: &str) -> Fault {
        let before = source.get(..self.at).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(start..).map_or(0, |text| text.chars().count());
        let whole = source.get(start..).unwrap_or_default().split('\n').next().unwrap_or_default();
        // A long line is shown around the character alone.
        let skip = column.saturating_sub(SHOWN / 2);
        let shown: String = whole.chars().skip(skip).take(SHOWN).map(harmless).collect();
        let place = if line == 1 { format!("column {}", column + 1) } else { format!("line {line}, column {}", column + 1) };
        let caret = " ".repeat(column - skip);
        Fault::invalid("FILTER_INVALID", format!("filter, {place}: {}\n  {shown}\n  {caret}^", self.what))
    }
}

/// One character for each, so that the caret stays under its own: what steers a terminal or turns the direction of writing is not shown.
fn harmless(character: char) -> char {
    let is_shown = character.escape_debug().len() == 1 || matches!(character, '"' | '\'' | '\\');
    if is_shown { character } else { ' ' }
}
