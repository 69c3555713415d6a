//! What a replica has read of what agents sent, and what is in no sum of the store yet, by hour of the log's clock. A record that is read late goes into
//! the hour that it belongs to.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use time::OffsetDateTime;
use tokio::sync::Notify;

use super::{
    ports::Moved,
    position::{Position, first_of, offset_of},
    sent::Sent,
    usage_store::{UsageAdvance, UsageStore, UsageSum},
};
use crate::{
    directory::{agent::AgentId, snapshot::Snapshot},
    log::bus::{Bounds, Partition},
};

/// Records that wait in memory. At the bound the reader waits, and with it every sender: better than to forget what is to be paid for.
const MAX_WAITING: usize = 200_000;
/// From here on they are summed at once.
pub(super) const MANY: usize = MAX_WAITING / 4;
/// Records of one partition in one transaction.
const MAX_BATCH: usize = 20_000;
/// How often a partition is left to the other replicas of which this one has not read all: they may have, and sum more.
const LEFT_TO_OTHERS: u8 = 3;
const HOUR: i64 = 3600;

/// What one record adds to the sums.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Behind its record.
    end: Position,
    hour: i64,
    agent: AgentId,
    sent: Sent,
}

/// What one partition's sums lack. All entries from the checkpoint on are here, and none below it: they can't be summed twice.
#[derive(Debug)]
struct Unsummed {
    checkpoint: Position,
    next: Position,
    /// Records from the checkpoint on that were gone before they were read.
    missing: u64,
    /// How often it is left to others yet.
    left_to_others: u8,
    entries: VecDeque<Entry>,
}

impl Unsummed {
    /// Whether it is left to others this time.
    fn is_left(&mut self) -> bool {
        let is_left = self.missing > 0 && self.left_to_others > 0;
        self.left_to_others = self.left_to_others.saturating_sub(1);
        is_left
    }

    fn advance(&self, partition: Partition, snapshot: &Snapshot) -> Option<UsageAdvance> {
        if self.next <= self.checkpoint {
            return None;
        }
        let to = self.entries.get(MAX_BATCH).map_or(self.next, |entry| entry.end).min(self.next);
        let mut hours: HashMap<(i64, AgentId), Sent> = HashMap::new();
        let mut latest: Option<(i64, Position)> = None;
        for entry in self.entries.iter().take_while(|entry| entry.end <= to) {
            hours.entry((entry.hour, entry.agent)).or_default().add(entry.sent);
            if latest.is_none_or(|(hour, _)| hour < entry.hour) {
                latest = Some((entry.hour, first_of(offset_of(entry.end).saturating_sub(1)).max(self.checkpoint)));
            }
        }
        let began =
            |hour: i64| OffsetDateTime::from_unix_timestamp(hour.saturating_mul(HOUR)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let sum = |((hour, agent), sent): ((i64, AgentId), Sent)| UsageSum {
            starts_at: began(hour),
            agent,
            name: snapshot.agent(agent).map(|agent| agent.name.clone()).unwrap_or_default(),
            sent,
        };
        let hours = hours.into_iter().map(sum).collect();
        let latest = latest.map(|(hour, from)| (began(hour), from));
        Some(UsageAdvance { partition, from: self.checkpoint, to, hours, latest, missing: self.missing })
    }

    /// False where the store no longer has what is not in memory any more.
    fn moved(&mut self, to: Position, moved: Moved) -> bool {
        let checkpoint = match moved {
            Moved::Won => to,
            Moved::Lost(at) if at >= self.checkpoint => at,
            Moved::Lost(_) | Moved::Gone => return false,
        };
        self.checkpoint = checkpoint;
        self.missing = 0;
        while self.entries.pop_front_if(|entry| entry.end <= checkpoint).is_some() {}
        true
    }
}

/// What this replica has read and nobody has summed, as far as it knows.
pub(super) struct Sums {
    pub(super) store: Arc<dyn UsageStore>,
    unsummed: Mutex<Vec<Unsummed>>,
    /// There is more room.
    freed: Notify,
    /// There is a lot to sum.
    pub(super) many: Notify,
}

impl Sums {
    /// Whose sums go on at these places.
    pub(super) fn new(store: Arc<dyn UsageStore>, next: &[Position]) -> Self {
        let begin = |next: &Position| Unsummed {
            checkpoint: *next,
            next: *next,
            missing: 0,
            left_to_others: 0,
            entries: VecDeque::new(),
        };
        let unsummed = Mutex::new(next.iter().map(begin).collect());
        Self { store, unsummed, freed: Notify::new(), many: Notify::new() }
    }

    /// What is known of a partition before anything of it is read. Records that are gone are missing in the sums.
    pub(super) fn begin(&self, partition: Partition, bounds: Bounds) {
        if let Some(unsummed) = self.lock().get_mut(partition as usize) {
            unsummed.missing = bounds.first.saturating_sub(offset_of(unsummed.checkpoint));
            if unsummed.missing > 0 {
                unsummed.next = unsummed.next.max(first_of(bounds.first));
                tracing::error!(
                    partition,
                    records = unsummed.missing,
                    "the log forgot records before they were summed: the usage of their agents is too low"
                );
            }
        }
    }

    /// A message that counts was read.
    pub(super) fn logged(
        &self,
        (partition, position): (Partition, Position),
        agent: AgentId,
        bytes: u64,
        log_time: OffsetDateTime,
    ) {
        let (end, hour) = (first_of(offset_of(position).saturating_add(1)), log_time.unix_timestamp().div_euclid(HOUR));
        let mut all = self.lock();
        let Some(unsummed) = all.get_mut(partition as usize).filter(|unsummed| position >= unsummed.checkpoint) else { return };
        let sent = Sent::one(bytes);
        match unsummed.entries.back_mut().filter(|last| (last.end, last.hour, last.agent) == (end, hour, agent)) {
            Some(last) => last.sent.add(sent),
            None => unsummed.entries.push_back(Entry { end, hour, agent, sent }),
        }
    }

    /// The log no longer has what it had from the place that was read up to. Called before what comes next is read.
    pub(super) fn forgotten(&self, partition: Partition, next: Position) {
        let mut all = self.lock();
        let Some(unsummed) = all.get_mut(partition as usize).filter(|unsummed| unsummed.next < next) else { return };
        // What others have summed lacks nothing.
        let records = offset_of(next).saturating_sub(offset_of(unsummed.next.max(unsummed.checkpoint)));
        unsummed.next = next;
        if records > 0 {
            unsummed.missing = unsummed.missing.saturating_add(records);
            unsummed.left_to_others = LEFT_TO_OTHERS;
            tracing::error!(
                partition,
                records,
                "the log forgot records that this replica had not read: where no other had, they are in no sum"
            );
        }
    }

    /// Everything below was read. False where no more may be, before there is [`room`](Self::room).
    pub(super) fn read_to(&self, partition: Partition, next: Position) -> bool {
        let mut all = self.lock();
        if let Some(unsummed) = all.get_mut(partition as usize) {
            unsummed.next = unsummed.next.max(next);
        }
        let waiting = waiting(&all);
        if waiting >= MANY {
            self.many.notify_one();
        }
        waiting < MAX_WAITING
    }

    /// Waits while too much is not summed.
    pub(super) async fn room(&self) {
        loop {
            let mut freed = pin!(self.freed.notified());
            // Before the look: what is freed in between is not missed.
            freed.as_mut().enable();
            if self.waiting() < MAX_WAITING {
                return;
            }
            freed.await;
        }
    }

    /// What the sums lack.
    pub(super) fn lack(&self, snapshot: &Snapshot) -> Vec<UsageAdvance> {
        let mut all = self.lock();
        let mine =
            (0..).zip(all.iter_mut()).filter_map(|(partition, unsummed)| (!unsummed.is_left()).then_some((partition, unsummed)));
        mine.filter_map(|(partition, unsummed)| unsummed.advance(partition, snapshot)).collect()
    }

    /// What became of that. False where the store is not what it was.
    pub(super) fn moved(&self, advances: &[UsageAdvance], moved: Vec<Moved>) -> bool {
        let mut all = self.lock();
        let is_sound = advances.iter().zip(moved).all(|(advance, moved)| {
            all.get_mut(advance.partition as usize).is_none_or(|unsummed| unsummed.moved(advance.to, moved))
        });
        drop(all);
        self.freed.notify_waiters();
        is_sound
    }

    /// Records that are in no sum, as far as this replica knows.
    pub(super) fn waiting(&self) -> usize {
        waiting(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Unsummed>> {
        self.unsummed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn waiting(all: &[Unsummed]) -> usize {
    all.iter().map(|unsummed| unsummed.entries.len()).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use uuid::Uuid;

    use super::*;
    use crate::{
        fault::Fault,
        log::bus::Epoch,
        messages::{
            position::nth_of,
            usage_store::{Begun, Rebuild, SumFilter, Unexported, UsageGap},
        },
    };

    struct NoStore;

    #[async_trait]
    impl UsageStore for NoStore {
        async fn begin(&self, _: Epoch, indexed: &[Position], _: OffsetDateTime) -> Result<Begun, Fault> {
            Ok(Begun { next: indexed.to_vec(), months: Vec::new(), gaps: 0 })
        }

        async fn add(&self, _: Epoch, advances: &[UsageAdvance]) -> Result<(Vec<Moved>, u64), Fault> {
            Ok((vec![Moved::Won; advances.len()], 0))
        }

        async fn sums(&self, _: &SumFilter, _: usize) -> Result<Vec<UsageSum>, Fault> {
            Ok(Vec::new())
        }

        async fn gaps_lately(&self) -> Result<u64, Fault> {
            Ok(0)
        }

        async fn gaps(&self, _: Option<OffsetDateTime>, _: Option<OffsetDateTime>, _: usize) -> Result<Vec<UsageGap>, Fault> {
            Ok(Vec::new())
        }

        async fn forget_hours(&self, _: OffsetDateTime, _: usize) -> Result<u64, Fault> {
            Ok(0)
        }

        async fn unexported(&self, _: Epoch, _: Epoch, _: Duration, _: usize) -> Result<Unexported, Fault> {
            Ok(Unexported::default())
        }

        async fn exported(&self, _: Epoch, _: &[UsageSum]) -> Result<(), Fault> {
            Ok(())
        }

        async fn rebuild(&self, _: Epoch, _: &[Position]) -> Result<Option<Box<dyn Rebuild>>, Fault> {
            Ok(None)
        }
    }

    const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

    fn sums() -> Sums {
        Sums::new(Arc::new(NoStore), &[0, first_of(10)])
    }

    fn advance(sums: &Sums, partition: Partition) -> Option<UsageAdvance> {
        sums.lock()[partition as usize].advance(partition, &Snapshot::default())
    }

    #[test]
    fn what_was_sent_goes_into_the_hour_it_belongs_to() {
        let (sums, a) = (sums(), AgentId(Uuid::from_u128(1)));
        let late = NOON - time::Duration::SECOND;
        sums.logged((0, nth_of(0, 0)), a, 5, NOON);
        sums.logged((0, nth_of(0, 1)), a, 6, NOON);
        sums.logged((0, nth_of(1, 0)), a, 7, late);
        assert!(sums.read_to(0, first_of(3)));
        let mut found = advance(&sums, 0).unwrap();
        found.hours.sort_by_key(|sum| sum.starts_at);
        let hours: Vec<_> = found.hours.iter().map(|sum| (sum.starts_at, sum.sent.messages, sum.sent.bytes)).collect();
        assert_eq!(hours, [(NOON - time::Duration::HOUR, 1, 7), (NOON, 2, 11)]);
        assert_eq!((found.from, found.to, found.missing), (0, first_of(3), 0));
        assert_eq!(found.latest, Some((NOON, 0)));
        assert_eq!(advance(&sums, 1), None);
    }

    #[test]
    fn it_is_known_where_the_last_hour_begins() {
        let (sums, a) = (sums(), AgentId(Uuid::from_u128(1)));
        for (offset, hour) in [(10, 0), (12, 0), (15, 2), (16, 2)] {
            sums.logged((1, nth_of(offset, 3)), a, 5, NOON + time::Duration::hours(hour));
        }
        assert!(sums.read_to(1, first_of(20)));
        assert_eq!(advance(&sums, 1).unwrap().latest, Some((NOON + 2 * time::Duration::HOUR, first_of(15))));
        assert!(sums.lock()[1].moved(first_of(20), Moved::Won));
        assert!(sums.read_to(1, first_of(21)));
        assert_eq!(advance(&sums, 1).unwrap().latest, None, "there is nothing that counts");
    }

    #[test]
    fn what_another_replica_has_summed_is_dropped() {
        let (sums, a) = (sums(), AgentId(Uuid::from_u128(1)));
        for offset in 8..14 {
            sums.logged((1, nth_of(offset, 0)), a, 1, NOON);
            assert!(sums.read_to(1, first_of(offset + 1)));
        }
        assert_eq!(advance(&sums, 1).unwrap().hours[0].sent.messages, 4, "two were summed before");
        let moved = |moved| sums.lock()[1].moved(first_of(14), moved);
        assert!(moved(Moved::Lost(first_of(12))));
        assert_eq!(advance(&sums, 1).unwrap().hours[0].sent.messages, 2);
        // It has read further than this one.
        assert!(moved(Moved::Lost(first_of(16))));
        sums.logged((1, nth_of(15, 0)), a, 1, NOON);
        assert!(sums.read_to(1, first_of(16)));
        assert_eq!(advance(&sums, 1), None);
        assert!(!moved(Moved::Lost(first_of(11))), "the store went back");
        assert!(!moved(Moved::Gone));
    }

    #[test]
    fn what_the_log_forgot_is_missing_once() {
        let sums = sums();
        sums.begin(1, Bounds { first: 25, next: 30 });
        let found = advance(&sums, 1).unwrap();
        assert_eq!((found.from, found.to, found.missing), (first_of(10), first_of(25), 15));
        assert!(sums.lock()[1].moved(found.to, Moved::Won));
        assert!(sums.read_to(1, first_of(26)));
        assert_eq!(advance(&sums, 1).unwrap().missing, 0);
    }

    #[test]
    fn what_the_log_forgets_while_it_is_read_is_missing() {
        let (sums, a) = (sums(), AgentId(Uuid::from_u128(1)));
        sums.logged((0, nth_of(0, 0)), a, 1, NOON);
        assert!(sums.read_to(0, first_of(1)));
        sums.forgotten(0, first_of(5));
        sums.logged((0, nth_of(5, 0)), a, 1, NOON);
        assert!(sums.read_to(0, first_of(6)));
        sums.forgotten(0, first_of(6));
        let found = advance(&sums, 0).unwrap();
        assert_eq!((found.to, found.missing, found.hours[0].sent.messages), (first_of(6), 4, 2));
        // Others may have read it, and come first.
        for _ in 0..LEFT_TO_OTHERS {
            assert_eq!(sums.lack(&Snapshot::default()), []);
        }
        assert_eq!(sums.lack(&Snapshot::default()), std::slice::from_ref(&found));
        assert!(sums.lock()[0].moved(found.to, Moved::Lost(first_of(8))));
        assert_eq!(advance(&sums, 0), None);
        sums.forgotten(0, first_of(10));
        assert_eq!(advance(&sums, 0).unwrap().missing, 2, "they have summed what lies before");
        // What was summed before it is read here lacks nothing.
        sums.forgotten(1, first_of(9));
        assert_eq!(advance(&sums, 1), None);
    }

    #[tokio::test]
    async fn the_reader_waits_where_too_much_is_not_summed() {
        let (sums, a) = (Arc::new(sums()), AgentId(Uuid::from_u128(1)));
        for offset in 0..MAX_WAITING as u64 {
            sums.logged((0, nth_of(offset, 0)), a, 1, NOON);
        }
        assert!(!sums.read_to(0, first_of(MAX_WAITING as u64)));
        let reading = tokio::spawn({
            let sums = sums.clone();
            async move { sums.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!reading.is_finished());
        let found = advance(&sums, 0).unwrap();
        assert_eq!(found.hours[0].sent.messages, MAX_BATCH as u64 + 1);
        assert!(sums.lock()[0].moved(found.to, Moved::Won));
        sums.freed.notify_waiters();
        reading.await.unwrap();
    }
}
