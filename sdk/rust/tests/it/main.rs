//! The SDK against a model of a hub whose connections break where a test wants it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_possible_truncation, unreachable_pub)]

mod gate;
mod hub;
mod message;
mod traces;
mod transfer;
