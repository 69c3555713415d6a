//! Writes what all sessions of this replica acknowledged, in one transaction per round, and learns from it which of them a newer session
//! has ended. Where the store refuses what one of them has to write, the others are written without it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::{
    agent::AgentId,
    bus::Partition,
    cursor::CursorState,
    fault::Code,
    mailbox::{Attempts, CursorFlush},
    session::DeliveryId,
};

/// What one session has to write, since it last was.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    pub(super) cursors: BTreeMap<Partition, CursorState>,
    pub(super) attempts: HashMap<DeliveryId, u32>,
}

/// One receiving session.
#[derive(Debug)]
pub(super) struct Slot {
    agent: AgentId,
    session_epoch: u64,
    unwritten: Mutex<Unwritten>,
    /// A newer session took over.
    pub(super) replaced: CancellationToken,
}

impl Slot {
    pub(super) fn new(agent: AgentId, session_epoch: u64) -> Arc<Self> {
        Arc::new(Self { agent, session_epoch, unwritten: Mutex::default(), replaced: CancellationToken::new() })
    }

    pub(super) fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
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
        }
    }

    /// What could not be written is written next time, unless it changed meanwhile.
    fn put_back(&self, flush: CursorFlush) {
        let mut unwritten = self.unwritten();
        for (partition, state) in flush.cursors {
            unwritten.cursors.entry(partition).or_insert(state);
        }
        for Attempts { partition, offset, attempts } in flush.attempts {
            unwritten.attempts.entry(DeliveryId { partition, offset }).or_insert(attempts);
        }
    }
}

/// The receiving sessions of this replica.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Mutex<HashMap<(AgentId, u64), Arc<Slot>>>,
    /// One write at a time: a late one must not undo a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl Slots {
    /// Adds a session, and ends older ones of the agent on this replica at once.
    pub(super) fn add(&self, slot: &Arc<Slot>) {
        let mut slots = self.lock();
        for other in slots.values().filter(|other| other.agent == slot.agent) {
            let older = if other.session_epoch < slot.session_epoch { other } else { slot };
            older.replaced.cancel();
        }
        slots.insert((slot.agent, slot.session_epoch), slot.clone());
    }

    /// Ends a session, writing the last of it.
    pub(super) async fn close(&self, inner: &Inner, slot: &Arc<Slot>, write: bool) {
        self.lock().remove(&(slot.agent, slot.session_epoch));
        if write {
            let _turn = self.writing.lock().await;
            if let Err(error) = inner.cursors.flush(inner.epoch, vec![slot.take(true)]).await {
                tracing::warn!(%error, agent = %slot.agent, "the last acknowledgements of a session were not written");
            }
        }
    }

    async fn write(&self, inner: &Inner) {
        let _turn = self.writing.lock().await;
        let slots: Vec<Arc<Slot>> = self.lock().values().cloned().collect();
        if slots.is_empty() {
            return;
        }
        let mut groups = vec![slots.into_iter().map(|slot| (slot.take(false), slot)).collect::<Vec<_>>()];
        while let Some(mut group) = groups.pop() {
            match inner.cursors.flush(inner.epoch, group.iter().map(|(flush, _)| flush.clone()).collect()).await {
                Ok(superseded) => {
                    for (_, slot) in group.iter().filter(|(_, slot)| superseded.contains(&(slot.agent, slot.session_epoch))) {
                        slot.replaced.cancel();
                    }
                }
                // By halves: who it is about is found in a few steps, and the others are written meanwhile.
                Err(error) if error.code != Code::Unavailable && group.len() > 1 => {
                    groups.push(group.split_off(group.len() / 2));
                    groups.push(group);
                }
                Err(error) => {
                    tracing::warn!(%error, sessions = group.len(), "acknowledgements can't be written, trying again");
                    for (flush, slot) in group {
                        slot.put_back(flush);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(AgentId, u64), Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(inner.config.flush_every) => inner.slots.write(&inner).await,
        }
    }
}
