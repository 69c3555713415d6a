//! What a filter can be about: the names of one noun's fields, and their values for one instance of it.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value as Json};
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
    /// Whatever there turns out to be: a value of JSON. One that does not fit what is done with it leaves it undecided.
    Any,
}

impl Kind {
    /// Whether a value that was found to be of this kind may stand where `wanted` is needed.
    pub(super) fn fits(self, wanted: Self) -> bool {
        let is_open = |kind| matches!(kind, Self::Any | Self::Flag | Self::Number | Self::Text);
        self == wanted || ((self == Self::Any || wanted == Self::Any) && is_open(self) && is_open(wanted))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::Time => "a time",
            Self::Entries => "a map of texts",
            Self::Any => "a value of any kind",
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
    /// Whether it is a JSON object as a whole ([`Subject::whole`]), which may have any field.
    pub is_open: bool,
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
    /// Of [`Kind::Any`], where it is an object of JSON.
    Object(&'a Map<String, Json>),
    /// Of [`Kind::Any`], where it is a list of JSON.
    List(&'a [Json]),
}

impl<'a> Value<'a> {
    /// Of [`Kind::Any`]. `None` for what filters have no kind for: `null`, and numbers that are not whole.
    pub(super) fn of_json(json: &'a Json) -> Option<Self> {
        match json {
            Json::Null => None,
            Json::Bool(flag) => Some(Self::Flag(*flag)),
            Json::Number(number) => number.as_i64().map(Self::Number),
            Json::String(text) => Some(Self::Text(text)),
            Json::Array(list) => Some(Self::List(list)),
            Json::Object(object) => Some(Self::Object(object)),
        }
    }
}

/// What a filter is asked about.
pub trait Subject {
    /// The value of the field with this place in [`Vocabulary::fields`], of the kind that is said there. `None` where it has none.
    fn value(&self, field: usize) -> Option<Value<'_>>;

    /// All of it, where the vocabulary is open.
    fn whole(&self) -> Option<&Map<String, Json>> {
        None
    }
}
