//! Filters: expressions in the Common Expression Language (<https://cel.dev>) that say yes or no to one instance of a noun.
//!
//! They come from strangers and are asked for every change, so they are a part of CEL that ends: no loops, regular expressions in linear time,
//! and bounds on length, depth and cost that are checked before anything is evaluated. Types are checked, too: a filter that compiles can't
//! fail later, it can only be undecided (see [`Filter::matches`]). A differential test holds it to another implementation of CEL.

mod check;
mod expression;
pub mod problem;
mod syntax;
mod token;
pub mod vocabulary;

use std::sync::Arc;

use self::{
    expression::Node,
    problem::Problem,
    vocabulary::{Kind, Subject, Vocabulary},
};

/// Bytes of a filter.
pub const MAX_BYTES: usize = 2048;

/// A compiled filter. Clones share it.
#[derive(Clone, Debug)]
pub struct Filter(Arc<Node>);

impl Filter {
    /// Compiles a filter of these variables.
    ///
    /// # Errors
    /// Where it is no expression, is about what is not there, is neither true nor false, or costs too much.
    pub fn compile(source: &str, vocabulary: &Vocabulary) -> Result<Self, Problem> {
        compile(source, vocabulary, Kind::Flag).map(Self)
    }

    /// Whether the subject matches. One for which the filter is undecided does not: where it needs a metadata entry that is not there, or a number
    /// is out of range. What is undecided stays so under `!`, and does not matter where `||` or `&&` is decided by their other side.
    #[must_use]
    pub fn matches(&self, subject: &dyn Subject) -> bool {
        self.0.flag(subject) == Some(true)
    }
}

/// A compiled expression that yields a text. Clones share it.
#[derive(Clone, Debug)]
pub struct TextExpression(Arc<Node>);

impl TextExpression {
    /// Compiles an expression of these variables, with the bounds of a filter.
    ///
    /// # Errors
    /// Where it is no expression, is about what is not there, yields no text, or costs too much.
    pub fn compile(source: &str, vocabulary: &Vocabulary) -> Result<Self, Problem> {
        compile(source, vocabulary, Kind::Text).map(Self)
    }

    /// The text for this subject. `None` where it is undecided, or where what it yields is no text.
    #[must_use]
    pub fn text<'a>(&'a self, subject: &'a dyn Subject) -> Option<&'a str> {
        self.0.text(subject)
    }
}

fn compile(source: &str, vocabulary: &Vocabulary, wanted: Kind) -> Result<Arc<Node>, Problem> {
    if source.len() > MAX_BYTES {
        let what = format!("a filter has at most {MAX_BYTES} bytes, and this has {}", source.len());
        return Err(Problem::limit(0, what));
    }
    let syntax = syntax::parse(source)?;
    Ok(Arc::new(check::check(&syntax, vocabulary, wanted)?))
}

#[cfg(test)]
mod tests;
