//! What rows have to tell the log: written in the transaction that changes the rows, and moved to the log behind it. One outbox and one relay serve
//! every noun whose state is in rows.

pub mod noun;
pub mod ports;
pub mod relay;
