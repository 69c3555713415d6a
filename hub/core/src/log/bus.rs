//! The bus port: an ordered, durable, partitioned log. Kafka and PostgreSQL provide it, and one conformance suite holds both to
//! what is said here.

use std::{fmt, pin::Pin};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, future::BoxFuture};
use time::OffsetDateTime;

use crate::fault::{Code, Fault};

/// The full name of a topic, such as `acb.acme.sys.messages`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(String);

impl TopicName {
    /// `acb.<tenant>.sys.<name>`: a topic of ACB's own.
    #[must_use]
    pub fn system(tenant: &str, name: &str) -> Self {
        Self(format!("acb.{tenant}.sys.{name}"))
    }

    /// `acb.<tenant>.<context type>`.
    #[must_use]
    pub fn context(tenant: &str, context_type: &str) -> Self {
        Self(format!("acb.{tenant}.{context_type}"))
    }

    /// The name as Kafka and PostgreSQL know it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition's number, from 0.
pub type Partition = u32;

/// A record's place in its partition, from 0.
pub type Offset = u64;

/// Which life of the log this is: after a lost and rebuilt topic, offsets of an older epoch mean nothing.
pub type Epoch = u64;

/// What is appended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What compaction keeps the last record of.
    pub key: Option<Bytes>,
    /// Small facts that a reader wants without decoding the value, such as the trace context.
    pub headers: Vec<(String, Bytes)>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// A record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Where.
    pub partition: Partition,
    /// Where.
    pub offset: Offset,
    /// When the log took it. Never falls within a partition.
    pub log_time: OffsetDateTime,
    /// What.
    pub record: Record,
}

/// A run of one partition, in order. Everything below `next` has been handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Of which partition.
    pub partition: Partition,
    /// In the order of their offsets. May be empty, where only the position moved.
    pub records: Vec<Logged>,
    /// The consumer's position after this batch.
    pub next: Offset,
}

/// Shape of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// This life of the log.
    pub epoch: Epoch,
    /// How many partitions it has.
    pub partitions: u32,
}

/// What a partition holds: offsets in `first..next`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The oldest retained offset.
    pub first: Offset,
    /// The offset that the next record will get.
    pub next: Offset,
}

impl Bounds {
    /// Records between a reader's positions and the ends of the log, as far as that says where it ends.
    #[must_use]
    pub fn unread(bounds: &[Result<Self, BusError>], read: impl Iterator<Item = Offset>) -> u64 {
        let known = bounds.iter().zip(read).filter_map(|(bounds, read)| Some((bounds.as_ref().ok()?, read)));
        // What the log no longer holds can't be read any more.
        known.map(|(bounds, read)| bounds.next.saturating_sub(read.max(bounds.first))).sum()
    }
}

/// How the log took a record: durably, in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// At this offset.
    At {
        /// Where.
        offset: Offset,
        /// When the log took it: exactly what a reader finds in [`Logged::log_time`].
        log_time: OffsetDateTime,
    },
    /// Somewhere: the acknowledgement carried no offset, and the tail will show it.
    Unknown,
}

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The record is larger than the topic takes. It is not in the log, and its neighbours are unharmed.
    #[error("the record has {size} bytes, and {topic} takes at most {limit}")]
    TooLarge {
        /// Bytes of the record.
        size: usize,
        /// The most that the topic takes.
        limit: usize,
        /// Which topic.
        topic: TopicName,
    },
    /// The log refused it: it is not in the log.
    #[error("{0}")]
    Refused(String),
    /// The answer was lost or late: the record may or may not be in the log.
    #[error("{0}")]
    Unknown(String),
}

/// Why the bus could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// There is no such topic, or this tenant may not know of it.
    #[error("topic {0} does not exist: the operator makes it, see the Tenant's status")]
    NoSuchTopic(TopicName),
    /// The bus does not answer. Trying again may help.
    #[error("{0}")]
    Unavailable(String),
}

impl From<BusError> for Fault {
    fn from(error: BusError) -> Self {
        match error {
            BusError::NoSuchTopic(_) => Self::new(Code::FailedPrecondition, "TOPIC_NOT_READY", error.to_string()),
            BusError::Unavailable(_) => Self::unavailable("LOG_UNAVAILABLE", error.to_string()),
        }
    }
}

/// Resolves once the log has the record durably.
pub type Pending = BoxFuture<'static, Result<Appended, AppendError>>;

/// Batches from every partition of a topic, each partition in order. Ends only with an error; a new tail then goes on from the last
/// position.
pub type Tail = Pin<Box<dyn Stream<Item = Result<Batch, BusError>> + Send>>;

/// An ordered, durable, partitioned log.
///
/// - Records of one partition have dense, rising offsets; every reader sees the same records at the same offsets. Where the topic is
///   compacted, what was outdated leaves holes, and never the last offset.
/// - A record is durable before its append resolves, and is seen by no reader before it is durable.
/// - Appends to one partition whose calls to [`append`](Self::append) returned in an order are logged in that order, if they are logged.
/// - Nothing is created by naming it: an unknown topic is an error.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Epoch and partition count.
    async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError>;

    /// Takes a record into a bounded queue (waiting for room in it), and hands back what resolves when the record is in the log.
    async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError>;

    /// Follows every partition, from one offset each. An offset below what is retained starts at the oldest; one beyond the end is an
    /// error, of this call or of the tail. A partition that can't be read for now holds up no other: it is followed once it can.
    async fn tail(&self, topic: &TopicName, from: &[Offset]) -> Result<Tail, BusError>;

    /// Up to `limit` records from `offset` on; empty at the end. Right after a change of who leads a partition its end may be told as
    /// earlier than it is: a record that is not shown is gone only where a later one is, or where [`bounds`](Self::bounds) say so.
    async fn read(&self, topic: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError>;

    /// What each partition holds now. Fails where one of them does not say.
    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError>;

    /// The same for whoever can do with some: each partition with an answer of its own. They fail together unless the bus says otherwise.
    async fn bounds_each(&self, topic: &TopicName) -> Result<Vec<Result<Bounds, BusError>>, BusError> {
        Ok(self.bounds(topic).await?.into_iter().map(Ok).collect())
    }

    /// For each partition the first offset whose log time is at or after `time`; its `next` where there is none. Fails where one of them
    /// does not say.
    async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError>;

    /// The same, each partition with an answer of its own.
    async fn offsets_at_each(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Result<Offset, BusError>>, BusError> {
        Ok(self.offsets_at(topic, time).await?.into_iter().map(Ok).collect())
    }
}
