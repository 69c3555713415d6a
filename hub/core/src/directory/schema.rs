//! The JSON Schema of a context type, and its compilation.
//!
//! A schema never makes the hub ask anybody: a `$ref` to elsewhere is an error. Its patterns run in linear time, so that no payload can make
//! one run for ever.

use std::fmt;

use jsonschema::{Draft, PatternOptions, Validator};
use serde::Deserialize;
use serde_json::Value;

/// Bytes of what is said of one place.
const MAX_TEXT: usize = 200;

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

/// Compiles a schema, as hubs do.
///
/// # Errors
/// What is wrong with it, in words.
pub fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .offline()
        .build(schema)
        .map_err(|error| at(&error.instance_path().to_string(), &error.to_string()))
}

/// What is wrong at a place of a document, cut and without control characters.
pub(crate) fn at(path: &str, text: &str) -> String {
    let cut = |text: &str| text.chars().filter(|character| !character.is_control()).take(MAX_TEXT).collect::<String>();
    format!("at {}: {}", if path.is_empty() { "/".to_owned() } else { cut(path) }, cut(text))
}
