//! Appending: one task per topic, which takes whatever has come into one statement of its own transaction.
//!
//! It is one statement, so that a paused hub never holds a partition's lock between two of them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
    sync::Arc,
    time::Duration,
};

use acb_hub_core::{
    kit::supervisor::Supervisor,
    log::bus::{AppendError, Appended, Offset, Partition, Pending, Record, TopicName},
};
use acb_hub_pool::Timestamp;
use sqlx::{Executor, Postgres};
use time::OffsetDateTime;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};

use super::{
    log::{Log, told},
    session::{Identity, Kept, identify},
};

/// What waits in a topic's queue at most.
const QUEUE_RECORDS: usize = 4096;
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// What one statement takes at most; always at least one record.
const BATCH_RECORDS: usize = 512;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long a record may take, as Kafka's `message.timeout.ms`.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to come by a session that answers.
const SESSION_PATIENCE: Duration = Duration::from_secs(5);

/// The partitions are locked in their order first, or two replicas could deadlock. `log_time` never falls, whatever the clock does.
/// The last column makes the commit durable for a login whose own setting says otherwise.
const APPEND: &str = r#"
WITH want AS MATERIALIZED (
    SELECT * FROM unnest($3::int4[], $4::int8[]) AS w(partition, count)
), locked AS MATERIALIZED (
    SELECT p.partition FROM acb.bus_partition p
    WHERE p.tenant_id = $1 AND p.topic = $2 AND p.partition = ANY($3) ORDER BY p.partition FOR UPDATE
), taken AS (
    UPDATE acb.bus_partition p
    SET next_offset = p.next_offset + w.count, last_time = greatest(clock_timestamp(), p.last_time)
    FROM want w JOIN locked l USING (partition)
    WHERE p.tenant_id = $1 AND p.topic = $2 AND p.partition = w.partition
    RETURNING p.partition, p.next_offset - w.count AS base, p.last_time
), put AS (
    INSERT INTO acb.bus_record (tenant_id, topic, partition, "offset", key, headers, value, log_time)
    SELECT $1, $2, r.partition, t.base + r.place, r.key, r.headers::bytea[], r.value, t.last_time
    FROM unnest($5::int4[], $6::int8[], $7::bytea[], $8::text[], $9::bytea[]) AS r(partition, place, key, headers, value)
    JOIN taken t USING (partition)
)
SELECT partition, base, last_time,
       CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END
FROM taken"#;

/// The queue of one topic.
#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Entry>,
    room: Arc<Semaphore>,
}

struct Entry {
    partition: Partition,
    record: Record,
    bytes: usize,
    since: Instant,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
    _room: OwnedSemaphorePermit,
}

impl Writer {
    pub(super) fn spawn(log: Log, topic: TopicName, supervisor: &Supervisor) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE_RECORDS);
        // Not started over after a panic: what was half-way in could then come after what followed it.
        supervisor.spawn_until("bus.appender", log.stop.clone(), Appender { log, topic, doubtful: None }.run(entries));
        Self { queue, room: Arc::new(Semaphore::new(QUEUE_BYTES)) }
    }

    pub(super) async fn append(&self, partition: Partition, record: Record, bytes: usize) -> Result<Pending, AppendError> {
        let closed = || AppendError::Refused("the bus is closed".into());
        let permits = u32::try_from(bytes.max(1)).map_err(|_| closed())?;
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let entry = Entry { partition, record, bytes, since: Instant::now(), answer, _room: room };
        self.queue.send(entry).await.map_err(|_| closed())?;
        Ok(Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(AppendError::Unknown("the bus was closed before it answered".into())))
        }))
    }
}

struct Appender {
    log: Log,
    topic: TopicName,
    /// A session that was lost while it may have been committing.
    doubtful: Option<Identity>,
}

/// By partition: the first offset that a batch took, and when.
type Places = HashMap<Partition, (Offset, OffsetDateTime)>;

/// Why a batch did not go in.
enum Failure {
    /// It is not in the log, and may be tried again.
    Later(String),
    /// It is not in the log.
    Refused(String),
    /// It may or may not be.
    Unknown(String),
}

impl Appender {
    async fn run(mut self, mut entries: mpsc::Receiver<Entry>) {
        let mut taken = Vec::with_capacity(BATCH_RECORDS);
        while entries.recv_many(&mut taken, BATCH_RECORDS).await > 0 {
            while !taken.is_empty() {
                let mut bytes = 0;
                let fits = taken.iter().take_while(|entry| {
                    bytes += entry.bytes;
                    bytes <= BATCH_BYTES
                });
                let count = fits.count().max(1);
                self.settle(taken.drain(..count).collect()).await;
            }
        }
    }

    /// Brings a batch to its end, whatever it is.
    async fn settle(&mut self, batch: Vec<Entry>) {
        let deadline = batch.first().map_or_else(Instant::now, |entry| entry.since) + PATIENCE;
        let mut pause = Duration::from_millis(20);
        let error = loop {
            match self.attempt(&batch).await {
                Ok(bases) => return self.acknowledge(batch, bases),
                Err(Failure::Later(reason)) if Instant::now() + pause < deadline => {
                    tracing::debug!(topic = %self.topic, reason, "an append has to be tried again");
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                Err(Failure::Later(reason) | Failure::Refused(reason)) => break AppendError::Refused(reason),
                Err(Failure::Unknown(reason)) => break AppendError::Unknown(reason),
            }
        };
        tracing::warn!(topic = %self.topic, records = batch.len(), %error, "an append failed");
        for entry in batch {
            // Who asked may be gone.
            let _ = entry.answer.send(Err(error.clone()));
        }
    }

    fn acknowledge(&self, batch: Vec<Entry>, mut next: Places) {
        let mut answers = Vec::with_capacity(batch.len());
        for entry in batch {
            let answer = match next.get_mut(&entry.partition) {
                Some((next, log_time)) => {
                    *next += 1;
                    Ok(Appended::At { offset: *next - 1, log_time: *log_time })
                }
                None => Err(AppendError::Refused(format!("{} has no partition {}", self.topic, entry.partition))),
            };
            answers.push((entry.answer, answer));
        }
        for (to, answer) in answers {
            let _ = to.send(answer);
        }
        let ends: Vec<_> = next.into_iter().map(|(partition, (next, _))| (partition as usize, next)).collect();
        self.log.wake.committed(&self.topic, &ends);
    }

    async fn attempt(&mut self, batch: &[Entry]) -> Result<Places, Failure> {
        let Some(mut own) = self.log.own.try_take() else { return self.attempt_borrowed(batch).await };
        // Taken out: put back only where it is of use. One that leads to a server which takes no writes would refuse all that comes.
        let mut kept = in_time(Kept::of(own.take(), &self.log.pool)).await?;
        let answer = self.append(&mut kept.connection, kept.identity, batch).await;
        if answer.is_ok() {
            *own = Some(Kept { used: Instant::now(), ..kept });
        }
        answer
    }

    async fn attempt_borrowed(&mut self, batch: &[Entry]) -> Result<Places, Failure> {
        let mut session = in_time(self.log.pool.acquire()).await?;
        let answer = match in_time(identify(&mut session)).await {
            Ok(identity) => self.append(&mut session, identity, batch).await,
            Err(failure) => {
                session.close();
                return Err(failure);
            }
        };
        if matches!(answer, Err(Failure::Unknown(_))) {
            session.close();
        }
        answer
    }

    /// Appends over a session, which is of no use any more where it is not known what came of that.
    async fn append<S>(&mut self, session: &mut S, identity: Identity, batch: &[Entry]) -> Result<Places, Failure>
    where
        for<'c> &'c mut S: Executor<'c, Database = Postgres>,
    {
        self.end_doubtful(session).await?;
        let reason = match timeout(PATIENCE, insert(session, &self.log.tenant, &self.topic, batch)).await {
            Ok(Ok(bases)) => return Ok(bases),
            Ok(Err(sqlx::Error::Database(error))) if !cut_off(error.code().as_deref()) => {
                return Err(match error.code().as_deref() {
                    Some("40001" | "40P01" | "55P03") => {
                        Failure::Later("PostgreSQL was asked for the same by another hub".into())
                    }
                    _ => self.refused(&sqlx::Error::Database(error)),
                });
            }
            Ok(Err(error @ (sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_)))) => return Err(self.refused(&error)),
            Ok(Err(error)) => {
                tracing::warn!(topic = %self.topic, %error, "the answer to an append was lost");
                told(&error)
            }
            Err(_) => "no answer in time".to_owned(),
        };
        self.doubtful = Some(identity);
        Err(Failure::Unknown(format!("the append's answer was lost: {reason}")))
    }

    fn refused(&self, error: &sqlx::Error) -> Failure {
        tracing::warn!(topic = %self.topic, %error, "PostgreSQL refused an append");
        Failure::Refused(format!("PostgreSQL refused the append: {}", told(error)))
    }

    /// What is appended next must not overtake what a lost session may still be about to commit: that session is ended first.
    async fn end_doubtful<S>(&mut self, session: &mut S) -> Result<(), Failure>
    where
        for<'c> &'c mut S: Executor<'c, Database = Postgres>,
    {
        let Some(lost) = self.doubtful else { return Ok(()) };
        let end = sqlx::query_scalar(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
             WHERE pid = $1 AND usename = session_user AND backend_start <= $2",
        );
        let ended: Option<bool> = timeout(PATIENCE, end.bind(lost.pid).bind(lost.seen_at).fetch_optional(session))
            .await
            .map_err(|_| silent())?
            .map_err(|error| unanswered(&error))?;
        match ended {
            None | Some(true) => {
                self.doubtful = None;
                Ok(())
            }
            Some(false) => Err(Failure::Later("a lost session of this hub is still there".into())),
        }
    }
}

/// Comes by a session. Nothing was appended where that fails.
async fn in_time<T>(session: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Failure> {
    timeout(SESSION_PATIENCE, session).await.map_err(|_| silent())?.map_err(|error| unanswered(&error))
}

fn silent() -> Failure {
    Failure::Later("PostgreSQL does not answer".into())
}

fn unanswered(error: &sqlx::Error) -> Failure {
    tracing::debug!(%error, "no session with PostgreSQL");
    Failure::Later(format!("PostgreSQL does not answer: {}", told(error)))
}

/// Whether the server ended the session: then the commit may have been made.
fn cut_off(code: Option<&str>) -> bool {
    code.is_none_or(|code| code.starts_with("08") || code.starts_with("57P") || code.starts_with("58"))
}

async fn insert(
    session: impl Executor<'_, Database = Postgres>,
    tenant: &[u8; 10],
    topic: &TopicName,
    batch: &[Entry],
) -> Result<Places, sqlx::Error> {
    let mut counts: BTreeMap<i32, i64> = BTreeMap::new();
    let mut partitions = Vec::with_capacity(batch.len());
    let mut places = Vec::with_capacity(batch.len());
    for entry in batch {
        let partition = entry.partition.cast_signed();
        let count = counts.entry(partition).or_default();
        partitions.push(partition);
        places.push(*count);
        *count += 1;
    }
    let keys: Vec<Option<&[u8]>> = batch.iter().map(|entry| entry.record.key.as_deref()).collect();
    let values: Vec<Option<&[u8]>> = batch.iter().map(|entry| entry.record.value.as_deref()).collect();
    let headers: Vec<String> = batch.iter().map(|entry| array_of(&entry.record)).collect();
    let bases: Vec<(i32, i64, Timestamp, Option<String>)> = sqlx::query_as(APPEND)
        .bind(&tenant[..])
        .bind(topic.as_str())
        .bind(counts.keys().copied().collect::<Vec<_>>())
        .bind(counts.values().copied().collect::<Vec<_>>())
        .bind(partitions)
        .bind(places)
        .bind(keys)
        .bind(headers)
        .bind(values)
        .fetch_all(session)
        .await?;
    Ok(bases
        .into_iter()
        .map(|(partition, base, log_time, _)| (partition.cast_unsigned(), (base.cast_unsigned(), log_time.into())))
        .collect())
}

/// Headers as PostgreSQL writes a `bytea[]`: arrays of different lengths do not nest, so that each record's goes as text.
fn array_of(record: &Record) -> String {
    let mut text = String::from("{");
    for (name, value) in &record.headers {
        for part in [name.as_bytes(), value] {
            text.push_str(if text.len() == 1 { "\"\\\\x" } else { ",\"\\\\x" });
            for byte in part {
                // Writing to a String can't fail.
                let _ = write!(text, "{byte:02x}");
            }
            text.push('"');
        }
    }
    text.push('}');
    text
}
