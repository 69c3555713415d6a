//! The walls between the crates: who may depend on whom, as docs/architecture.md says it.

pub mod graph;

#[cfg(test)]
mod walls;
