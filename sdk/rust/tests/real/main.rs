//! The SDK against real hubs: `acb dev` with its replicas, on a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod agents;
mod contexts;
mod failover;
mod mailbox;
mod pulling;
mod requests;
mod successor;
mod through;
mod tokens;
mod world;
