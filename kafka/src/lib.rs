//! One authenticated connection to a Kafka broker, over which any request of the protocol can be sent. For what rdkafka has no call for:
//! ACLs, SCRAM credentials and topic ids. Never for records.

mod call;
mod connection;
mod scram;

pub use call::Call;
pub use connection::{Connection, Error, Settings};
pub use kafka_protocol::{self, ResponseError};
pub use scram::salted_password;
