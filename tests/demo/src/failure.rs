//! Why the demo can't go on.

use std::fmt;

/// Why the demo can't go on.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<acb_sdk::Error> for Failure {
    fn from(error: acb_sdk::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<acb_testbed::standalone::StandaloneError> for Failure {
    fn from(error: acb_testbed::standalone::StandaloneError) -> Self {
        Self(error.to_string())
    }
}
