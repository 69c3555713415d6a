//! ACB on one machine: resources from a folder of YAML, objects in a state folder, hubs as local processes made from the very
//! Deployment that the plan holds. Never touches a Kubernetes API; Kubernetes' walls are absent here.

pub mod access;
mod connections;
pub mod deployments;
mod everything;
mod fields;
pub mod objects;
pub mod pod;
pub mod ports;
pub mod preview;
pub mod probe;
pub mod process;
mod reconcile;
pub mod resources;
pub mod run;
pub mod service;
pub mod state;
pub mod volume;
