//! How the message service behaves.

use std::time::Duration;

use super::request_id::RequestKey;
use crate::kit::spans::Spans;

/// How the message service behaves.
#[derive(Clone, Debug)]
pub struct MessagesConfig {
    /// The tenant's name.
    pub tenant: String,
    /// This replica's name.
    pub replica: String,
    /// What the ids of requests are made with.
    pub request_key: RequestKey,
    /// When an unacknowledged message is delivered again.
    pub redeliver_after: Duration,
    /// After how many unacknowledged deliveries a message goes to the dead letters.
    pub max_attempts: u32,
    /// How long a record may take to the log before every reader drops it.
    pub max_append_delay: Duration,
    /// How long, in log time, a repeated message is known.
    pub dedup_window: Duration,
    /// How many keys are known at most.
    pub dedup_keys: usize,
    /// How often cursors are written.
    pub flush_every: Duration,
    /// How long the indexer gathers rows.
    pub index_every: Duration,
    /// How often expired messages are looked for.
    pub sweep_every: Duration,
    /// Bytes that wait in each queue of a session at most; an empty one takes any message.
    pub session_bytes: usize,
    /// And in the queues of all sessions together.
    pub replica_bytes: usize,
    /// Bytes that all sessions together keep of what was delivered, so that to deliver it again reads nothing.
    pub kept_bytes: usize,
    /// Bytes of messages outside of sessions that are on their way into the log; beyond that `TOO_MANY_SENDS`.
    pub sending_bytes: usize,
    /// How often what was sent is added to the sums of usage.
    pub sum_every: Duration,
    /// How often sums of hours that are closed are looked for, to be told to the topic of usage.
    pub export_every: Duration,
    /// How long after its beginning an hour is closed: what was sent in it is summed by then, but for what comes late.
    pub close_after: Duration,
    /// How often store and log are asked whether they are still what this replica remembers.
    pub look_every: Duration,
    /// How long a log must end before what was read of it until that counts as a loss: who leads a partition anew may say too early an end.
    pub cut_after: Duration,
    /// How long a message's way into the log may take before its sender is told that it is not known.
    pub append_timeout: Duration,
    /// Where it is told what happened to messages whose senders collect traces.
    pub spans: Spans,
}

impl MessagesConfig {
    /// The promised behaviour.
    #[must_use]
    pub fn new(tenant: impl Into<String>, replica: impl Into<String>, request_key: RequestKey) -> Self {
        Self {
            tenant: tenant.into(),
            replica: replica.into(),
            request_key,
            redeliver_after: Duration::from_secs(30),
            max_attempts: 10,
            max_append_delay: Duration::from_secs(300),
            dedup_window: Duration::from_secs(600),
            dedup_keys: 1_000_000,
            flush_every: Duration::from_millis(500),
            index_every: Duration::from_secs(1),
            sweep_every: Duration::from_secs(30),
            session_bytes: 8 * 1024 * 1024,
            replica_bytes: 64 * 1024 * 1024,
            kept_bytes: 16 * 1024 * 1024,
            sending_bytes: 64 * 1024 * 1024,
            sum_every: Duration::from_secs(10),
            export_every: Duration::from_secs(30),
            close_after: Duration::from_secs(62 * 60),
            look_every: Duration::from_secs(5),
            cut_after: Duration::from_secs(30),
            append_timeout: Duration::from_secs(35),
            spans: Spans::default(),
        }
    }
}
