//! What every bus must do, as functions that take the bus under test. `conformance!` makes a test of each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod appending;
pub mod following;
pub mod outage;
pub mod reading;

use std::{sync::Arc, time::Duration};

use acb_hub_core::log::bus::{Appended, Bus, Logged, Offset, Partition, Record, Tail, TopicName};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};

/// Whatever should happen happens in this time, or never.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A bus under test, and what only its provider can do to it.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Makes a topic that nobody used before.
    async fn topic(&self, partitions: u32) -> TopicName;

    /// A bus with connections of its own, as another replica has.
    async fn bus(&self) -> Arc<dyn Bus>;

    /// Cuts every connection without a warning. When it returns, new ones can be made.
    async fn interrupt(&self);

    /// Retention: a partition forgets everything below `first`.
    async fn forget(&self, topic: &TopicName, partition: Partition, first: Offset);

    /// Holds appends to a topic up, until released.
    async fn stall(&self, topic: &TopicName) -> Stall;
}

/// Appends that are held up.
pub struct Stall {
    release: oneshot::Sender<()>,
    released: JoinHandle<()>,
}

impl Stall {
    /// From what ends the stall once it is told to.
    pub fn new(release: oneshot::Sender<()>, released: JoinHandle<()>) -> Self {
        Self { release, released }
    }

    /// Lets appends go on.
    pub async fn release(self) {
        self.release.send(()).expect("the stall is still there");
        self.released.await.expect("the stall ended well");
    }
}

/// Makes a test of every case. `$provider` is an async function that gives a [`Provider`] of the test's own.
#[macro_export]
macro_rules! conformance {
    ($provider:path: $($module:ident::{$($case:ident),* $(,)?})*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let provider = $provider().await;
                $crate::$module::$case(&provider).await;
            }
        )*)*
    };
    ($provider:path) => {
        $crate::conformance! { $provider:
            appending::{
                offsets_are_dense, appends_keep_their_order, many_writers_share_a_partition, a_record_is_kept_whole,
                a_large_record_harms_no_other, an_unknown_topic_is_an_error, an_unknown_partition_is_an_error,
                acknowledged_is_readable, the_queue_is_bounded,
            }
            reading::{
                bounds_tell_what_is_held, bounds_tell_what_is_forgotten, offsets_are_found_by_time, reads_are_limited,
                log_time_never_falls,
            }
            following::{
                a_tail_starts_anywhere, a_tail_resumes, two_tails_see_the_same, a_tail_follows_other_replicas,
                a_late_commit_is_not_skipped, a_tail_waits_at_the_end, a_tail_passes_over_what_is_forgotten,
                a_tail_does_not_start_past_the_end,
            }
            outage::{a_cut_connection_loses_nothing, appends_wait_for_the_log}
        }
    };
}

/// A record with this value.
pub fn record(value: impl Into<Vec<u8>>) -> Record {
    Record { value: Some(Bytes::from(value.into())), ..Record::default() }
}

/// Appends one, and waits until it is in the log.
pub async fn append(bus: &dyn Bus, topic: &TopicName, partition: Partition, value: impl Into<Vec<u8>>) -> Offset {
    let pending = bus.append(topic, partition, record(value)).await.expect("appended");
    match timeout(DEADLINE, pending).await.expect("an answer in time").expect("acknowledged") {
        Appended::At { offset, .. } => offset,
        Appended::Unknown => panic!("an undisturbed append knows its offset"),
    }
}

/// The next records of a tail, until there are `count`; in the order of arrival. Asserts that positions fit the records.
pub async fn take(tail: &mut Tail, count: usize) -> Vec<Logged> {
    let mut records = Vec::new();
    while records.len() < count {
        let batch = timeout(DEADLINE, tail.next())
            .await
            .unwrap_or_else(|_| panic!("{} of {count} records came", records.len()))
            .expect("the tail goes on")
            .expect("the tail goes on");
        if let Some(last) = batch.records.last() {
            assert!(batch.next > last.offset, "the position lies behind the batch");
        }
        assert!(batch.records.iter().all(|record| record.partition == batch.partition));
        records.extend(batch.records);
    }
    records
}

/// The values of records, as text.
pub fn texts(records: &[Logged]) -> Vec<String> {
    let text = |record: &Logged| String::from_utf8_lossy(record.record.value.as_deref().unwrap_or_default()).into_owned();
    records.iter().map(text).collect()
}
