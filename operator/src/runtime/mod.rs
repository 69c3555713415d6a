//! What drives the pipeline: a live Kubernetes API, or files and processes on one machine.

pub mod kubernetes;
pub mod standalone;
