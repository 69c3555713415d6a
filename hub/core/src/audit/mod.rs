//! The audit trail: who did what, on what, from where, and what became of it. A record is in the log before what it tells of; a sink makes rows and
//! a tree of what is there.

pub mod following;
pub mod journal;
pub mod ports;
pub mod reading;
pub mod record;
pub mod refusals;
pub mod sink;
pub mod witness;
