//! Where traces are kept.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    fault::Fault,
    log::bus::{Epoch, Partition},
    messages::position::{MessagePlace, Position},
};

/// The section of its partition that a place is in: the position without its last 12 bits. The events of a section's messages are kept together, so that
/// what is asked for of one message is found without a look at all others.
#[must_use]
pub const fn section_of(position: Position) -> u64 {
    position >> 12
}

/// What one replica noted within about a second of the messages in one section of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePart {
    /// Which partition.
    pub partition: Partition,
    /// Which section of it.
    pub section: u64,
    /// Opaque to the store, but that the position of each message in it stands there as eight bytes, the highest first.
    pub events: Bytes,
}

/// Keeps what replicas noted.
#[async_trait]
pub trait TraceStore: Send + Sync + 'static {
    /// Keeps what a replica noted.
    ///
    /// # Errors
    /// Where the store does not answer.
    async fn note(&self, epoch: Epoch, replica: &str, parts: &[TracePart]) -> Result<(), Fault>;

    /// What replicas noted of the message at this place, with their names: the oldest first, and at most so many parts, of those of its section in which
    /// there may be something of it.
    ///
    /// # Errors
    /// Where the store does not answer.
    async fn noted(&self, epoch: Epoch, place: MessagePlace, limit: usize) -> Result<Vec<(String, Bytes)>, Fault>;

    /// Forgets what is older, and some of the oldest where all of it together takes more bytes. How many parts.
    ///
    /// # Errors
    /// Where the store does not answer.
    async fn forget_traces(&self, older_than: Duration, bytes: u64) -> Result<u64, Fault>;
}
