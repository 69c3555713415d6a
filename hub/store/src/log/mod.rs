//! What the log may not have yet.

pub mod outbox;
