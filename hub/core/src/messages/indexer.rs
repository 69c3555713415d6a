//! Writes the mailbox index behind the log. Every replica tries; whoever moves the checkpoint first has written the rows, and the
//! others drop theirs.

use std::{collections::VecDeque, pin::pin, time::Duration};

use tokio::sync::{mpsc, watch};

use super::{
    life,
    parts::Parts,
    ports::{Advance, IndexEntry, MailboxAddress, Moved},
    position::Position,
};
use crate::log::bus::Partition;

/// Rows that wait in memory. At the bound the reader waits, and with it every sender: better than to forget.
pub(super) const MAX_WAITING: usize = 100_000;
/// Rows of one transaction.
const MAX_BATCH: usize = 2000;

/// How far a partition was read, with a row of the last message if it has one. The first rows of a message that has several come with its own position:
/// the index goes past it with the last of them.
#[derive(Debug)]
pub(super) struct IndexWork {
    pub(super) partition: Partition,
    pub(super) next: Position,
    pub(super) row: Option<IndexEntry>,
}

/// What one partition's index lacks. All rows from the checkpoint on are in memory, and none below it: they can't be written twice.
#[derive(Debug, Default)]
struct Behind {
    checkpoint: Position,
    next: Position,
    rows: VecDeque<IndexEntry>,
}

impl Behind {
    fn advance(&self, partition: Partition) -> Option<Advance> {
        if self.next <= self.checkpoint {
            return None;
        }
        let full = self.rows.get(MAX_BATCH - 1).map(|row| row.position);
        // All rows of a message are written together: who finds the checkpoint past it writes none of them any more.
        let to = full.map_or(self.next, |position| position + 1).min(self.next);
        let rows = self.rows.iter().take_while(|row| row.position < to).cloned().collect();
        Some(Advance { partition, from: self.checkpoint, to, rows })
    }

    /// False where the index no longer has what is not in memory any more: rows that nobody else will write.
    fn moved(&mut self, advance: (Position, Moved), written: &mut Vec<MailboxAddress>) -> bool {
        let checkpoint = match advance {
            (to, Moved::Won) => to,
            (_, Moved::Lost(at)) if at >= self.checkpoint => at,
            (_, Moved::Lost(_) | Moved::Gone) => return false,
        };
        self.checkpoint = checkpoint;
        while let Some(row) = self.rows.pop_front_if(|row| row.position < checkpoint) {
            written.push(row.address);
        }
        true
    }
}

pub(super) async fn run(
    parts: Parts,
    mut work: mpsc::Receiver<IndexWork>,
    from: Vec<Position>,
    published: watch::Sender<Vec<Position>>,
) {
    let mut partitions: Vec<Behind> =
        from.into_iter().map(|checkpoint| Behind { checkpoint, next: checkpoint, rows: VecDeque::new() }).collect();
    let mut batch = Vec::new();
    loop {
        let idle = partitions.iter().all(|partition| partition.next <= partition.checkpoint);
        if idle {
            tokio::select! {
                () = parts.lifecycle.stop.cancelled() => return,
                count = work.recv_many(&mut batch, MAX_BATCH) => if count == 0 { return },
            }
            // Gathers what comes at about the same time, unless somebody waits for it.
            let mut until = pin!(tokio::time::sleep(parts.config.index_every));
            let mut gathered = 0;
            loop {
                let rows = batch.iter().filter_map(|work| work.row.as_ref());
                let is_awaited = parts.index.arrivals.awaits(rows.map(|row| &row.address));
                gathered += batch.len();
                parts.index.arrivals.tell(&take(&mut partitions, &mut batch));
                if is_awaited || gathered >= MAX_WAITING {
                    break;
                }
                tokio::select! {
                    () = parts.lifecycle.stop.cancelled() => return,
                    () = parts.index.wanted.notified() => break,
                    () = &mut until => break,
                    count = work.recv_many(&mut batch, MAX_BATCH) => if count == 0 { return },
                }
            }
        }
        let waiting: usize = partitions.iter().map(|partition| partition.rows.len()).sum();
        while waiting + batch.len() < MAX_WAITING {
            match work.try_recv() {
                Ok(item) => batch.push(item),
                Err(_) => break,
            }
        }
        parts.index.arrivals.tell(&take(&mut partitions, &mut batch));
        let advances: Vec<Advance> = (0..).zip(&partitions).filter_map(|(partition, behind)| behind.advance(partition)).collect();
        let named: Vec<(Partition, Position)> = advances.iter().map(|advance| (advance.partition, advance.to)).collect();
        match parts.index.store.index(parts.log.epoch, advances).await {
            Ok(moved) => {
                let mut written = Vec::new();
                for ((partition, to), moved) in named.into_iter().zip(moved) {
                    if let Some(behind) = partitions.get_mut(partition as usize)
                        && !behind.moved((to, moved), &mut written)
                    {
                        return life::end_with_store(&parts).await;
                    }
                }
                published.send_replace(partitions.iter().map(|partition| partition.checkpoint).collect());
                parts.index.arrivals.tell(&written);
            }
            Err(error) => {
                tracing::warn!(%error, "the mailbox index can't be written, trying again");
                tokio::select! {
                    () = parts.lifecycle.stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_millis(250)) => {}
                }
            }
        }
    }
}

/// What another replica has written meanwhile is known here only now: whoever waits for it is told.
fn take(partitions: &mut [Behind], batch: &mut Vec<IndexWork>) -> Vec<MailboxAddress> {
    let mut written = Vec::new();
    for item in batch.drain(..) {
        if let Some(behind) = partitions.get_mut(item.partition as usize) {
            behind.next = behind.next.max(item.next);
            match item.row {
                Some(row) if row.position >= behind.checkpoint => behind.rows.push_back(row),
                Some(row) => written.push(row.address),
                None => {}
            }
        }
    }
    written
}
