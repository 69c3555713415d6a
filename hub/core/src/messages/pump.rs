//! Brings the messages log to its reader, with partitions whose start is known only later.

use std::{collections::BTreeSet, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::sync::mpsc;

use super::{
    life,
    parts::Parts,
    position::Position,
    start::{self, Start},
};
use crate::log::{
    bus::{Batch, Offset, Partition},
    follower::{Followed, Follower},
};

/// Partitions whose start is not known yet: nothing of them is handed on.
pub(super) struct Late {
    pub(super) partitions: BTreeSet<Partition>,
    /// How far each partition was indexed at the start.
    pub(super) indexed: Arc<Vec<Position>>,
    /// How far nothing of it has to be read again.
    pub(super) needed: Arc<Vec<Position>>,
}

impl Late {
    /// Waits until the start of one of them is known.
    fn find(&self, parts: &Parts) -> Option<BoxFuture<'static, Vec<(Partition, Start)>>> {
        if self.partitions.is_empty() {
            return None;
        }
        let (log, window) = (parts.log.clone(), parts.config.dedup_window);
        let (needed, partitions) = (self.needed.clone(), self.partitions.clone());
        Some(async move { start::find_late(&log.topic, &needed, window, &partitions).await }.boxed())
    }
}

/// Hands on batch after batch, until the log is another one.
pub(super) async fn run(parts: Parts, from: Vec<Offset>, mut late: Late, batches: mpsc::Sender<Batch>) {
    let mut follower = Follower::new(parts.log.topic.bus.clone(), parts.log.topic.name.clone(), parts.log.made, from);
    let mut finding = late.find(&parts);
    loop {
        let followed = tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            followed = follower.next() => followed,
            found = async { match &mut finding { Some(found) => found.await, None => std::future::pending().await } } => {
                for (partition, start) in found {
                    if !begin(&parts, &mut follower, &mut late, partition, start, &batches).await {
                        return;
                    }
                }
                finding = late.find(&parts);
                continue;
            }
        };
        match followed {
            Followed::Batch(batch) if late.partitions.contains(&batch.partition) => {}
            Followed::Batch(batch) => {
                if batches.send(batch).await.is_err() {
                    return;
                }
            }
            Followed::MadeAnew => return life::end(&parts, life::MADE_ANEW),
            // It may be made again, under the same epoch or another.
            Followed::Gone(topic) => tracing::warn!(%topic, "the messages log is gone, looking again"),
            // Whose partition a sender is would change: nobody sends to them in this life of the log.
            Followed::Grown(info) => {
                tracing::warn!(info.partitions, "the messages log has more partitions than it began with: they are not used")
            }
        }
    }
}

/// A late partition is read from its start on. False where this replica can't go on.
async fn begin(
    parts: &Parts,
    follower: &mut Follower,
    late: &mut Late,
    partition: Partition,
    start: Start,
    batches: &mpsc::Sender<Batch>,
) -> bool {
    let Some(&indexed) = late.indexed.get(partition as usize) else { return false };
    if start.is_cut(indexed) {
        life::end(parts, life::CUT);
        return false;
    }
    tracing::info!(topic = %parts.log.topic.name, partition, "a partition can be read again");
    start::tell_forgotten(&parts.log.topic, partition, indexed, start.bounds);
    parts.sums.begin(partition, start.bounds);
    follower.seek(partition, start.from);
    late.partitions.remove(&partition);
    batches.send(Batch { partition, records: Vec::new(), next: start.from }).await.is_ok()
}
