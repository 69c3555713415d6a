//! From where a replica reads the messages log: so far back that the deduplication windows are whole at the first record that is not
//! indexed, or not summed, yet.

use std::{collections::BTreeSet, time::Duration};

use time::OffsetDateTime;

use super::{
    log::MessagesTopic,
    position::{Position, first_of, offset_of},
};
use crate::log::bus::{Bounds, BusError, Offset, Partition};

/// Between attempts to find the start of a partition that could not be read.
const AGAIN: Duration = Duration::from_secs(1);

/// The start of one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// The first record to read. The index may have some messages of it already.
    pub(super) from: Offset,
    /// The records that are there.
    pub(super) bounds: Bounds,
}

impl Start {
    /// Whether the index knows of messages beyond the end.
    pub(super) fn is_cut(&self, indexed: Position) -> bool {
        indexed > first_of(self.bounds.next)
    }
}

/// The start of each partition; an error for one that can't be read now. What the others decide does not hang on it: a key is compared
/// within its partition, and a late reply is one that nobody waits for any more.
pub(super) async fn find(
    topic: &MessagesTopic,
    indexed: &[Position],
    window: Duration,
) -> Result<Vec<Result<Start, BusError>>, BusError> {
    let mut partitions = topic.bus.bounds_each(&topic.name).await?;
    let mut since = latest(topic, &partitions).await;
    for ((partition, checkpoint), answer) in (0..).zip(indexed).zip(&mut partitions) {
        if let Ok(bounds) = answer
            && *checkpoint < first_of(bounds.next)
        {
            match topic.read(partition, offset_of(*checkpoint).max(bounds.first), 1).await {
                Ok(records) => since = records.first().map_or(since, |first| since.min(first.log_time)),
                Err(error) => *answer = Err(error),
            }
        }
    }
    let starts = topic.bus.offsets_at_each(&topic.name, since - window).await?;
    let start = |((bounds, start), checkpoint): ((_, Result<Offset, _>), &Position)| {
        let bounds: Bounds = bounds?;
        Ok(Start { from: start?.min(offset_of(*checkpoint)), bounds })
    };
    Ok(partitions.into_iter().zip(starts).zip(indexed).map(start).collect())
}

/// The latest time that the log speaks of, and not this machine's where that is later: with a log whose clock is behind, the window would begin after its
/// end.
async fn latest(topic: &MessagesTopic, partitions: &[Result<Bounds, BusError>]) -> OffsetDateTime {
    let ends = (0..).zip(partitions).filter_map(|(partition, bounds)| {
        let bounds = bounds.as_ref().ok()?;
        (bounds.first < bounds.next).then(|| topic.read(partition, bounds.next - 1, 1))
    });
    let last = futures::future::join_all(ends).await;
    let latest = last.into_iter().flatten().flatten().map(|logged| logged.log_time).max();
    let now = OffsetDateTime::now_utc();
    latest.map_or(now, |latest| latest.min(now))
}

/// Waits until the start of at least one of these partitions is known.
pub(super) async fn find_late(
    topic: &MessagesTopic,
    indexed: &[Position],
    window: Duration,
    late: &BTreeSet<Partition>,
) -> Vec<(Partition, Start)> {
    loop {
        tokio::time::sleep(AGAIN).await;
        match find(topic, indexed, window).await {
            Ok(starts) => {
                let known = (0..).zip(starts).filter(|(partition, _)| late.contains(partition));
                let known: Vec<_> = known.filter_map(|(partition, start)| Some((partition, start.ok()?))).collect();
                if !known.is_empty() {
                    return known;
                }
            }
            Err(error) => tracing::debug!(topic = %topic.name, %error, "partitions of the messages log still can't be read"),
        }
    }
}

/// Says what the log forgot before anybody had indexed it.
pub(super) fn tell_forgotten(topic: &MessagesTopic, partition: Partition, checkpoint: Position, bounds: Bounds) {
    let records = forgotten(offset_of(checkpoint), bounds);
    if records > 0 {
        tracing::warn!(
            topic = %topic.name,
            partition,
            records,
            "the log forgot records before any hub had read them: messages that nobody has received are lost"
        );
    }
}

fn forgotten(checkpoint: Offset, bounds: Bounds) -> u64 {
    bounds.first.saturating_sub(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_forgot_unread_is_counted() {
        assert_eq!(forgotten(5, Bounds { first: 7, next: 9 }), 2);
        assert_eq!(forgotten(8, Bounds { first: 7, next: 9 }), 0);
        assert_eq!(forgotten(3, Bounds { first: 3, next: 9 }), 0);
        assert_eq!(forgotten(0, Bounds { first: 0, next: 0 }), 0);
    }
}
