//! What a hub decides: types, permissions, sequencing, deduplication, sessions. Its ports are traits; nothing here knows gRPC, SQL, Kafka or
//! Kubernetes.

pub mod access;
pub mod agent;
mod budget;
pub mod bus;
pub mod chunk;
pub mod context;
pub mod context_event;
pub mod context_metrics;
mod context_relay;
pub mod context_store;
mod context_tail;
pub mod contexts;
pub mod credential;
pub mod cursor;
pub mod dedup;
pub mod directory;
pub mod door;
pub mod envelope;
mod expiry;
pub mod fault;
pub mod identity;
pub mod mailbox;
pub mod message;
pub mod messages;
pub mod metrics;
pub mod payload_schema;
pub mod readiness;
pub mod refresh;
pub mod registry;
pub mod request;
pub mod sequencer;
pub mod session;
pub mod subscription;
pub mod supervisor;
pub mod token;
pub mod upload;
