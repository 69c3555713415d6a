//! The messages log, by places of messages: the rest of this room knows no offsets of records but where it follows the log.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use time::OffsetDateTime;

use super::{
    message::{MAX_LIFETIME, Message},
    position::{Position, bounds_of, first_of},
};
use crate::{
    directory::{membership::TOLERANCE, snapshot::Snapshot},
    log::{
        bus::{Bounds, Bus, BusError, Epoch, Logged, Offset, Partition, TopicInfo, TopicName},
        clock::LogClock,
    },
};

/// The topic.
pub(super) struct MessagesTopic {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) name: TopicName,
}

impl MessagesTopic {
    pub(super) fn new(bus: Arc<dyn Bus>, tenant: &str) -> Self {
        Self { bus, name: TopicName::system(tenant, "messages") }
    }

    pub(super) async fn info(&self) -> Result<TopicInfo, BusError> {
        self.bus.topic(&self.name).await
    }

    /// What each partition holds now.
    pub(super) async fn bounds_each(&self) -> Result<Vec<Result<Bounds, BusError>>, BusError> {
        let bounds = self.bus.bounds_each(&self.name).await?;
        Ok(bounds.into_iter().map(|bounds| bounds.map(bounds_of)).collect())
    }

    /// For each partition the place of the first message that was logged at or after `time`.
    pub(super) async fn positions_at_each(&self, time: OffsetDateTime) -> Result<Vec<Result<Position, BusError>>, BusError> {
        let offsets = self.bus.offsets_at_each(&self.name, time).await?;
        Ok(offsets.into_iter().map(|offset| offset.map(first_of)).collect())
    }

    /// Up to `limit` records from `offset` on.
    pub(super) async fn read(&self, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        self.bus.read(&self.name, partition, offset, limit).await
    }
}

/// The messages log in one life of it, as this replica reads it.
pub(super) struct Log {
    pub(super) topic: MessagesTopic,
    pub(super) dead_letters: TopicName,
    /// What the log says of itself.
    pub(super) made: Epoch,
    /// What rows about it carry: another one where the log was cut short.
    pub(super) epoch: Epoch,
    pub(super) partitions: u32,
    pub(super) clock: LogClock,
    /// How far it was read, by partition.
    read: Vec<AtomicU64>,
}

impl Log {
    /// `ahead`: by how much the clock of the store is ahead of this machine's. The log's is taken for that one until it shows its own: a replica that only
    /// reads could not tell a record that it reads late from a clock of its own that is ahead.
    pub(super) fn new(
        topic: MessagesTopic,
        tenant: &str,
        (made, epoch): (Epoch, Epoch),
        from: &[Offset],
        ahead: time::Duration,
    ) -> Self {
        let partitions = u32::try_from(from.len()).unwrap_or(u32::MAX);
        let dead_letters = TopicName::system(tenant, "dlq");
        let read = from.iter().map(|offset| AtomicU64::new(*offset)).collect();
        Self { topic, dead_letters, made, epoch, partitions, clock: LogClock::new(partitions, ahead), read }
    }

    /// Every record below this offset was read.
    pub(super) fn read_to(&self, partition: Partition, offset: Offset) {
        if let Some(read) = self.read.get(partition as usize) {
            read.store(offset, Ordering::Relaxed);
        }
    }

    /// How far it was read, by partition.
    pub(super) fn read(&self) -> impl Iterator<Item = Position> {
        self.offsets().map(first_of)
    }

    /// What the clock of the store showed when a partition's showed this: who was there then has what was logged.
    pub(super) fn logged_at(&self, snapshot: &Snapshot, partition: Partition, log_time: OffsetDateTime) -> OffsetDateTime {
        snapshot.by_store_clock(self.clock.here(partition, log_time))
    }

    /// What every partition's clock had not shown yet when the store's showed this.
    pub(super) fn not_before(&self, snapshot: &Snapshot, at: OffsetDateTime) -> OffsetDateTime {
        self.clock.earliest(at.saturating_sub(snapshot.ahead)).saturating_sub(TOLERANCE)
    }

    /// When a message expires, by this machine's clock. The hub that took it knows how long it lives, and the log when that began; an agent that says a
    /// time says it by its own clock. The later of both counts: where the clock of one hub is ahead, no message ends before its time.
    pub(super) fn expires_at(&self, partition: Partition, log_time: OffsetDateTime, message: &Message) -> OffsetDateTime {
        // What is replayed says when it was sent first: that is no part of its life.
        let life = (message.expires_at - message.sent_at).min(MAX_LIFETIME);
        self.clock.here(partition, log_time).saturating_add(life).max(message.expires_at)
    }

    /// Records that were not read yet.
    pub(super) async fn unread(&self) -> Result<u64, BusError> {
        let bounds = self.topic.bus.bounds_each(&self.topic.name).await?;
        Ok(Bounds::unread(&bounds, self.offsets()))
    }

    fn offsets(&self) -> impl Iterator<Item = Offset> {
        self.read.iter().map(|read| read.load(Ordering::Relaxed))
    }
}
