//! The audit trail on PostgreSQL, as the tenant's own login: what is logged becomes rows and a tree, and stays what it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acts;
mod faults;
mod growing;
mod retention;
mod tampering;
mod witnessing;
mod world;
