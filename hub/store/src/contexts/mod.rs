//! Contexts, their chunks, and who sees them.

mod chunk;
pub mod context;
mod upload;
mod visibility;
