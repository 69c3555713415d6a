//! Removes the index rows of acknowledged messages from the mailboxes of single agents, soon after the acknowledgements were written.
//!
//! What is not removed here, since the replica ended before or had too much to remember, is removed at the agent's next session, or by
//! the sweep of what expired.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    ports::{Acknowledged, MailboxStore},
    position::Position,
};
use crate::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{Epoch, Partition},
};

/// Mailboxes that are remembered at most. Beyond that an agent's next acknowledgement, or the sweep, removes the rows.
const MAX_MAILBOXES: usize = 100_000;
/// Mailboxes of one statement.
const RANGES: usize = 1000;
/// Rows that one statement removes: few enough that nobody waits for it.
const ROWS: usize = 5000;

/// What is to be removed, and who removes it.
pub(super) struct Trimmer {
    store: Arc<dyn MailboxStore>,
    epoch: Epoch,
    /// How far the index goes, as this replica knows.
    checkpoints: watch::Receiver<Vec<Position>>,
    acknowledged: Mutex<BTreeMap<(AgentId, Partition), Range<Position>>>,
    added: Notify,
}

impl Trimmer {
    pub(super) fn new(store: Arc<dyn MailboxStore>, epoch: Epoch, checkpoints: watch::Receiver<Vec<Position>>) -> Self {
        Self { store, epoch, checkpoints, acknowledged: Mutex::default(), added: Notify::new() }
    }

    /// Remembers what an agent has acknowledged, durably. Whether there was room for it.
    pub(super) fn add(&self, agent: AgentId, partition: Partition, range: Range<Position>) -> bool {
        let remembered = self.remember(agent, partition, range);
        self.added.notify_one();
        remembered
    }

    fn remember(&self, agent: AgentId, partition: Partition, range: Range<Position>) -> bool {
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        if range.is_empty() {
            return true;
        }
        let full = acknowledged.len() >= MAX_MAILBOXES;
        match acknowledged.get_mut(&(agent, partition)) {
            Some(known) => *known = known.start.min(range.start)..known.end.max(range.end),
            None if full => return false,
            None => {
                acknowledged.insert((agent, partition), range);
            }
        }
        true
    }

    /// Removes rows until stopped.
    pub(super) async fn run(&self, every: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.added.notified() => {}
                // For what was not indexed yet when it was added.
                () = tokio::time::sleep(every) => {}
            }
            let due = self.take_due();
            for ranges in due.chunks(RANGES) {
                if let Err(error) = self.remove(ranges, &stop).await {
                    tracing::warn!(%error, "rows of acknowledged messages can't be removed, trying again");
                    // Nobody is woken for them: a store that refuses at once would be asked again without a pause.
                    for Acknowledged { agent, partition, range } in ranges {
                        self.remember(*agent, *partition, range.clone());
                    }
                }
            }
        }
    }

    /// Takes what can be removed now. A row at or past the checkpoint may be written later: were it removed now, it would come back.
    fn take_due(&self) -> Vec<Acknowledged> {
        let checkpoints = self.checkpoints.borrow().clone();
        let mut due = Vec::new();
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).retain(|&(agent, partition), range| {
            let indexed = checkpoints.get(partition as usize).copied().unwrap_or(0).clamp(range.start, range.end);
            if range.start < indexed {
                due.push(Acknowledged { agent, partition, range: range.start..indexed });
                range.start = indexed;
            }
            !range.is_empty()
        });
        due
    }

    async fn remove(&self, ranges: &[Acknowledged], stop: &CancellationToken) -> Result<(), Fault> {
        while self.store.remove_acknowledged(self.epoch, ranges, ROWS).await? >= ROWS as u64 {
            if stop.is_cancelled() {
                break;
            }
        }
        Ok(())
    }
}
