//! Where traces are kept.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    fault::Fault,
    log::bus::{Epoch, Partition},
};

/// Places of messages whose events are kept together: what is asked for of one message is found without a look at all others.
pub(super) const SECTION_BITS: u32 = 12;

/// What one replica noted within about a second of the messages in one section of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracePart {
    /// Which partition.
    pub partition: Partition,
    /// Which section of it: the position without its last 12 bits.
    pub section: u64,
    /// Opaque to the store.
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

    /// What replicas noted of a section, with their names: the oldest first, and at most so many parts.
    ///
    /// # Errors
    /// Where the store does not answer.
    async fn noted(&self, epoch: Epoch, partition: Partition, section: u64, limit: usize) -> Result<Vec<(String, Bytes)>, Fault>;

    /// Forgets some of what is older, and some of the oldest where all of it together has more bytes. How many parts.
    ///
    /// # Errors
    /// Where the store does not answer.
    async fn forget_traces(&self, older_than: Duration, bytes: u64) -> Result<u64, Fault>;
}
