//! Writes what all sessions of this replica acknowledged, in one transaction per round, and learns from it which of them a newer session
//! has ended. Where the store refuses what one of them has to write, the others are written without it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    cursor::CursorState,
    ports::{Attempts, CursorFlush, CursorStore},
    trimmer::Trimmer,
};
use crate::{
    directory::agent::AgentId,
    fault::Code,
    log::{
        bus::{Epoch, Offset, Partition},
        partition::LogPlace,
    },
};

/// What one session has to write, since it last was.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    pub(super) cursors: BTreeMap<Partition, CursorState>,
    pub(super) attempts: HashMap<LogPlace, Option<u32>>,
}

/// One receiving session.
#[derive(Debug)]
pub(super) struct OpenMailbox {
    agent: AgentId,
    session_epoch: u64,
    unwritten: Mutex<Unwritten>,
    /// The watermarks that were written: the index rows below them are removed, or are about to be.
    written: Mutex<BTreeMap<Partition, Offset>>,
    /// An earlier session ended without a word, and this one has not come to all that it may have delivered.
    in_doubt: AtomicBool,
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
            replaced: CancellationToken::new(),
        })
    }

    pub(super) fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session after this one must doubt what this one had to.
    pub(super) fn leave_in_doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
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
                .map(|(id, attempts)| Attempts { partition: id.partition, offset: id.offset, attempts })
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
        for Attempts { partition, offset, attempts } in flush.attempts {
            unwritten.attempts.entry(LogPlace { partition, offset }).or_insert(attempts);
        }
    }
}

/// The receiving sessions of this replica.
pub(super) struct Acknowledgements {
    store: Arc<dyn CursorStore>,
    epoch: Epoch,
    mailboxes: Mutex<HashMap<(AgentId, u64), Arc<OpenMailbox>>>,
    /// One write at a time: a late one must not undo a newer one.
    writing: tokio::sync::Mutex<()>,
    trimmer: Arc<Trimmer>,
}

impl Acknowledgements {
    /// Of no session yet.
    pub(super) fn new(store: Arc<dyn CursorStore>, epoch: Epoch, trimmer: Arc<Trimmer>) -> Self {
        Self { store, epoch, mailboxes: Mutex::default(), writing: tokio::sync::Mutex::default(), trimmer }
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

    /// Ends a session, writing the last of it.
    pub(super) async fn close(&self, mailbox: &Arc<OpenMailbox>, write: bool) {
        self.lock().remove(&(mailbox.agent, mailbox.session_epoch));
        if write {
            let _turn = self.writing.lock().await;
            let flush = mailbox.take(true);
            match self.store.flush(self.epoch, vec![flush.clone()]).await {
                Ok(superseded) if superseded.is_empty() => mailbox.trim(&flush, &self.trimmer),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, agent = %mailbox.agent, "the last acknowledgements of a session were not written");
                }
            }
        }
    }

    async fn write(&self) {
        let _turn = self.writing.lock().await;
        let mailboxes: Vec<Arc<OpenMailbox>> = self.lock().values().cloned().collect();
        if mailboxes.is_empty() {
            return;
        }
        let mut groups = vec![mailboxes.into_iter().map(|mailbox| (mailbox.take(false), mailbox)).collect::<Vec<_>>()];
        while let Some(mut group) = groups.pop() {
            match self.store.flush(self.epoch, group.iter().map(|(flush, _)| flush.clone()).collect()).await {
                Ok(superseded) => {
                    for (flush, mailbox) in &group {
                        if superseded.contains(&(mailbox.agent, mailbox.session_epoch)) {
                            mailbox.replaced.cancel();
                        } else {
                            mailbox.trim(flush, &self.trimmer);
                        }
                    }
                }
                // By halves: who it is about is found in a few steps, and the others are written meanwhile.
                Err(error) if error.code != Code::Unavailable && group.len() > 1 => {
                    groups.push(group.split_off(group.len() / 2));
                    groups.push(group);
                }
                Err(error) => {
                    tracing::warn!(%error, sessions = group.len(), "acknowledgements can't be written, trying again");
                    for (flush, mailbox) in group {
                        mailbox.put_back(flush);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(AgentId, u64), Arc<OpenMailbox>>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was acknowledged, every `every`, until stopped.
    pub(super) async fn run(&self, every: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => self.write().await,
            }
        }
    }
}
