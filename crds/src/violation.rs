//! What is wrong with a document.

use std::fmt;

/// The most violations that are told of one document: who writes as many as fit into one must not be told of each.
pub const MAX_VIOLATIONS: usize = 100;

/// What is wrong at one place of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Such as `spec.contextTypes[0].name`; empty: the document.
    pub path: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Violation {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// What is wrong with a document, as far as it is told.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    told: Vec<Violation>,
    is_more: bool,
}

impl Violations {
    pub(crate) fn push(&mut self, violation: Violation) {
        if self.told.len() < MAX_VIOLATIONS {
            self.told.push(violation);
        } else {
            self.is_more = true;
        }
    }

    /// Whether nothing more is told, so that nothing more need be looked for.
    pub(crate) fn is_full(&self) -> bool {
        self.is_more
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    pub(crate) fn into_told(mut self) -> Vec<Violation> {
        if self.is_more {
            self.told.push(Violation::new("", format!("there is more than these {MAX_VIOLATIONS}: mend them, and check again")));
        }
        self.told
    }
}
