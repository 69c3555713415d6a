//! The walls: which crate may depend on which, and which file of a crate may use which, as docs/architecture.md says it. Beside them what
//! else holds for all crates.

pub mod arrows;
pub mod circles;
pub mod graph;
pub mod items;
pub mod modules;
pub mod paths;
pub mod rooms;
pub mod tokens;
pub mod workspace;

#[cfg(test)]
mod features;
#[cfg(test)]
mod files;
#[cfg(test)]
mod reader;
#[cfg(test)]
mod scripts;
#[cfg(test)]
mod walls;
