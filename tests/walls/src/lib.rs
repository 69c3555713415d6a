//! The walls between the crates: who may depend on whom, as docs/architecture.md says it. Beside them what else holds for all crates.

pub mod graph;

#[cfg(test)]
mod features;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod walls;
