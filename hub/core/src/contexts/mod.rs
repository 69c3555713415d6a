//! Contexts: shared, updated, streamed, followed, and deleted when they expire.

pub mod audience;
pub mod catalog;
pub mod change;
pub mod chunk;
pub mod context;
mod expiry;
pub mod filter;
pub mod outbox;
pub mod parts;
pub mod ports;
mod schema_check;
mod storage;
pub mod subscription;
mod tail;
pub mod upload;
mod versions;
pub mod visibility;
