//! Who calls, and how much.

mod counts;
mod credential;
mod registration;
