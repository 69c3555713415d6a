//! Following every partition of a topic. Outages are waited out; what can't be mended by waiting ends the tail.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use acb_hub_core::log::bus::{Batch, BusError, Logged, Offset, Partition, Tail, TopicInfo, TopicName};
use futures::{FutureExt, stream};
use rdkafka::{
    Offset as Place, TopicPartitionList,
    consumer::{Consumer, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::{
    client::{self, Clients, Closing, Context},
    lookup::Lookup,
    metadata::Metadata,
};
use crate::record_bytes;

/// Records that are taken over at once, and their bytes; always at least one record.
const TAKEN: usize = 256;
const TAKEN_BYTES: usize = 1024 * 1024;
/// How often a tail looks whether the topic is still the same, and has more partitions.
const LOOK: Duration = Duration::from_secs(10);
/// A tail that loses its place again so soon ends: whoever follows it pauses before the next.
const REPLACED: Duration = Duration::from_secs(1);

struct Follower {
    clients: Clients,
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
    /// The number of the password that the consumer has.
    serial: u64,
    /// When it was given that.
    renewed: Option<Instant>,
    /// The log holds nothing at a position.
    is_misplaced: bool,
    replaced: Option<Instant>,
    consumer: Closing<StreamConsumer<Context>>,
}

/// Starts without asking what the partitions hold, which only their leaders know: one without a leader is followed when it has one.
pub(super) fn follow(
    clients: &Clients,
    metadata: Arc<Metadata>,
    lookup: Arc<Lookup>,
    topic: TopicName,
    info: TopicInfo,
    from: &[Offset],
) -> Result<Tail, BusError> {
    // A partition that was added since starts at its beginning.
    let positions: Vec<Offset> =
        (0..info.partitions as usize).map(|index| from.get(index).copied().unwrap_or_default()).collect();
    let start = || {
        let consumer: StreamConsumer<Context> = clients.follower().create_with_context(Context)?;
        consumer.assign(&places(&topic, &positions)?)?;
        Ok(Closing::new(consumer))
    };
    let serial = clients.serial();
    let consumer = start().map_err(|error: KafkaError| clients.unavailable("start a tail", &error))?;
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let follower = Follower {
        clients: clients.clone(),
        metadata,
        lookup,
        topic,
        info,
        positions,
        ready: VecDeque::new(),
        failed: None,
        look,
        serial,
        renewed: None,
        is_misplaced: false,
        replaced: None,
        consumer,
    };
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
            if self.is_misplaced {
                self.find_places().await?;
                continue;
            }
            let Some(consumer) = self.consumer.get() else { return Err(BusError::Unavailable("the bus is closed".into())) };
            let first = tokio::select! {
                message = consumer.recv() => message.map(|message| client::logged(&message)),
                _ = self.look.tick() => {
                    self.look_again().await?;
                    continue;
                }
            };
            let bytes_of = |message: &Result<Logged, _>| message.as_ref().map_or(0, |logged| record_bytes(&logged.record));
            let mut bytes = bytes_of(&first);
            let mut taken = vec![first];
            while taken.len() < TAKEN
                && bytes < TAKEN_BYTES
                && let Some(message) = consumer.recv().now_or_never()
            {
                let message = message.map(|message| client::logged(&message));
                bytes += bytes_of(&message);
                taken.push(message);
            }
            for message in taken {
                match message {
                    Ok(logged) => self.take(logged),
                    Err(error) if self.is_outdated(&error) => self.log_in_anew()?,
                    Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) => {
                        self.is_misplaced = true;
                    }
                    Err(error) => self.failed = self.failed.take().or(self.end(&error)),
                }
            }
        }
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

    /// The log holds nothing at the position of some partition; librdkafka does not say of which. What retention has taken is passed
    /// over, and a position beyond the end is an error. A partition that does not tell its bounds is tried again as it is.
    async fn find_places(&mut self) -> Result<(), BusError> {
        self.is_misplaced = false;
        if self.replaced.is_some_and(|replaced| replaced.elapsed() < REPLACED) {
            return Err(BusError::Unavailable(format!("{} holds nothing where it is followed", self.topic)));
        }
        let bounds = self.lookup.bounds(&self.topic).await?;
        for ((partition, position), bounds) in (0..).zip(&mut self.positions).zip(bounds) {
            let Ok(bounds) = bounds else { continue };
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
        if let Some(consumer) = self.consumer.get() {
            let assign = places(&self.topic, &self.positions).and_then(|places| consumer.assign(&places));
            assign.map_err(|error| self.clients.unavailable("go on with a tail", &error))?;
        }
        self.replaced = Some(Instant::now());
        Ok(())
    }

    /// What an error ends the tail with, if it does.
    fn end(&self, error: &KafkaError) -> Option<BusError> {
        match error {
            KafkaError::MessageConsumption(code) if client::passes(*code) => {
                tracing::debug!(topic = %self.topic, %error, "a tail waits");
                None
            }
            KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed,
            ) => Some(BusError::NoSuchTopic(self.topic.clone())),
            _ => Some(self.clients.unavailable("go on with a tail", error)),
        }
    }

    /// Whether a login was refused because it was with a password that has been replaced since.
    fn is_outdated(&self, error: &KafkaError) -> bool {
        let refused = error.rdkafka_error_code().is_some_and(client::is_login);
        // What was tried with the one before is told of a little later, too.
        let late = self.renewed.is_some_and(|renewed| renewed.elapsed() < LOOK);
        refused && (late || self.serial != self.clients.serial())
    }

    fn log_in_anew(&mut self) -> Result<(), BusError> {
        let (before, Some(consumer)) = (self.serial, self.consumer.get()) else { return Ok(()) };
        self.clients.renew(consumer.client(), &mut self.serial)?;
        if self.serial != before {
            self.renewed = Some(Instant::now());
        }
        Ok(())
    }

    /// A topic that was made anew ends the tail; partitions that were added are followed from their beginning.
    async fn look_again(&mut self) -> Result<(), BusError> {
        self.log_in_anew()?;
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
        if now.partitions > self.info.partitions
            && let Some(consumer) = self.consumer.get()
        {
            let added = (self.info.partitions..now.partitions).map(|partition| (partition, Place::Offset(0)));
            let assign = client::places(&self.topic, added).and_then(|added| consumer.incremental_assign(&added));
            assign.map_err(|error| self.clients.unavailable("follow an added partition", &error))?;
            self.positions.resize(now.partitions as usize, 0);
            self.info = now;
        }
        Ok(())
    }
}

fn places(topic: &TopicName, positions: &[Offset]) -> Result<TopicPartitionList, KafkaError> {
    let place = |offset: &Offset| Place::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
    client::places(topic, (0..).zip(positions).map(|(partition, offset): (Partition, _)| (partition, place(offset))))
}
