//! The bus port of `acb-hub-core` on PostgreSQL and on Kafka. Nothing here looks into a record.

mod kafka;
mod postgres;
mod size;

pub use kafka::{KafkaBus, KafkaSettings};
pub use postgres::PostgresBus;
pub use size::{MAX_RECORD_BYTES, record_bytes};
