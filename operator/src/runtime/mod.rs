//! What drives the pipeline: standalone, files and processes on one machine.

pub mod standalone;
