//! Notes what happens to messages, and writes it about once a second. A replica that is killed loses its last second, and one that has more to note
//! than it can write drops what is too much: nothing waits for a trace.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    event::{Happening, Noted, encode},
    store::{TracePart, TraceStore, section_of},
};
use crate::{
    directory::{agent::AgentId, refresher::jittered},
    kit::clock::now,
    log::bus::{Epoch, Partition},
    messages::position::MessagePlace,
    metrics::Metrics,
};

/// Events that wait to be written: about 10 MiB.
const MAX_WAITING: usize = 200_000;
/// So many are written before their time.
const WRITE_AT: usize = 20_000;
/// Events of one row, which the table bounds by 1 MiB.
const ROW: usize = 20_000;
/// How often they are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// How long a write may take: what comes meanwhile waits.
const WRITE_WITHIN: Duration = Duration::from_secs(5);
/// How often what is old is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(600);
/// As long as the log of messages keeps what it is about.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of a tenant's traces: about three million messages.
const KEEP_BYTES: u64 = 256 * 1024 * 1024;

/// What one replica noted and has not written yet.
pub(in crate::messages) struct Recorder {
    store: Arc<dyn TraceStore>,
    epoch: Epoch,
    replica: String,
    waiting: Mutex<Vec<(Partition, Noted)>>,
    many: Notify,
    metrics: Arc<Metrics>,
}

impl Recorder {
    pub(in crate::messages) fn new(store: Arc<dyn TraceStore>, epoch: Epoch, replica: &str, metrics: Arc<Metrics>) -> Self {
        Self { store, epoch, replica: replica.to_owned(), waiting: Mutex::default(), many: Notify::new(), metrics }
    }

    pub(super) fn store(&self) -> &dyn TraceStore {
        &*self.store
    }

    pub(in crate::messages) fn note(&self, place: MessagePlace, what: Happening, agent: AgentId) {
        self.note_attempt(place, what, agent, 0);
    }

    /// The same, of a delivery.
    pub(in crate::messages) fn note_attempt(&self, place: MessagePlace, what: Happening, agent: AgentId, attempt: u32) {
        let attempt = u8::try_from(attempt).unwrap_or(u8::MAX);
        let noted = Noted { at: now(), position: place.position, what, attempt, agent };
        let mut waiting = self.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push((place.partition, noted));
            if waiting.len() == WRITE_AT {
                self.many.notify_one();
            }
        } else {
            self.metrics.trace_lost(1);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Partition, Noted)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was noted, until stopped.
    pub(in crate::messages) async fn run(&self, stop: CancellationToken) {
        // The replicas of all tenants started at about the same time, and PostgreSQL is one.
        let mut forget_at = tokio::time::Instant::now() + jittered(FORGET_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.many.notified() => {}
                () = tokio::time::sleep(WRITE_EVERY) => {}
            }
            self.write().await;
            if tokio::time::Instant::now() >= forget_at {
                forget_at = tokio::time::Instant::now() + jittered(FORGET_EVERY);
                if let Err(error) = self.store.forget_traces(KEEP, KEEP_BYTES).await {
                    tracing::warn!(%error, "old traces can't be removed yet");
                }
            }
        }
    }

    /// Writes what was noted so far. What can't be written is dropped, and counted.
    pub(in crate::messages) async fn write(&self) {
        let noted = std::mem::take(&mut *self.lock());
        if noted.is_empty() {
            return;
        }
        let events = noted.len();
        let mut sections: BTreeMap<(Partition, u64), Vec<Noted>> = BTreeMap::new();
        for (partition, noted) in noted {
            sections.entry((partition, section_of(noted.position))).or_default().push(noted);
        }
        let mut parts = Vec::with_capacity(sections.len());
        for ((partition, section), noted) in sections {
            parts.extend(noted.chunks(ROW).map(|noted| TracePart { partition, section, events: encode(noted) }));
        }
        let written = tokio::time::timeout(WRITE_WITHIN, self.store.note(self.epoch, &self.replica, &parts)).await;
        if !matches!(written, Ok(Ok(()))) {
            tracing::debug!(events, "what happened to messages could not be written");
            self.metrics.trace_lost(events);
        }
    }
}
