//! One agent's subscription to the changes of one context type.

use std::{collections::VecDeque, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{
    audience::{Viewer, may_follow},
    change::{Change, Event},
    tail::{ContextTail, Found, Place, Placed, Versions, epoch_changed},
};
use crate::{
    directory::{agent::AgentId, snapshot::Directory},
    fault::{Code, Fault},
    kit::clock::now,
    log::bus::{Bounds, Bus, Epoch, Offset, Partition, TopicInfo, TopicName},
};

/// Events taken from the window, and records from the log, at a time.
const WINDOW_BATCH: usize = 64;
const LOG_BATCH: usize = 8;

/// Contexts that a subscription remembers the version of.
const REMEMBERED: usize = 1024;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Of this life of the topic.
    pub epoch: Epoch,
    /// Which partition.
    pub partition: Partition,
    /// Which record.
    pub offset: Offset,
}

/// Where a subscription begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With the next change.
    Now,
    /// With the oldest that the log holds.
    Start,
    /// After the highest of these in each partition. A partition without one begins with the oldest that the log holds.
    After(Vec<Position>),
}

/// What a subscriber gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The first: from here on nothing is missed.
    Subscribed {
        /// Where it begins, for [`From::After`]: the last record before it in each partition that ever had one.
        after: Vec<Position>,
    },
    /// A change of a context that the agent may see.
    Change {
        /// Where it is.
        position: Position,
        /// What happened.
        event: Box<Event>,
    },
}

/// Who subscribes to what, and whether it still may.
pub(crate) struct Subscriber {
    pub(crate) directory: Directory,
    pub(crate) agent: AgentId,
    pub(crate) kind: String,
}

impl Subscriber {
    /// What it sees, as the directory knows it now.
    fn viewer(&self) -> Result<Viewer, Fault> {
        let snapshot = self.directory.snapshot();
        let agent = snapshot.acting(self.agent)?;
        may_follow(agent, &self.kind, snapshot.context_types.contains_key(&self.kind))?;
        Ok(Viewer::of(agent))
    }
}

/// Hands out changes as they are asked for: what is not asked for stays in the log.
pub struct Subscription {
    bus: Arc<dyn Bus>,
    tail: Arc<ContextTail>,
    subscriber: Subscriber,
    cancellation: CancellationToken,
    greeting: Option<Notice>,
    place: Place,
    pending: VecDeque<Arc<Placed>>,
    versions: Versions,
}

impl Subscription {
    pub(crate) async fn open(
        bus: Arc<dyn Bus>,
        tail: Arc<ContextTail>,
        subscriber: Subscriber,
        from: &From,
        cancellation: CancellationToken,
    ) -> Result<Self, Fault> {
        let info = bus.topic(&tail.topic).await.map_err(Fault::from)?;
        let bounds = bus.bounds(&tail.topic).await.map_err(Fault::from)?;
        if info.epoch != tail.epoch() {
            return Err(epoch_changed(&tail.topic));
        }
        let next = begin(&tail.topic, info, &bounds, from)?;
        let after = (0..).zip(&next).filter_map(|(partition, next)| {
            let offset = next.checked_sub(1)?;
            Some(Position { epoch: info.epoch, partition, offset })
        });
        let greeting = Some(Notice::Subscribed { after: after.collect() });
        Ok(Self {
            bus,
            tail,
            subscriber,
            cancellation,
            greeting,
            place: Place::at(next),
            pending: VecDeque::new(),
            versions: Versions::new(REMEMBERED),
        })
    }

    /// The next change, when there is one. After a fault nothing more comes.
    pub async fn next(&mut self) -> Result<Notice, Fault> {
        if let Some(greeting) = self.greeting.take() {
            return Ok(greeting);
        }
        let mut changes = self.tail.changes();
        let mut directory = self.subscriber.directory.changes();
        self.subscriber.viewer()?;
        loop {
            if let Some(notice) = self.pop()? {
                return Ok(notice);
            }
            changes.mark_unchanged();
            match self.tail.find(&mut self.place, WINDOW_BATCH) {
                Found::Events(events) => self.pending.extend(events),
                Found::Behind(start) => self.catch_up(&start).await?,
                Found::Ended(fault) => return Err(fault),
                Found::Nothing => {
                    tokio::select! {
                        () = self.cancellation.cancelled() => {
                            return Err(Fault::unavailable("HUB_STOPPING", "this replica stops: subscribe again after the last position"));
                        }
                        _ = changes.changed() => {}
                        // A subscription that has nothing to say ends with the right to it, too.
                        Ok(()) = directory.changed() => { self.subscriber.viewer()?; }
                    }
                }
            }
        }
    }

    /// The next pending change that the agent may see now.
    fn pop(&mut self) -> Result<Option<Notice>, Fault> {
        if self.pending.is_empty() {
            return Ok(None);
        }
        let viewer = self.subscriber.viewer()?;
        let epoch = self.tail.epoch();
        let time = now();
        while let Some(placed) = self.pending.pop_front() {
            let Event { change, context } = &placed.event;
            let gone = *change != Change::Deleted && context.expired(time);
            if self.versions.advance(context.id, context.version) && !gone && context.seen_by(&viewer) {
                let position = Position { epoch, partition: placed.partition, offset: placed.offset };
                return Ok(Some(Notice::Change { position, event: Box::new(placed.event.clone()) }));
            }
        }
        Ok(None)
    }

    /// Reads a little of the log in each partition that is behind the window.
    async fn catch_up(&mut self, start: &[Offset]) -> Result<(), Fault> {
        let topic = self.tail.topic.clone();
        for (partition, start) in (0..).zip(start) {
            let next = self.place.next.get(partition as usize).copied().unwrap_or(0);
            if next >= *start {
                continue;
            }
            let records = self.bus.read(&topic, partition, next, LOG_BATCH).await.map_err(Fault::from)?;
            if records.first().is_none_or(|first| first.offset != next) {
                // A hole: compaction makes them, and so does retention, which would be a loss.
                let bounds = self.bus.bounds_each(&topic).await?;
                let bounds = bounds.into_iter().nth(partition as usize).transpose()?;
                if bounds.is_some_and(|bounds| bounds.first > next) {
                    return Err(expired(&topic, partition, next));
                }
            }
            self.pending.extend(records.iter().filter_map(Placed::decode).map(Arc::new));
            self.place.passed(partition, records.last().map_or(*start, |last| last.offset + 1));
        }
        Ok(())
    }
}

/// The first offset of each partition.
fn begin(topic: &TopicName, info: TopicInfo, bounds: &[Bounds], from: &From) -> Result<Vec<Offset>, Fault> {
    let after = match from {
        From::Now => return Ok(bounds.iter().map(|bounds| bounds.next).collect()),
        From::Start => return Ok(bounds.iter().map(|bounds| bounds.first).collect()),
        From::After(after) => after,
    };
    let mut next: Vec<Option<Offset>> = vec![None; bounds.len()];
    for position in after {
        let offset = position.offset.saturating_add(1);
        if position.epoch != info.epoch {
            return Err(epoch_changed(topic));
        }
        match next.get_mut(position.partition as usize) {
            Some(slot) => *slot = Some(slot.map_or(offset, |other| other.max(offset))),
            None => {
                return Err(Fault::invalid("POSITION_INVALID", format!("{topic} has no partition {}", position.partition)));
            }
        }
    }
    (0..)
        .zip(next.into_iter().zip(bounds))
        .map(|(partition, (next, bounds))| match next {
            None => Ok(bounds.first),
            Some(next) if next < bounds.first => Err(expired(topic, partition, next)),
            Some(next) if next > bounds.next => Err(Fault::new(
                Code::OutOfRange,
                "POSITION_INVALID",
                format!("partition {partition} of {topic} ends before offset {next}"),
            )),
            Some(next) => Ok(next),
        })
        .collect()
}

fn expired(topic: &TopicName, partition: Partition, offset: Offset) -> Fault {
    Fault::new(
        Code::OutOfRange,
        "POSITION_EXPIRED",
        format!("{topic} no longer holds offset {offset} of partition {partition}: list the contexts, then subscribe from now"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_begins_where_it_says() {
        let topic = TopicName::context("acme", "notes");
        let info = TopicInfo { epoch: 4, partitions: 3 };
        let bounds = [Bounds { first: 2, next: 9 }, Bounds { first: 0, next: 0 }, Bounds { first: 5, next: 6 }];
        let at = |epoch, partition, offset| Position { epoch, partition, offset };
        let begin = |from| begin(&topic, info, &bounds, &from).map_err(|fault| fault.reason);
        let after = |after| begin(From::After(after));
        assert_eq!(begin(From::Now), Ok(vec![9, 0, 6]));
        assert_eq!(begin(From::Start), Ok(vec![2, 0, 5]));
        assert_eq!(after(vec![at(4, 0, 6), at(4, 0, 7)]), Ok(vec![8, 0, 5]));
        assert_eq!(after(vec![at(4, 0, 1)]), Ok(vec![2, 0, 5]), "nothing was missed yet");
        assert_eq!(after(vec![at(4, 0, 0)]), Err("POSITION_EXPIRED"));
        assert_eq!(after(vec![at(4, 0, 9)]), Err("POSITION_INVALID"));
        assert_eq!(after(vec![at(4, 0, u64::MAX)]), Err("POSITION_INVALID"));
        assert_eq!(after(vec![at(4, 3, 0)]), Err("POSITION_INVALID"));
        assert_eq!(after(vec![at(3, 0, 6)]), Err("LOG_EPOCH_CHANGED"));
    }
}
