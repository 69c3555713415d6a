//! The bus port, and what follows from the order of a log alone.

pub mod bus;
pub mod clock;
pub mod follower;
pub mod outbox;
pub mod partition;
pub mod position;
pub mod sequencer;
