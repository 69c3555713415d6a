//! Looking into the log: bounds, offsets by time, and records from an offset on. One question at a time, over one consumer, which is
//! made when it is first needed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use acb_hub_core::log::bus::{Bounds, BusError, Logged, Offset, Partition, TopicName};
use rdkafka::{
    Offset as Place,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::client::{self, Clients, Closing, Context};
use crate::record_bytes;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// What one read brings at most; always at least one record.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// With the number of the password that it has.
type Reader = (Closing<BaseConsumer<Context>>, u64);

pub(super) struct Lookup {
    clients: Clients,
    reader: Arc<Mutex<Option<Reader>>>,
}

impl Lookup {
    pub(super) fn new(clients: Clients) -> Self {
        Self { clients, reader: Arc::default() }
    }

    pub(super) async fn bounds(&self, topic: &TopicName, partitions: u32) -> Result<Vec<Bounds>, BusError> {
        let topic = topic.clone();
        self.ask("tell its bounds", move |reader| bounds(reader, &topic, partitions)).await
    }

    pub(super) async fn offsets_at(
        &self,
        topic: &TopicName,
        partitions: u32,
        time: OffsetDateTime,
    ) -> Result<Vec<Offset>, BusError> {
        let topic = topic.clone();
        // Kafka's time has milliseconds: the first of them that is not before `time`.
        let nanos = time.unix_timestamp_nanos();
        let millis = i64::try_from(nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) > 0)).unwrap_or(i64::MAX);
        let find = move |reader: &BaseConsumer<Context>| {
            // The ends first: what is appended meanwhile lies behind them.
            let ends = list(reader, &topic, partitions, Place::End)?;
            let found = list(reader, &topic, partitions, Place::Offset(millis.max(0)))?;
            Ok(found.into_iter().zip(ends).map(|(found, end)| found.or(end).unwrap_or_default()).collect())
        };
        self.ask("find offsets by time", find).await
    }

    pub(super) async fn read(
        &self,
        topic: &TopicName,
        partition: Partition,
        offset: Offset,
        limit: usize,
    ) -> Result<Vec<Logged>, BusError> {
        let topic = topic.clone();
        let read = move |reader: &BaseConsumer<Context>| {
            let read = read(reader, &topic, partition, offset, limit);
            reader.unassign()?;
            if !read.as_ref().is_err_and(|error| error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)) {
                return read;
            }
            let first = list(reader, &topic, partition + 1, Place::Beginning)?.pop().flatten().unwrap_or_default();
            if offset >= first {
                return Ok(Vec::new());
            }
            let read = self::read(reader, &topic, partition, first, limit);
            reader.unassign()?;
            read
        };
        self.ask("read", read).await
    }

    /// Asks on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        what: &'static str,
        question: impl FnOnce(&BaseConsumer<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, BusError> {
        let mut reader = Arc::clone(&self.reader).lock_owned().await;
        let clients = self.clients.clone();
        let task = tokio::task::spawn_blocking(move || {
            if reader.is_none() {
                let serial = clients.serial();
                *reader = Some((Closing::new(clients.reader().create_with_context(Context)?), serial));
            }
            let Some((reader, serial)) = reader.as_mut() else { return Err(KafkaError::Canceled) };
            let Some(reader) = reader.get() else { return Err(KafkaError::Canceled) };
            if let Err(error) = clients.renew(reader.client(), serial) {
                tracing::warn!(target: "acb::kafka", %error, "the lookups keep the password before");
            }
            question(reader)
        });
        match task.await {
            Ok(answer) => answer.map_err(|error| self.clients.unavailable(what, &error)),
            Err(_) => Err(BusError::Unavailable("the bus is closed".into())),
        }
    }
}

fn bounds(reader: &BaseConsumer<Context>, topic: &TopicName, partitions: u32) -> Result<Vec<Bounds>, KafkaError> {
    let first = list(reader, topic, partitions, Place::Beginning)?;
    let next = list(reader, topic, partitions, Place::End)?;
    let bounds = first.into_iter().zip(next);
    Ok(bounds.map(|(first, next)| Bounds { first: first.unwrap_or_default(), next: next.unwrap_or_default() }).collect())
}

/// An offset of each partition: the first, the next, or (at a number) the first at or after that time, where there is one.
fn list(
    reader: &BaseConsumer<Context>,
    topic: &TopicName,
    partitions: u32,
    at: Place,
) -> Result<Vec<Option<Offset>>, KafkaError> {
    let asked = client::places(topic, (0..partitions).map(|partition| (partition, at)))?;
    let mut offsets = vec![None; partitions as usize];
    for found in reader.offsets_for_times(asked, PATIENCE)?.elements() {
        found.error()?;
        if let (Place::Offset(offset), Some(slot)) = (found.offset(), offsets.get_mut(found.partition().cast_unsigned() as usize))
        {
            *slot = u64::try_from(offset).ok();
        }
    }
    Ok(offsets)
}

fn read(
    reader: &BaseConsumer<Context>,
    topic: &TopicName,
    partition: Partition,
    offset: Offset,
    limit: usize,
) -> Result<Vec<Logged>, KafkaError> {
    let place = Place::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
    reader.assign(&client::places(topic, [(partition, place)])?)?;
    let deadline = Instant::now() + PATIENCE;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while records.len() < limit && bytes < READ_BYTES {
        match reader.poll(deadline.saturating_duration_since(Instant::now())) {
            // What was asked for before may still be on its way.
            Some(Ok(message)) if message_is_of(&message, topic, partition) => {
                let logged = client::logged(&message);
                bytes += record_bytes(&logged.record);
                records.push(logged);
            }
            Some(Err(KafkaError::PartitionEOF(at))) if at == partition.cast_signed() => break,
            Some(Err(KafkaError::MessageConsumption(code))) if client::passes(code) && Instant::now() < deadline => {}
            // Of a password that has been replaced since, while nobody asked.
            Some(Err(KafkaError::MessageConsumption(code))) if client::is_login(code) && Instant::now() < deadline => {}
            Some(Err(error)) if !matches!(error, KafkaError::PartitionEOF(_)) => return Err(error),
            Some(_) => {}
            None => return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)),
        }
    }
    Ok(records)
}

fn message_is_of(message: &rdkafka::message::BorrowedMessage<'_>, topic: &TopicName, partition: Partition) -> bool {
    use rdkafka::Message;
    message.topic() == topic.as_str() && message.partition() == partition.cast_signed()
}
