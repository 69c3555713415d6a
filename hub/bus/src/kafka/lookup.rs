//! Looking into the log: bounds, offsets by time, and records from an offset on. A few questions at a time for each broker, so that one
//! that does not answer holds up only what it leads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use acb_hub_core::log::bus::{Bounds, BusError, Logged, Offset, Partition, TopicName};
use futures::future::join_all;
use rdkafka::{
    Offset as KafkaOffset, TopicPartitionList,
    client::Client,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    append::Writer,
    client::{self, Clients, Closing, Context},
    metadata::{Broker, Metadata, Shape},
    queue::{Failed, Owner, Queue},
    task::apart,
};
use crate::record_bytes;

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a reader may take to hear of a change of leader, and how often it is asked meanwhile.
const HEARD: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(50));
/// What one read brings at most; always at least one record.
const READ_BYTES: usize = 4 * 1024 * 1024;
/// Questions to one broker at a time. Each that reads has a consumer, with threads and buffers of its own.
const AT_A_TIME: usize = 3;
/// How long such a consumer is kept for the next one.
const KEPT: Duration = Duration::from_secs(30);
/// Questions that wait for that. More than all agents of a replica have when they come back at once.
const WAITING: usize = 4096;

/// A consumer that reads.
struct Reader {
    consumer: Closing<BaseConsumer<Context>>,
    /// The number of the password that it has.
    serial: u64,
    used: Instant,
}

impl Owner for &BaseConsumer<Context> {
    fn client(&self) -> Option<&Client<Context>> {
        Some(Consumer::client(*self))
    }
}

/// The consumers that ask one broker.
struct Readers {
    limiter: Limiter,
    /// Made when they are first needed.
    idle: Mutex<Vec<Reader>>,
}

impl Readers {
    fn idle(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who asks now, and who waits for that.
struct Limiter {
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Limiter {
    fn new(at_a_time: usize, waiting: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(at_a_time + waiting)), turns: Arc::new(Semaphore::new(at_a_time)) }
    }

    /// A turn, until what is returned is dropped. `None` where as many wait as may.
    async fn next(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        Some((turn, place))
    }
}

pub(super) struct Lookup {
    clients: Clients,
    metadata: Arc<Metadata>,
    writer: Arc<Writer>,
    readers: Mutex<HashMap<Broker, Arc<Readers>>>,
}

/// By partition, each with an answer of its own.
type Answers<T> = Vec<Result<T, BusError>>;

impl Lookup {
    pub(super) fn new(clients: Clients, metadata: Arc<Metadata>, writer: Arc<Writer>) -> Self {
        Self { clients, metadata, writer, readers: Mutex::default() }
    }

    pub(super) async fn bounds(&self, topic: &TopicName) -> Result<Answers<Bounds>, BusError> {
        let find = |writer: &Writer, topic: &TopicName, partitions: &[Partition]| {
            let first = list(writer, topic, partitions, KafkaOffset::Beginning)?;
            let next = list(writer, topic, partitions, KafkaOffset::End)?;
            let bounds = |(first, next): (Listed, Listed)| Ok(Bounds { first: told(first?)?, next: told(next?)? });
            Ok(first.into_iter().zip(next).map(bounds).collect())
        };
        self.ask_each(topic, "tell its bounds", find).await
    }

    pub(super) async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Answers<Offset>, BusError> {
        // Kafka's time has milliseconds: the first of them that is not before `time`.
        let nanos = time.unix_timestamp_nanos();
        let millis = i64::try_from(nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) > 0)).unwrap_or(i64::MAX);
        let find = move |writer: &Writer, topic: &TopicName, partitions: &[Partition]| {
            // The ends first: what is appended meanwhile lies behind them.
            let ends = list(writer, topic, partitions, KafkaOffset::End)?;
            let found = list(writer, topic, partitions, KafkaOffset::Offset(millis.max(0)))?;
            Ok(found.into_iter().zip(ends).map(|(found, end)| told(found?.or(end?))).collect())
        };
        self.ask_each(topic, "find offsets by time", find).await
    }

    pub(super) async fn read(
        &self,
        topic: &TopicName,
        partition: Partition,
        offset: Offset,
        limit: usize,
    ) -> Result<Vec<Logged>, BusError> {
        let shape = self.metadata.shape_with(topic, partition).await?;
        if partition >= shape.info.partitions || limit == 0 {
            return Ok(Vec::new());
        }
        let Some(leader) = shape.leaders.get(partition as usize).copied().flatten() else {
            return Err(leaderless(topic, partition));
        };
        let (name, writer) = (topic.clone(), Arc::clone(&self.writer));
        let read = move |reader: &BaseConsumer<Context>| {
            let topic = &name;
            let read = read(reader, topic, partition, offset, limit);
            if !read.as_ref().is_err_and(|error| error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset)) {
                return read;
            }
            let first = list(&writer, topic, &[partition], KafkaOffset::Beginning)?.pop().transpose()?.flatten();
            let first = told(first)?;
            if offset >= first {
                return Ok(Vec::new());
            }
            self::read(reader, topic, partition, first, limit)
        };
        match self.ask_reader(leader, read).await {
            Ok(records) => Ok(records),
            Err(error) if is_full(&error) => Err(self.clients.unavailable("read", &error)),
            Err(error) => Err(self.gone(topic).await.unwrap_or_else(|| self.clients.unavailable("read", &error))),
        }
    }

    /// Asks each broker for what it leads, all at the same time.
    async fn ask_each<T: Send + 'static>(
        &self,
        topic: &TopicName,
        what: &'static str,
        question: impl Fn(&Writer, &TopicName, &[Partition]) -> Result<Vec<Result<T, KafkaError>>, KafkaError> + Copy + Send + 'static,
    ) -> Result<Answers<T>, BusError> {
        let Shape { leaders, .. } = self.metadata.shape(topic).await?;
        let mut led: BTreeMap<Broker, Vec<Partition>> = BTreeMap::new();
        for (partition, leader) in (0..).zip(&leaders) {
            if let Some(leader) = leader {
                led.entry(*leader).or_default().push(partition);
            }
        }
        let asked = led.into_iter().map(async |(leader, partitions)| {
            let (name, of, writer) = (topic.clone(), partitions.clone(), Arc::clone(&self.writer));
            (partitions, self.ask(leader, move |_| question(&writer, &name, &of)).await)
        });
        let mut answers: Vec<Option<Result<T, KafkaError>>> = leaders.iter().map(|_| None).collect();
        for (partitions, found) in join_all(asked).await {
            let found = found.unwrap_or_else(|error| partitions.iter().map(|_| Err(error.clone())).collect());
            for (partition, found) in partitions.into_iter().zip(found) {
                if let Some(answer) = answers.get_mut(partition as usize) {
                    *answer = Some(found);
                }
            }
        }
        if answers.iter().flatten().any(|answer| answer.as_ref().is_err_and(|error| !is_full(error)))
            && let Some(gone) = self.gone(topic).await
        {
            return Err(gone);
        }
        let told = |(partition, answer): (Partition, Option<Result<T, KafkaError>>)| match answer {
            Some(answer) => answer.map_err(|error| self.clients.unavailable(what, &error)),
            None => Err(leaderless(topic, partition)),
        };
        Ok((0..).zip(answers).map(told).collect())
    }

    /// After a question that failed: what was known of the topic may be outdated, and the topic may be gone.
    async fn gone(&self, topic: &TopicName) -> Option<BusError> {
        self.metadata.forget(topic);
        self.metadata.shape(topic).await.err().filter(|error| matches!(error, BusError::NoSuchTopic(_)))
    }

    /// Asks one broker, on a thread that may wait.
    async fn ask<T: Send + 'static>(
        &self,
        leader: Broker,
        question: impl FnOnce(&Readers) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let readers = self.readers_of(leader);
        // Behind a broker that does not answer no more pile up than there is an end to.
        let full = KafkaError::MessageConsumption(RDKafkaErrorCode::QueueFull);
        let asked = apart(async move {
            let turn = readers.limiter.next().await.ok_or(full)?;
            let task = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                question(&readers)
            });
            task.await.unwrap_or(Err(KafkaError::Canceled))
        });
        asked.await.unwrap_or(Err(KafkaError::Canceled))
    }

    /// The same, with a consumer that reads.
    async fn ask_reader<T: Send + 'static>(
        &self,
        leader: Broker,
        question: impl FnOnce(&BaseConsumer<Context>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let clients = self.clients.clone();
        let ask = move |readers: &Readers| {
            let kept = readers.idle().pop();
            let (consumer, mut serial) = match kept {
                Some(Reader { consumer, serial, .. }) => (consumer, serial),
                None => {
                    let serial = clients.serial();
                    (Closing::new(clients.reader().create_with_context(Context)?), serial)
                }
            };
            let Some(reader) = consumer.get() else { return Err(KafkaError::Canceled) };
            if let Err(error) = clients.renew(reader.client(), &mut serial) {
                tracing::warn!(target: "acb::kafka", %error, "the lookups keep the password before");
            }
            // What was said of it since the last question would pile up.
            while reader.poll(Duration::ZERO).is_some() {}
            let answer = question(reader);
            readers.idle().push(Reader { consumer, serial, used: Instant::now() });
            answer
        };
        self.ask(leader, ask).await
    }

    fn readers_of(&self, leader: Broker) -> Arc<Readers> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        // Questions about ends are asked every few seconds, so that this comes to all of them.
        readers.values().for_each(|readers| readers.idle().retain(|reader| reader.used.elapsed() < KEPT));
        let none = || Arc::new(Readers { limiter: Limiter::new(AT_A_TIME, WAITING), idle: Mutex::default() });
        Arc::clone(readers.entry(leader).or_insert_with(none))
    }
}

/// Whether a question was not asked, since too many wait. That says nothing of its topic.
fn is_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}

fn leaderless(topic: &TopicName, partition: Partition) -> BusError {
    BusError::Unavailable(format!("partition {partition} of {topic} has no leader: its broker is away"))
}

/// An offset of one partition, where there is one.
type Listed = Result<Option<Offset>, KafkaError>;

fn told(offset: Option<Offset>) -> Result<Offset, KafkaError> {
    offset.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::OffsetNotAvailable))
}

/// An offset of each of these partitions: the first, the next, or (at a number) the first at or after that time, where there is one.
fn list(writer: &Writer, topic: &TopicName, partitions: &[Partition], at: KafkaOffset) -> Result<Vec<Listed>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition_offset(topic.as_str(), partition.cast_signed(), at)?;
    }
    let deadline = Instant::now() + HEARD.0;
    let found = loop {
        let found = writer.offsets_for_times(asked.clone(), PATIENCE);
        let is_outdated = match &found {
            Ok(found) => found.elements().iter().any(|found| found.error().is_err_and(|error| client::is_outdated(&error))),
            Err(error) => client::is_outdated(error),
        };
        if !is_outdated || Instant::now() > deadline {
            break found?;
        }
        std::thread::sleep(HEARD.1);
    };
    let offset = |partition: &Partition| {
        let Some(found) = found.find_partition(topic.as_str(), partition.cast_signed()) else { return Ok(None) };
        found.error()?;
        match found.offset() {
            KafkaOffset::Offset(offset) => Ok(u64::try_from(offset).ok()),
            _ => Ok(None),
        }
    };
    Ok(partitions.iter().map(offset).collect())
}

fn read(
    reader: &BaseConsumer<Context>,
    topic: &TopicName,
    partition: Partition,
    offset: Offset,
    limit: usize,
) -> Result<Vec<Logged>, KafkaError> {
    let mut queue = Queue::new(reader, topic)?;
    queue.start(partition, offset)?;
    let deadline = Instant::now() + PATIENCE;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while records.len() < limit && bytes < READ_BYTES {
        let taken = queue.wait(deadline.saturating_duration_since(Instant::now()));
        if taken.is_empty() {
            return Err(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut));
        }
        for taken in taken {
            match taken {
                Ok(logged) => {
                    if records.len() < limit && bytes < READ_BYTES {
                        bytes += record_bytes(&logged.record);
                        records.push(logged);
                    }
                }
                Err(Failed { code: RDKafkaErrorCode::PartitionEOF, .. }) => return Ok(records),
                Err(Failed { code, .. }) if client::passes(code) && Instant::now() < deadline => {}
                Err(Failed { code, .. }) => return Err(KafkaError::MessageConsumption(code)),
            }
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_wait_for_a_turn_and_one_more_hears_so_at_once() {
        let turns = Limiter::new(2, 3);
        let held = [turns.next().await.unwrap(), turns.next().await.unwrap()];
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(turns.next())).collect();
        for next in &mut waiting {
            assert!(futures::poll!(next).is_pending());
        }
        assert!(turns.next().await.is_none());
        // One that gives up makes room for another.
        waiting.pop();
        let mut late = Box::pin(turns.next());
        assert!(futures::poll!(&mut late).is_pending());
        drop(held);
        for next in waiting {
            drop(next.await.unwrap());
        }
        assert!(late.await.is_some());
    }
}
