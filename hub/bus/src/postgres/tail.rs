//! Following every partition of a topic.

use std::collections::VecDeque;

use acb_hub_core::log::bus::{Batch, BusError, Epoch, Offset, Partition, Tail, TopicName};
use futures::stream;
use tokio::sync::watch;

use super::{
    Log, fetch,
    wake::{Follow, Heads},
};

/// Records of one partition in one fetch.
const FETCH_RECORDS: usize = 256;

struct Follower {
    log: Log,
    topic: TopicName,
    epoch: Epoch,
    /// The next offset of each partition that has not been handed over.
    positions: Vec<Offset>,
    ready: VecDeque<Batch>,
    heads: watch::Receiver<Heads>,
    _follow: Follow,
}

pub(super) async fn follow(log: Log, topic: TopicName, from: &[Offset]) -> Result<Tail, BusError> {
    let follow = log.wake.follow(&topic);
    let heads = log.wake.heads();
    let state = fetch::state(&log, &topic).await?;
    let mut positions = Vec::with_capacity(state.bounds.len());
    let mut ready = VecDeque::new();
    for (index, bounds) in state.bounds.iter().enumerate() {
        // A partition that was added since starts at its beginning.
        let from = from.get(index).copied().unwrap_or_default();
        if from > bounds.next {
            return Err(BusError::Unavailable(format!(
                "{topic} ends at offset {} of partition {index}, before {from}: the log has lost records, rebuild what was derived from it",
                bounds.next
            )));
        }
        if from < bounds.first {
            ready.push_back(Batch { partition: number(index), records: Vec::new(), next: bounds.first });
        }
        positions.push(from.max(bounds.first));
    }
    log.wake.seen(&topic, state.epoch, state.bounds.iter().map(|bounds| bounds.next).collect());
    let follower = Follower { log, topic, epoch: state.epoch, positions, ready, heads, _follow: follow };
    Ok(Box::pin(stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(batch) => Some((Ok(batch), Some(follower))),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

impl Follower {
    async fn next(&mut self) -> Result<Batch, BusError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            let behind = self.behind()?;
            if behind.is_empty() {
                tokio::select! {
                    // Never an error: this holds the sender.
                    _ = self.heads.changed() => continue,
                    () = self.log.stop.cancelled() => return Err(BusError::Unavailable("the bus is closed".into())),
                }
            }
            for record in fetch::records(&self.log, &self.topic, &behind, FETCH_RECORDS).await? {
                let (partition, next) = (record.partition, record.offset + 1);
                if let Some(position) = self.positions.get_mut(partition as usize) {
                    *position = next;
                }
                match self.ready.back_mut() {
                    Some(batch) if batch.partition == partition => {
                        batch.records.push(record);
                        batch.next = next;
                    }
                    _ => self.ready.push_back(Batch { partition, records: vec![record], next }),
                }
            }
            self.skip_pruned(&behind).await?;
        }
    }

    /// The partitions that hold more than was handed over.
    fn behind(&mut self) -> Result<Vec<(Partition, Offset)>, BusError> {
        let heads = self.heads.borrow_and_update();
        let Some(head) = heads.get(&self.topic) else { return Err(BusError::NoSuchTopic(self.topic.clone())) };
        if head.epoch != self.epoch {
            return Err(BusError::Unavailable(format!("{} was made anew: its offsets begin again", self.topic)));
        }
        if head.next.len() > self.positions.len() {
            self.positions.resize(head.next.len(), 0);
        }
        let ahead = self.positions.iter().zip(&head.next).enumerate();
        Ok(ahead
            .filter(|(_, (position, next))| position < next)
            .map(|(index, (position, _))| (number(index), *position))
            .collect())
    }

    /// A partition that was behind and gave nothing has been pruned past this reader: its position moves to what is left.
    async fn skip_pruned(&mut self, behind: &[(Partition, Offset)]) -> Result<(), BusError> {
        if behind.iter().all(|&(partition, from)| self.positions.get(partition as usize).is_none_or(|position| *position > from))
        {
            return Ok(());
        }
        let state = fetch::state(&self.log, &self.topic).await?;
        let before = self.ready.len();
        for (index, (position, bounds)) in self.positions.iter_mut().zip(&state.bounds).enumerate() {
            if *position < bounds.first {
                *position = bounds.first;
                self.ready.push_back(Batch { partition: number(index), records: Vec::new(), next: bounds.first });
            }
        }
        if self.ready.len() == before && !self.ready.iter().any(|batch| !batch.records.is_empty()) {
            return Err(BusError::Unavailable(format!("{} lacks records that it said it had: was it restored?", self.topic)));
        }
        Ok(())
    }
}

fn number(index: usize) -> Partition {
    Partition::try_from(index).unwrap_or(Partition::MAX)
}
