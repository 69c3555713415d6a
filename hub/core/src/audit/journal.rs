//! Writes audit records to the log. What must be there first is waited for; what may come later goes through a queue with a bound, and what finds
//! no room in it is counted.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use tokio::{
    sync::{mpsc, watch},
    time::{sleep, timeout},
};

use super::record::AuditRecord;
use crate::{
    fault::Fault,
    log::bus::{AppendError, Bus, Record, TopicName},
    metrics::audit::AuditMetrics,
};

/// How long a call waits for its record to be in the log.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Records that may wait for the log while no call waits for them.
const QUEUE: usize = 4096;

/// Queued records that are on their way to the log at one time.
const BATCH: usize = 512;

/// The pause before queued records are tried again, while the log takes none.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The only partition: records of one tenant have one order.
const PARTITION: u32 = 0;

/// Writes the audit records of one replica. Clones share it.
#[derive(Clone)]
pub struct Journal {
    writer: Writer,
    replica: Arc<str>,
    queue: mpsc::Sender<Bytes>,
    /// Records that are queued, or on their way from the queue.
    waiting: Arc<watch::Sender<usize>>,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("topic", &self.writer.topic).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Writer {
    bus: Arc<dyn Bus>,
    topic: TopicName,
    metrics: AuditMetrics,
}

impl Writer {
    async fn append(&self, value: Bytes) -> Result<(), AppendError> {
        let record = Record { key: None, headers: Vec::new(), value: Some(value) };
        self.bus.append(&self.topic, PARTITION, record).await?.await?;
        self.metrics.written();
        Ok(())
    }
}

impl Journal {
    /// Of this replica. What is queued is moved by the second, which must run for as long as the hub.
    pub fn new(bus: Arc<dyn Bus>, tenant: &str, replica: &str, metrics: AuditMetrics) -> (Self, JournalQueue) {
        let (queue, queued) = mpsc::channel(QUEUE);
        let writer = Writer { bus, topic: TopicName::system(tenant, "audit"), metrics };
        let journal = Self { writer: writer.clone(), replica: replica.into(), queue, waiting: Arc::new(watch::Sender::new(0)) };
        let waiting = journal.waiting.clone();
        (journal, JournalQueue { writer, queued, waiting })
    }

    /// This replica's name.
    #[must_use]
    pub fn replica(&self) -> &str {
        &self.replica
    }

    /// Writes a record, and returns once it is durable.
    ///
    /// # Errors
    /// Where the log does not take it in time: what it tells of must not happen then. It may be in the log all the same.
    pub async fn write(&self, record: &AuditRecord) -> Result<(), Fault> {
        let Err(why) = self.append(record).await else { return Ok(()) };
        self.writer.metrics.unavailable();
        tracing::warn!(topic = %self.writer.topic, why, "a call is not carried out: its audit record can't be written");
        Err(Fault::unavailable(
            "AUDIT_UNAVAILABLE",
            "the audit log takes no record, and nothing is done that it does not tell of: try again shortly",
        ))
    }

    /// Writes a record that no call waits for. The error says why it may not be in the log.
    pub(super) async fn append(&self, record: &AuditRecord) -> Result<(), String> {
        match timeout(PATIENCE, self.writer.append(record.encode())).await {
            Ok(appended) => appended.map_err(|error| error.to_string()),
            Err(_) => Err(format!("the log did not answer within {PATIENCE:?}")),
        }
    }

    /// Writes a record some time later. Where too many wait, it is lost, and counted.
    pub fn queue(&self, record: &AuditRecord) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let queued = self.queue.try_send(record.encode());
        if queued.is_err() {
            self.waiting.send_modify(|waiting| *waiting -= 1);
            self.writer.metrics.lost();
        }
        self.writer.metrics.queued(*self.waiting.borrow());
    }

    /// Waits until all that was queued is in the log.
    pub async fn flushed(&self) {
        // It can't be closed: this has the sender.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting == 0).await;
    }
}

/// What is queued on its way to the log.
#[must_use = "queued records stay where they are until it runs"]
pub struct JournalQueue {
    writer: Writer,
    queued: mpsc::Receiver<Bytes>,
    waiting: Arc<watch::Sender<usize>>,
}

impl fmt::Debug for JournalQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalQueue").field("topic", &self.writer.topic).finish_non_exhaustive()
    }
}

impl JournalQueue {
    /// Moves it, until every journal of it is dropped.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.queued.recv_many(&mut batch, BATCH).await > 0 {
            while !batch.is_empty() {
                let written = join_all(batch.iter().map(|value| self.writer.append(value.clone()))).await;
                let mut written = written.into_iter();
                let before = batch.len();
                let mut failed = None;
                batch.retain(|_| match written.next() {
                    Some(Err(error)) => {
                        // It would never fit: to try again would hold up all others.
                        let lost = matches!(error, AppendError::TooLarge { .. });
                        if lost {
                            self.writer.metrics.lost();
                        }
                        failed = Some(error);
                        !lost
                    }
                    _ => false,
                });
                let gone = before - batch.len();
                self.waiting.send_modify(|waiting| *waiting -= gone);
                self.writer.metrics.queued(*self.waiting.borrow());
                if let Some(error) = failed.filter(|_| !batch.is_empty()) {
                    tracing::warn!(topic = %self.writer.topic, %error, records = batch.len(), "audit records wait for the log");
                    sleep(RETRY_EVERY).await;
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use time::OffsetDateTime;

    use super::*;
    use crate::{
        audit::record::{Phase, tests::record},
        fault::Code,
        log::bus::{Appended, Bounds, BusError, Logged, Offset, Partition, Pending, Tail, TopicInfo},
    };

    /// Keeps what is appended, unless it is away.
    #[derive(Default)]
    pub(crate) struct Kept {
        pub(crate) values: Mutex<Vec<Bytes>>,
        pub(crate) away: Mutex<bool>,
        /// It never answers.
        pub(crate) silent: Mutex<bool>,
    }

    impl Kept {
        pub(crate) fn records(&self) -> Vec<AuditRecord> {
            self.values.lock().unwrap().iter().map(|value| AuditRecord::decode(value).unwrap()).collect()
        }
    }

    #[async_trait]
    impl Bus for Kept {
        async fn topic(&self, _: &TopicName) -> Result<TopicInfo, BusError> {
            Ok(TopicInfo { epoch: 1, partitions: 1 })
        }

        async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError> {
            assert_eq!((topic.as_str(), partition), ("acb.acme.sys.audit", 0));
            if *self.silent.lock().unwrap() {
                return Ok(Box::pin(std::future::pending()));
            }
            if *self.away.lock().unwrap() {
                return Err(AppendError::Refused("there is no leader".into()));
            }
            self.values.lock().unwrap().push(record.value.unwrap());
            Ok(Box::pin(std::future::ready(Ok(Appended::Unknown))))
        }

        async fn tail(&self, topic: &TopicName, _: &[Offset]) -> Result<Tail, BusError> {
            Err(BusError::NoSuchTopic(topic.clone()))
        }

        async fn read(&self, _: &TopicName, _: Partition, _: Offset, _: usize) -> Result<Vec<Logged>, BusError> {
            Ok(Vec::new())
        }

        async fn bounds(&self, _: &TopicName) -> Result<Vec<Bounds>, BusError> {
            Ok(Vec::new())
        }

        async fn offsets_at(&self, _: &TopicName, _: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
            Ok(Vec::new())
        }
    }

    pub(crate) fn journal() -> (Arc<Kept>, Journal, JournalQueue) {
        let bus = Arc::new(Kept::default());
        let (journal, queue) = Journal::new(bus.clone(), "acme", "hub-0", AuditMetrics::default());
        (bus, journal, queue)
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_does_not_take_must_not_happen() {
        let (bus, journal, _queue) = journal();
        let intent = record(Phase::Intent, "CreateContext");
        journal.write(&intent).await.unwrap();
        assert_eq!(bus.records(), std::slice::from_ref(&intent));
        *bus.away.lock().unwrap() = true;
        let fault = journal.write(&intent).await.unwrap_err();
        assert_eq!((fault.code, fault.reason), (Code::Unavailable, "AUDIT_UNAVAILABLE"));
        *bus.silent.lock().unwrap() = true;
        assert_eq!(journal.write(&intent).await.unwrap_err().reason, "AUDIT_UNAVAILABLE");
        assert_eq!(bus.records().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_queued_waits_for_the_log_and_has_a_bound() {
        let (bus, journal, queue) = journal();
        *bus.away.lock().unwrap() = true;
        let outcome = record(Phase::Outcome, "GetContext");
        for _ in 0..QUEUE + 10 {
            journal.queue(&outcome);
        }
        let moving = tokio::spawn(queue.run());
        sleep(RETRY_EVERY * 3).await;
        assert!(bus.records().is_empty());
        *bus.away.lock().unwrap() = false;
        journal.flushed().await;
        assert_eq!(bus.records().len(), QUEUE);
        drop(journal);
        moving.await.unwrap();
    }
}
