//! The hub as its users meet it: a real process, over TLS, with a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub, missing_docs)]

mod accounts;
mod audit;
mod bad_input;
mod connections;
mod credentials;
mod filters;
mod fuzz;
mod hub;
mod kafka;
mod lifecycle;
mod limits;
mod mailboxes;
mod memory;
mod messages;
mod oidc;
mod outage;
mod permissions;
mod postgres;
mod registry;
mod reload;
mod requests;
mod schedule;
mod times;
mod tokens;
mod trail;
mod usage;
mod web;
mod wire;
mod witness;
