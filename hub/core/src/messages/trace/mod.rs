//! What happened to a message: taken, delivered, delivered again, acknowledged, or dead, when, and by which replica.

pub mod event;
pub(super) mod recorder;
pub mod search;
pub(super) mod spans;
pub mod store;
