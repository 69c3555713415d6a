//! What is to be done later, and once: rows with a time, which any replica carries out when it has come. Every noun that waits for a time has its
//! timers here, and says what is done with one.

pub mod alarm;
pub mod handler;
pub mod ports;
