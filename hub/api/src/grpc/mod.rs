//! The gRPC services: each translates, calls core, and translates back.

pub mod agent;
pub mod audit;
pub mod auth;
mod caller;
pub mod context;
pub mod credential;
pub mod dead_letter;
pub mod encryption;
pub mod mailbox;
pub mod message;
pub mod schedule;
pub mod stream;
mod timestamp;
pub mod trace;
pub mod usage;
