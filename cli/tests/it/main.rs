//! The `acb` program as a user runs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod adoption;
mod audit;
mod completion;
mod credentials;
mod dead_letters;
mod dev;
mod encryption;
mod filters;
mod http;
mod isolation;
mod kafka;
mod login;
mod messages;
mod plan;
mod registration;
mod rotation;
mod scheduled;
mod shared;
mod transfer;
mod usage;
mod world;
