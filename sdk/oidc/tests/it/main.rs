//! Questions to issuers that mean no good, on a real connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod issuers;
