//! Messages between agents: their way through the log to those whom they are for.

mod acknowledgements;
mod catch_up;
pub mod config;
pub mod cursor;
mod dead_letters;
pub mod dedup;
pub mod delivery;
pub mod envelope;
mod indexer;
mod life;
mod logged;
pub mod message;
mod parts;
mod pending;
pub mod ports;
mod reader;
mod receiver;
mod recipients;
mod replies;
pub mod request_id;
mod sender;
pub mod service;
pub mod session;
mod start;
mod trimmer;
