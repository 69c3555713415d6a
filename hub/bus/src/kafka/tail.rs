//! Following every partition of a topic. Outages are waited out; what can't be mended by waiting ends the tail.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use acb_hub_core::log::bus::{Batch, BusError, Logged, Offset, Partition, Tail, TopicInfo, TopicName};
use futures::stream;
use rdkafka::error::RDKafkaErrorCode;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    client,
    consumers::{Consumers, TopicQueue},
    lookup::Lookup,
    metadata::Metadata,
    queue::{Failed, Queue},
};
use crate::record_bytes;

/// Records that are taken over at once, and their bytes; always at least one record.
const TAKEN: usize = 256;
const TAKEN_BYTES: usize = 1024 * 1024;
/// How often a tail looks whether the topic is still the same, and has more partitions.
const LOOK: Duration = Duration::from_secs(10);
/// A tail that loses its place in the same partition again so soon ends: whoever follows it pauses before the next.
const REPLACED: Duration = Duration::from_secs(1);

struct Follower {
    queue: TopicQueue,
    metadata: Arc<Metadata>,
    lookup: Arc<Lookup>,
    topic: TopicName,
    info: TopicInfo,
    /// The next offset of each partition.
    positions: Vec<Offset>,
    ready: VecDeque<Batch>,
    /// Told once what is ready has been handed over.
    failed: Option<BusError>,
    look: tokio::time::Interval,
    /// Partitions of which the log holds nothing at their position.
    misplaced: BTreeSet<Partition>,
    /// When each partition was last placed anew.
    replaced: BTreeMap<Partition, Instant>,
}

/// Starts without asking what the partitions hold, which only their leaders know: one without a leader is followed when it has one.
pub(super) async fn follow(
    consumers: &Consumers,
    metadata: Arc<Metadata>,
    lookup: Arc<Lookup>,
    topic: TopicName,
    info: TopicInfo,
    from: &[Offset],
) -> Result<Tail, BusError> {
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut follower = Follower {
        queue: consumers.queue(&topic, info.epoch).await?,
        metadata,
        lookup,
        topic,
        info,
        // A partition that was added since starts at its beginning.
        positions: (0..info.partitions as usize).map(|index| from.get(index).copied().unwrap_or_default()).collect(),
        ready: VecDeque::new(),
        failed: None,
        look,
        misplaced: BTreeSet::new(),
        replaced: BTreeMap::new(),
    };
    follower.start(0..info.partitions)?;
    Ok(Box::pin(stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(batch) => Some((Ok(batch), Some(follower))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

impl Follower {
    async fn next(&mut self) -> Result<Batch, BusError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if !self.misplaced.is_empty() {
                self.find_places().await?;
                continue;
            }
            let Some(queue) = self.queue.get() else { return Err(self.closed()) };
            let mut taken = tokio::select! {
                taken = queue.next() => taken,
                _ = self.look.tick() => {
                    self.look_again().await?;
                    continue;
                }
            };
            let (mut count, mut bytes) = (0, 0);
            while !taken.is_empty() {
                for taken in taken {
                    match taken {
                        Ok(logged) => {
                            (count, bytes) = (count + 1, bytes + record_bytes(&logged.record));
                            self.take(logged);
                        }
                        Err(Failed { partition, code: RDKafkaErrorCode::AutoOffsetReset }) => {
                            self.misplaced.insert(partition);
                        }
                        Err(failed) => self.failed = self.failed.take().or(self.end(failed)),
                    }
                }
                if count >= TAKEN || bytes >= TAKEN_BYTES {
                    break;
                }
                taken = self.queue.get().map_or_else(Vec::new, Queue::take);
            }
        }
    }

    /// Follows these partitions from their positions.
    fn start(&mut self, partitions: impl IntoIterator<Item = Partition>) -> Result<(), BusError> {
        let Some(queue) = self.queue.get() else { return Err(self.closed()) };
        for partition in partitions {
            let offset = self.positions.get(partition as usize).copied().unwrap_or_default();
            let started = queue.start(partition, offset);
            started.map_err(|error| BusError::Unavailable(format!("{} can't be followed: {error}", self.topic)))?;
        }
        Ok(())
    }

    fn closed(&self) -> BusError {
        BusError::Unavailable(format!("{} is followed no longer", self.topic))
    }

    fn take(&mut self, logged: Logged) {
        let (partition, next) = (logged.partition, logged.offset + 1);
        if let Some(position) = self.positions.get_mut(partition as usize) {
            *position = next;
        }
        match self.ready.back_mut() {
            Some(batch) if batch.partition == partition => {
                batch.records.push(logged);
                batch.next = next;
            }
            _ => self.ready.push_back(Batch { partition, records: vec![logged], next }),
        }
    }

    /// The log holds nothing at the position of some partitions. What retention has taken is passed over, and a position beyond the end is an
    /// error. A partition that does not tell its bounds is tried again as it is.
    async fn find_places(&mut self) -> Result<(), BusError> {
        let misplaced = std::mem::take(&mut self.misplaced);
        let lately = |partition: &&Partition| self.replaced.get(*partition).is_some_and(|placed| placed.elapsed() < REPLACED);
        if let Some(partition) = misplaced.iter().find(lately) {
            return Err(BusError::Unavailable(format!(
                "partition {partition} of {} holds nothing where it is followed",
                self.topic
            )));
        }
        let bounds = self.lookup.bounds(&self.topic).await?;
        for ((partition, position), bounds) in (0..).zip(&mut self.positions).zip(bounds) {
            let (true, Ok(bounds)) = (misplaced.contains(&partition), bounds) else { continue };
            if *position > bounds.next {
                return Err(BusError::Unavailable(format!(
                    "{} ends at offset {} of partition {partition}, before {position}: the log has lost records, rebuild what was derived from it",
                    self.topic, bounds.next
                )));
            }
            if *position < bounds.first {
                *position = bounds.first;
                self.ready.push_back(Batch { partition, records: Vec::new(), next: bounds.first });
            }
        }
        let now = Instant::now();
        self.replaced.extend(misplaced.iter().map(|partition| (*partition, now)));
        self.start(misplaced)?;
        Ok(())
    }

    /// What ends the tail, if it does.
    fn end(&self, Failed { partition, code }: Failed) -> Option<BusError> {
        match code {
            _ if client::passes(code) => {
                tracing::debug!(topic = %self.topic, partition, %code, "a tail waits");
                None
            }
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::TopicAuthorizationFailed => Some(BusError::NoSuchTopic(self.topic.clone())),
            _ => Some(BusError::Unavailable(format!("partition {partition} of {} can't be followed: {code}", self.topic))),
        }
    }

    /// A topic that was made anew ends the tail; partitions that were added are followed from their beginning.
    async fn look_again(&mut self) -> Result<(), BusError> {
        let now = match self.metadata.topic(&self.topic).await {
            Ok(now) => now,
            Err(BusError::Unavailable(reason)) => {
                tracing::debug!(topic = %self.topic, reason, "a tail waits");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if now.epoch != self.info.epoch {
            return Err(BusError::Unavailable(format!("{} was made anew: its offsets begin again", self.topic)));
        }
        if now.partitions > self.info.partitions {
            let added = self.info.partitions..now.partitions;
            self.positions.resize(now.partitions as usize, 0);
            self.info = now;
            self.start(added)?;
        }
        Ok(())
    }
}
