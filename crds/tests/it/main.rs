//! The schema, the names, and the generated YAML.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod definitions;
mod documents;
mod names;
mod reference;
mod versions;
