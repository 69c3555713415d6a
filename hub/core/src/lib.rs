//! What a hub decides: types, permissions, sequencing, deduplication, sessions. Its ports are traits; nothing here knows gRPC, SQL, Kafka or
//! Kubernetes.

pub mod agent;
pub mod bus;
pub mod directory;
pub mod fault;
