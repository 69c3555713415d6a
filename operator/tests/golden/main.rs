//! Plans as text and JSON, held as files: `UPDATE_GOLDEN=1 cargo test -p acb-operator --test golden` writes them anew. And every
//! refusal that the operator decides on.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod accounts;
mod decisions;
mod given;
mod isolation;
mod oidc;
mod plans;
mod refusals;
mod retirement;
mod rollouts;
mod statuses;
mod witness;
