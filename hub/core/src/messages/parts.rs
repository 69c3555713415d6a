//! What the tasks of the message service share. Each task holds the parts that it needs.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    acknowledgements::Acknowledgements,
    arrivals::Arrivals,
    config::MessagesConfig,
    dedup::DedupWindows,
    letter_store::LetterStore,
    log::Log,
    logged::{Command, Seen},
    message::Message,
    pauses::Pauses,
    pending::Pending,
    ports::{CursorStore, MailboxStore},
    position::Position,
    replies::Replies,
    sums::Sums,
    trace::{recorder::Recorder, store::TraceStore},
    usage::Usage,
    usage_store::UsageStore,
};
use crate::{
    directory::snapshot::Directory,
    fault::Fault,
    kit::budget::{Budget, Queue},
    metrics::Metrics,
};

/// How long a session may go on acknowledging after `Draining`.
pub(super) const DRAIN: Duration = Duration::from_secs(2);

/// The index over the log.
pub(super) struct Index {
    pub(super) store: Arc<dyn MailboxStore>,
    /// How far it goes, as this replica knows.
    pub(super) checkpoints: watch::Receiver<Vec<Position>>,
    /// Somebody waits for it.
    pub(super) wanted: Notify,
    /// Who waits for rows of some addresses.
    pub(super) arrivals: Arc<Arrivals>,
}

/// The index over the dead letters.
pub(super) struct Letters {
    pub(super) store: Arc<dyn LetterStore>,
    /// This replica has appended one, or may have.
    pub(super) appended: Notify,
    /// Partitions of their log that took nothing lately.
    pub(super) pauses: Pauses,
}

/// The stores of the message service.
#[derive(Clone)]
pub struct MessageStores {
    /// The index over the messages log.
    pub mailboxes: Arc<dyn MailboxStore>,
    /// What each agent has acknowledged.
    pub cursors: Arc<dyn CursorStore>,
    /// The index over the dead letters.
    pub letters: Arc<dyn LetterStore>,
    /// What happened to messages.
    pub traces: Arc<dyn TraceStore>,
    /// What agents have sent, by hour and month.
    pub usage: Arc<dyn UsageStore>,
}

impl fmt::Debug for MessageStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageStores")
    }
}

/// Who waits in this replica for what the log will show.
pub(super) struct Waiters {
    /// Senders, for their append to be seen.
    pub(super) appends: Pending<Seen>,
    /// Callers, for the reply to their request.
    pub(super) requests: Pending<Message>,
    replies: Mutex<Replies>,
}

impl Waiters {
    pub(super) fn new(replies: Replies) -> Self {
        Self { appends: Pending::default(), requests: Pending::default(), replies: Mutex::new(replies) }
    }

    pub(super) fn replies(&self) -> MutexGuard<'_, Replies> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds of what waits in memory.
pub(super) struct Memory {
    /// Of all queues for agents that receive.
    pub(super) sessions: Budget,
    /// Of what agents send on sessions. Apart: who receives slowly must hold up nobody who sends.
    pub(super) inputs: Budget,
    /// Of all that sessions keep for its next delivery.
    pub(super) kept: Budget,
    /// Of messages that are sent one at a time.
    pub(super) sending: Queue,
}

/// Where the service is in its life.
pub(super) struct Lifecycle {
    /// Names this life of the service.
    pub(super) lease: Uuid,
    /// What it waits for before it can serve; `None`: ready.
    pub(super) waits_for: watch::Sender<Option<String>>,
    /// Open sessions.
    pub(super) sessions: watch::Sender<usize>,
    pub(super) draining: CancellationToken,
    pub(super) stop: CancellationToken,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self {
            lease: Uuid::new_v4(),
            waits_for: watch::Sender::new(Some("the messages log".to_owned())),
            sessions: watch::Sender::new(0),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }
}

/// All of them.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) config: Arc<MessagesConfig>,
    pub(super) log: Arc<Log>,
    pub(super) index: Arc<Index>,
    pub(super) letters: Arc<Letters>,
    pub(super) cursors: Arc<dyn CursorStore>,
    pub(super) acknowledgements: Arc<Acknowledgements>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) windows: Arc<DedupWindows>,
    pub(super) usage: Arc<Usage>,
    pub(super) trace: Arc<Recorder>,
    pub(super) sums: Arc<Sums>,
    pub(super) memory: Arc<Memory>,
    pub(super) lifecycle: Arc<Lifecycle>,
    pub(super) directory: Directory,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reader: mpsc::Sender<Command>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").field("topic", &self.log.topic.name).finish_non_exhaustive()
    }
}

impl Parts {
    /// Whether this replica can serve.
    pub(super) fn ready(&self) -> Result<(), Fault> {
        if self.lifecycle.stop.is_cancelled() || self.lifecycle.draining.is_cancelled() {
            return Err(stopping());
        }
        match &*self.lifecycle.waits_for.borrow() {
            None => Ok(()),
            Some(waits) => Err(Fault::unavailable("NOT_READY", format!("the hub waits for {waits}: try again shortly"))),
        }
    }
}

/// What a caller hears whose replica ends.
pub(super) fn stopping() -> Fault {
    Fault::unavailable("HUB_STOPPING", "this hub replica stops: connect again, to any replica")
}
