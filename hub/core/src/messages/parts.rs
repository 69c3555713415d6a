//! What the tasks of the message service share. Each task holds the parts that it needs.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{
    acknowledgements::Acknowledgements,
    config::MessagesConfig,
    log::Log,
    logged::{Command, Seen},
    message::Message,
    pending::Pending,
    ports::{CursorStore, MailboxStore},
    position::Position,
    replies::Replies,
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
    /// Of all queues of all sessions.
    pub(super) sessions: Budget,
    /// Of all that sessions keep for its next delivery.
    pub(super) kept: Budget,
    /// Of messages that are sent one at a time.
    pub(super) sending: Queue,
}

/// Where the service is in its life.
pub(super) struct Lifecycle {
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
    pub(super) cursors: Arc<dyn CursorStore>,
    pub(super) acknowledgements: Arc<Acknowledgements>,
    pub(super) waiters: Arc<Waiters>,
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

/// What a caller hears whose replica ends.
pub(super) fn stopping() -> Fault {
    Fault::unavailable("HUB_STOPPING", "this hub replica stops: connect again, to any replica")
}
