//! What a filter can be about: the names of one noun's fields, and their values for one instance of it.

use std::{collections::BTreeMap, fmt};

use time::OffsetDateTime;

/// What values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number of 64 bits, with a sign.
    Number,
    /// A text.
    Text,
    /// A time.
    Time,
    /// Texts by their names.
    Entries,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Time => "a time",
            Self::Entries => "a map of texts",
        })
    }
}

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name behind the root.
    pub name: &'static str,
    /// What values it has.
    pub kind: Kind,
}

/// The one variable of a filter, and its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    /// The name of the variable, such as `context`.
    pub root: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
}

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Of [`Kind::Flag`].
    Flag(bool),
    /// Of [`Kind::Number`].
    Number(i64),
    /// Of [`Kind::Text`].
    Text(&'a str),
    /// Of [`Kind::Time`].
    Time(OffsetDateTime),
    /// Of [`Kind::Entries`].
    Entries(&'a BTreeMap<String, String>),
}

/// What a filter is asked about.
pub trait Subject {
    /// The value of the field with this place in [`Vocabulary::fields`], of the kind that is said there. `None` where it has none.
    fn value(&self, field: usize) -> Option<Value<'_>>;
}
