//! Writes what the sessions of this replica acknowledged, in one transaction per round, and learns from it which of them a newer session has ended.
//! A session that has nothing to write is in no round: whether it goes on is asked with the lease of the replica. Where the store refuses what one of
//! them has to write, the others are written without it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    cursor::CursorState,
    ports::{Attempts, CursorFlush, CursorStore},
    position::{MessagePlace, Position},
    trimmer::Trimmer,
};
use crate::{
    directory::agent::AgentId,
    fault::Code,
    log::bus::{Epoch, Partition},
};

/// Sessions of one transaction: it locks a row for each, and heartbeats wait for those.
const SESSIONS: usize = 100;
/// How long the end of a session waits for its last write.
const CLOSE: Duration = Duration::from_secs(8);
/// The pause before the last write of a session is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// What one session has to write, since it last was.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    pub(super) cursors: BTreeMap<Partition, CursorState>,
    pub(super) attempts: HashMap<MessagePlace, Option<u32>>,
}

/// One receiving session.
#[derive(Debug)]
pub(super) struct OpenMailbox {
    agent: AgentId,
    session_epoch: u64,
    unwritten: Mutex<Unwritten>,
    /// The watermarks that were written: the index rows below them are removed, or are about to be.
    written: Mutex<BTreeMap<Partition, Position>>,
    /// An earlier session ended without a word, and this one has not come to all that it may have delivered.
    in_doubt: AtomicBool,
    /// Answered once the last of the session is written.
    closing: Mutex<Option<oneshot::Sender<()>>>,
    /// Answered once what there is now is written; dropped where it never will be.
    waiting: Mutex<Vec<oneshot::Sender<()>>>,
    /// A newer session took over.
    pub(super) replaced: CancellationToken,
}

impl OpenMailbox {
    pub(super) fn new(agent: AgentId, session_epoch: u64) -> Arc<Self> {
        Arc::new(Self {
            agent,
            session_epoch,
            unwritten: Mutex::default(),
            written: Mutex::default(),
            in_doubt: AtomicBool::new(false),
            closing: Mutex::default(),
            waiting: Mutex::default(),
            replaced: CancellationToken::new(),
        })
    }

    fn closing(&self) -> MutexGuard<'_, Option<oneshot::Sender<()>>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<oneshot::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session after this one must doubt what this one had to.
    pub(super) fn leave_in_doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    /// Whether there is anything to write, or to answer.
    fn has_news(&self) -> bool {
        let has_unwritten = {
            let unwritten = self.unwritten();
            !unwritten.cursors.is_empty() || !unwritten.attempts.is_empty()
        };
        has_unwritten || self.closing().is_some() || !self.waiting().is_empty()
    }

    fn take(&self, closing: bool) -> CursorFlush {
        let unwritten = std::mem::take(&mut *self.unwritten());
        CursorFlush {
            agent: self.agent,
            session_epoch: self.session_epoch,
            cursors: unwritten.cursors.into_iter().collect(),
            attempts: unwritten
                .attempts
                .into_iter()
                .map(|(id, attempts)| Attempts { partition: id.partition, position: id.position, attempts })
                .collect(),
            closing,
            clean: !self.in_doubt.load(Ordering::Relaxed),
        }
    }

    /// Hands on what was written, so that its index rows are removed. A session's first write begins at the log's start: an earlier
    /// session may have left rows.
    fn trim(&self, flush: &CursorFlush, trimmer: &Trimmer) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, CursorState { watermark, .. }) in &flush.cursors {
            let from = written.get(partition).copied().unwrap_or(0);
            if trimmer.add(self.agent, *partition, from..*watermark) {
                written.insert(*partition, *watermark);
            }
        }
    }

    /// What could not be written is written next time, unless it changed meanwhile.
    fn put_back(&self, flush: CursorFlush) {
        let mut unwritten = self.unwritten();
        for (partition, state) in flush.cursors {
            unwritten.cursors.entry(partition).or_insert(state);
        }
        for Attempts { partition, position, attempts } in flush.attempts {
            unwritten.attempts.entry(MessagePlace { partition, position }).or_insert(attempts);
        }
    }
}

/// What one write has of one session.
struct Writing {
    mailbox: Arc<OpenMailbox>,
    flush: CursorFlush,
    closing: Option<oneshot::Sender<()>>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// The receiving sessions of this replica. One task writes for all of them: a late write must not undo a newer one.
pub(super) struct Acknowledgements {
    store: Arc<dyn CursorStore>,
    epoch: Epoch,
    mailboxes: Mutex<HashMap<(AgentId, u64), Arc<OpenMailbox>>>,
    /// A session ends, and waits for its last write.
    closing: Notify,
    /// Sessions of which somebody waits for what they have to be written.
    urgent: Mutex<Vec<Arc<OpenMailbox>>>,
    urged: Notify,
    trimmer: Arc<Trimmer>,
}

impl Acknowledgements {
    /// Of no session yet.
    pub(super) fn new(store: Arc<dyn CursorStore>, epoch: Epoch, trimmer: Arc<Trimmer>) -> Self {
        Self {
            store,
            epoch,
            mailboxes: Mutex::default(),
            closing: Notify::new(),
            urgent: Mutex::default(),
            urged: Notify::new(),
            trimmer,
        }
    }

    /// Adds a session, and ends older ones of the agent on this replica at once.
    pub(super) fn add(&self, mailbox: &Arc<OpenMailbox>) {
        let mut mailboxes = self.lock();
        for other in mailboxes.values().filter(|other| other.agent == mailbox.agent) {
            let older = if other.session_epoch < mailbox.session_epoch { other } else { mailbox };
            older.replaced.cancel();
        }
        mailboxes.insert((mailbox.agent, mailbox.session_epoch), mailbox.clone());
    }

    /// Whether this session is open here.
    pub(super) fn has(&self, agent: AgentId, session_epoch: u64) -> bool {
        self.lock().contains_key(&(agent, session_epoch))
    }

    /// The sessions that are open here.
    pub(super) fn open(&self) -> Vec<(AgentId, u64)> {
        self.lock().keys().copied().collect()
    }

    /// Ends those of these sessions that are open here: newer ones took over.
    pub(super) fn end_superseded(&self, superseded: &[(AgentId, u64)]) {
        let mailboxes = self.lock();
        for mailbox in superseded.iter().filter_map(|session| mailboxes.get(session)) {
            mailbox.replaced.cancel();
        }
    }

    /// Writes what a session has at once, without what the others have.
    pub(super) fn urge(&self, mailbox: &Arc<OpenMailbox>, written: oneshot::Sender<()>) {
        mailbox.waiting().push(written);
        self.urgent.lock().unwrap_or_else(PoisonError::into_inner).push(mailbox.clone());
        self.urged.notify_one();
    }

    /// Ends a session. The last of it is written together with what the others have, so that a thousand that end at once are a few writes.
    pub(super) async fn close(&self, mailbox: &Arc<OpenMailbox>, write: bool) {
        if write {
            let (written, answer) = oneshot::channel();
            *mailbox.closing() = Some(written);
            self.closing.notify_one();
            if !matches!(timeout(CLOSE, answer).await, Ok(Ok(()))) {
                tracing::warn!(agent = %mailbox.agent, "the last acknowledgements of a session were not written");
            }
        }
        self.lock().remove(&(mailbox.agent, mailbox.session_epoch));
    }

    /// Whether nothing that ends is left to be written.
    async fn write(&self, mut mailboxes: Vec<Arc<OpenMailbox>>) -> bool {
        // One that is urged twice would be written twice, and the older write might be the last.
        let mut seen = HashSet::new();
        mailboxes.retain(|mailbox| seen.insert((mailbox.agent, mailbox.session_epoch)));
        let flushes = mailboxes.into_iter().map(|mailbox| {
            let closing = mailbox.closing().take();
            // Taken before what it waits for.
            let waiting = std::mem::take(&mut *mailbox.waiting());
            Writing { flush: mailbox.take(closing.is_some()), mailbox, closing, waiting }
        });
        let mut groups: Vec<Vec<Writing>> = Vec::new();
        for writing in flushes {
            match groups.last_mut().filter(|group| group.len() < SESSIONS) {
                Some(group) => group.push(writing),
                None => groups.push(vec![writing]),
            }
        }
        let mut done = true;
        while let Some(mut group) = groups.pop() {
            match self.store.flush(self.epoch, group.iter().map(|writing| writing.flush.clone()).collect()).await {
                Ok(superseded) => {
                    for Writing { mailbox, flush, closing, waiting } in group {
                        if superseded.contains(&(mailbox.agent, mailbox.session_epoch)) {
                            mailbox.replaced.cancel();
                        } else {
                            mailbox.trim(&flush, &self.trimmer);
                            for written in waiting {
                                // Whoever waited may have gone.
                                let _gone = written.send(());
                            }
                        }
                        // The session may have stopped waiting.
                        let _gone = closing.map(|closing| closing.send(()));
                    }
                }
                // By halves: who it is about is found in a few steps, and the others are written meanwhile.
                Err(error) if error.code != Code::Unavailable && group.len() > 1 => {
                    groups.push(group.split_off(group.len() / 2));
                    groups.push(group);
                }
                Err(error) => {
                    tracing::warn!(%error, sessions = group.len(), "acknowledgements can't be written, trying again");
                    for Writing { mailbox, flush, closing, waiting } in group {
                        mailbox.put_back(flush);
                        if error.code == Code::Unavailable {
                            mailbox.waiting().extend(waiting);
                        }
                        // What the store refuses for good is not waited for. A session that began to end meanwhile is left alone.
                        if let Some(closing) = closing.filter(|_| error.code == Code::Unavailable) {
                            *mailbox.closing() = Some(closing);
                            done = false;
                        }
                    }
                }
            }
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(AgentId, u64), Arc<OpenMailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was acknowledged, every `every`, until stopped.
    pub(super) async fn run(&self, every: Duration, stop: CancellationToken) {
        let mut due = Instant::now() + every;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(due) => {}
                () = self.closing.notified() => {}
                () = self.urged.notified() => {
                    let urgent = std::mem::take(&mut *self.urgent.lock().unwrap_or_else(PoisonError::into_inner));
                    self.write(urgent).await;
                    continue;
                }
            }
            let with_news = self.lock().values().filter(|mailbox| mailbox.has_news()).cloned().collect();
            due = Instant::now() + if self.write(with_news).await { every } else { every.min(RETRY) };
        }
    }
}
