//! Runs what is asynchronous.

use crate::error::{self, Result};

/// A runtime for one task.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Runtime::new().map_err(error::at("a runtime"))
}
