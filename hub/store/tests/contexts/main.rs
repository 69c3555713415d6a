//! Contexts over two replicas, a real PostgreSQL and the bus in it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clock;
mod filtering;
mod outbox;
mod rights;
mod scopes;
mod sharing;
mod storage;
mod streaming;
mod subscribing;
mod visibility;
mod world;
