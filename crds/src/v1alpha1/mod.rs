//! Version `v1alpha1` of the three kinds. A later version has a folder of its own beside this one: `docs/api-versions.md` says how.

pub mod affinity;
pub mod agent;
pub mod common;
pub mod context_type;
pub mod hub;
pub mod limits;
pub mod network;
pub mod quantity;
pub mod quota;
pub mod resources;
pub mod selector;
pub mod tenant;
