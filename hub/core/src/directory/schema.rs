//! The JSON Schema of a context type, by its id and version.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// A JSON Schema of draft 2020-12, with its id and version.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PayloadSchema {
    /// Its name, for people.
    pub id: String,
    /// Its version, for people.
    pub version: String,
    /// The schema.
    pub schema: Value,
}

/// The schema that a payload was checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaRef {
    /// [`PayloadSchema::id`].
    pub id: String,
    /// [`PayloadSchema::version`].
    pub version: String,
}

impl fmt::Display for PayloadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.id, self.version)
    }
}
