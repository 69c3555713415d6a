//! Which records of one partition are messages, and which repeat one.
//!
//! A record is a repetition where one with the same key was logged within the window before it, whether that one was itself a repetition
//! or not. So the verdict hangs on no more than one window of the log, and a replica that starts and reads that much comes to
//! the same verdicts as one that has run for years. One partition holds all records of a sender, so each decides alone; the bound on keys is
//! for each partition too, since the partitions have no order among each other that all replicas would see.
//!
//! Which message a repetition is of, and whether it conflicts, says the first record with the key, which a replica that started since may not have
//! read. So the hub that takes a repetition writes into it what it knows of the message ([`Original`]). Where two hubs take the same message at the same
//! moment neither knows: a replica whose window begins right between the two takes the second for the message.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{directory::agent::AgentId, log::bus::Partition};

/// A key, hashed: (sender, method, idempotency key).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DedupKey([u8; 16]);

impl DedupKey {
    /// The key of a request.
    #[must_use]
    pub fn new(sender: AgentId, method: &str, idempotency_key: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(sender.0.as_bytes());
        hash.update([u8::try_from(method.len()).unwrap_or(u8::MAX)]);
        hash.update(method.as_bytes());
        hash.update(idempotency_key.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash.finalize()[..16]);
        Self(key)
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A message.
    First,
    /// A repetition of the message with this id.
    Repeated(Uuid),
    /// The key of the message with this id, on another request.
    Conflict(Uuid),
}

impl Verdict {
    /// Whether it is a repetition of a message, and no other under its key.
    #[must_use]
    pub fn is_repeated(self) -> bool {
        matches!(self, Self::Repeated(_))
    }
}

/// The message that a record repeats, as far as the hub knew that took the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original {
    /// The message.
    pub id: Uuid,
    /// The beginning of its digest.
    pub digest: [u8; 16],
    /// When the log took the last record with its key.
    pub seen_at: OffsetDateTime,
}

#[derive(Debug)]
struct Known {
    last: u64,
    at: OffsetDateTime,
    id: Uuid,
    digest: [u8; 16],
}

impl Known {
    fn judge(&self, digest: [u8; 16]) -> Verdict {
        if self.digest == digest { Verdict::Repeated(self.id) } else { Verdict::Conflict(self.id) }
    }
}

/// The keys that were seen lately, in the order of the log.
#[derive(Debug)]
pub struct DedupWindow {
    window: Duration,
    limit: usize,
    sequence: u64,
    known: HashMap<DedupKey, Known>,
    order: VecDeque<(u64, OffsetDateTime, DedupKey)>,
}

impl DedupWindow {
    /// A window of this much log time, and of at most this many keys.
    #[must_use]
    pub fn new(window: Duration, limit: usize) -> Self {
        Self { window, limit: limit.max(1), sequence: 0, known: HashMap::new(), order: VecDeque::new() }
    }

    /// Judges the next record of the partition. `original`: what it says that it repeats, where the records before it were not all read.
    pub fn see(
        &mut self,
        key: DedupKey,
        digest: &[u8; 32],
        id: Uuid,
        log_time: OffsetDateTime,
        original: Option<Original>,
    ) -> Verdict {
        self.forget(log_time);
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        self.sequence += 1;
        self.order.push_back((self.sequence, log_time, key));
        let verdict = match self.known.get_mut(&key) {
            Some(known) => {
                known.last = self.sequence;
                known.at = log_time;
                known.judge(short)
            }
            None => {
                // One that had left the window when this one was logged is no repetition.
                let original = original.filter(|original| log_time - original.seen_at <= self.window);
                let (of, digest) = original.map_or((id, short), |original| (original.id, original.digest));
                let known = Known { last: self.sequence, at: log_time, id: of, digest };
                let verdict = if original.is_some() { known.judge(short) } else { Verdict::First };
                self.known.insert(key, known);
                verdict
            }
        };
        while self.known.len() > self.limit {
            self.forget_oldest();
        }
        // Superseded places of keys that were repeated often: bounded by twice the keys.
        if self.order.len() > 2 * self.known.len() + 16 {
            let known = &self.known;
            self.order.retain(|(sequence, _, key)| known.get(key).is_some_and(|known| known.last == *sequence));
        }
        verdict
    }

    /// The message with this key, where it is not forgotten yet.
    #[must_use]
    pub fn original(&self, key: &DedupKey) -> Option<Original> {
        let known = self.known.get(key)?;
        Some(Original { id: known.id, digest: known.digest, seen_at: known.at })
    }

    /// Whether a message with this key was seen, and is not forgotten yet.
    #[must_use]
    pub fn knows(&self, key: &DedupKey) -> bool {
        self.known.contains_key(key)
    }

    /// What a record would be that the log took now, where that is sure: what was seen lately is in the window of every replica. `None`: it is for the log
    /// to say. That is so from half a window on, too, so that who repeats a message for hours is known all that time.
    #[must_use]
    pub fn recall(&self, key: &DedupKey, digest: &[u8; 32], now: OffsetDateTime) -> Option<Verdict> {
        let known = self.known.get(key).filter(|known| now - known.at < self.window / 2)?;
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        Some(known.judge(short))
    }

    /// How many keys are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn forget(&mut self, now: OffsetDateTime) {
        while self.order.front().is_some_and(|(_, time, _)| *time < now - self.window) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((sequence, _, key)) = self.order.pop_front()
            && self.known.get(&key).is_some_and(|known| known.last == sequence)
        {
            self.known.remove(&key);
        }
    }
}

/// The windows of all partitions. The reader of the log judges by them; a sender asks whether a key is known.
#[derive(Debug)]
pub struct DedupWindows(Vec<Mutex<DedupWindow>>);

impl DedupWindows {
    /// Windows of so many partitions, each of this much log time, and of at most this many keys in all.
    #[must_use]
    pub fn new(partitions: usize, window: Duration, limit: usize) -> Self {
        // The bound is per partition, since only the records of one partition have one order.
        let keys = limit / partitions.max(1);
        Self((0..partitions).map(|_| Mutex::new(DedupWindow::new(window, keys))).collect())
    }

    /// The window of a partition, where there is one.
    #[must_use]
    pub fn of(&self, partition: Partition) -> Option<MutexGuard<'_, DedupWindow>> {
        self.0.get(partition as usize).map(|window| window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds)
    }

    fn key(name: &str) -> DedupKey {
        DedupKey::new(AgentId(Uuid::from_u128(1)), "send", name)
    }

    #[test]
    fn the_first_is_the_message_within_the_window() {
        let mut window = DedupWindow::new(Duration::seconds(600), 10);
        let id = Uuid::from_u128;
        assert_eq!(window.see(key("a"), &[1; 32], id(1), at(0), None), Verdict::First);
        assert_eq!(window.see(key("a"), &[1; 32], id(2), at(600), None), Verdict::Repeated(id(1)));
        assert_eq!(window.see(key("a"), &[2; 32], id(3), at(601), None), Verdict::Conflict(id(1)));
        assert_eq!(window.see(key("a"), &[1; 32], id(4), at(1202), None), Verdict::First);
    }

    #[test]
    fn a_window_that_begins_with_a_repetition_knows_the_message() {
        let (id, seconds) = (Uuid::from_u128, Duration::seconds);
        let mut old = DedupWindow::new(seconds(600), 10);
        assert_eq!(old.see(key("a"), &[1; 32], id(1), at(0), None), Verdict::First);
        // As the hub writes it that takes the next one; a replica reads from there on.
        let (of_other, of_same) = (old.original(&key("a")), old.original(&key("a")));
        let mut new = DedupWindow::new(seconds(600), 10);
        assert_eq!(old.see(key("a"), &[2; 32], id(2), at(500), of_other), Verdict::Conflict(id(1)));
        assert_eq!(new.see(key("a"), &[2; 32], id(2), at(500), of_other), Verdict::Conflict(id(1)));
        for (other, time) in [(3, 1000), (4, 1500)] {
            let verdicts = [&mut old, &mut new].map(|window| window.see(key("a"), &[2; 32], id(other), at(time), None));
            assert_eq!(verdicts, [Verdict::Conflict(id(1)); 2], "what was never delivered repeats nothing");
        }
        // It was on its way for so long that the message left the window.
        let mut late = DedupWindow::new(seconds(600), 10);
        assert_eq!(late.see(key("a"), &[1; 32], id(5), at(601), of_same), Verdict::First);
        assert_eq!(late.see(key("a"), &[1; 32], id(6), at(602), None), Verdict::Repeated(id(5)));
    }

    #[test]
    fn what_was_seen_lately_is_recalled() {
        let mut window = DedupWindow::new(Duration::seconds(600), 10);
        let id = Uuid::from_u128(1);
        assert_eq!(window.recall(&key("a"), &[1; 32], at(0)), None);
        window.see(key("a"), &[1; 32], id, at(0), None);
        assert_eq!(window.recall(&key("a"), &[1; 32], at(299)), Some(Verdict::Repeated(id)));
        assert_eq!(window.recall(&key("a"), &[2; 32], at(299)), Some(Verdict::Conflict(id)));
        // From then on the log is asked, which makes it known for longer.
        assert_eq!(window.recall(&key("a"), &[1; 32], at(300)), None);
        assert_eq!(window.see(key("a"), &[1; 32], Uuid::from_u128(2), at(300), None), Verdict::Repeated(id));
        assert_eq!(window.recall(&key("a"), &[1; 32], at(599)), Some(Verdict::Repeated(id)));
    }

    #[test]
    fn keys_of_other_senders_and_methods_are_others() {
        let other = DedupKey::new(AgentId(Uuid::from_u128(2)), "send", "a");
        assert_ne!(key("a"), other);
        assert_ne!(key("a"), DedupKey::new(AgentId(Uuid::from_u128(1)), "request", "a"));
    }

    #[test]
    fn the_oldest_key_goes_first() {
        let mut window = DedupWindow::new(Duration::seconds(600), 2);
        for (name, id) in [("a", 1), ("b", 2), ("a", 3), ("c", 4)] {
            window.see(key(name), &[0; 32], Uuid::from_u128(id), at(0), None);
        }
        assert_eq!(window.len(), 2);
        assert_eq!(window.see(key("a"), &[0; 32], Uuid::from_u128(5), at(0), None), Verdict::Repeated(Uuid::from_u128(1)));
        assert_eq!(window.see(key("b"), &[0; 32], Uuid::from_u128(6), at(0), None), Verdict::First);
    }

    proptest! {
        #[test]
        fn a_rebuilt_window_judges_as_the_old_one(
            log in proptest::collection::vec((0u8..6, 0i64..40), 1..150),
            restart in 0usize..150,
        ) {
            let mut time = 0;
            let log: Vec<(DedupKey, OffsetDateTime, Uuid)> = log
                .into_iter()
                .enumerate()
                .map(|(index, (name, pause))| {
                    time += pause;
                    (key(&name.to_string()), at(time), Uuid::from_u128(index as u128))
                })
                .collect();
            let restart = restart.min(log.len() - 1);
            let mut old = DedupWindow::new(Duration::seconds(100), 4);
            let verdicts: Vec<bool> =
                log.iter().map(|(key, time, id)| old.see(*key, &[0; 32], *id, *time, None) == Verdict::First).collect();
            let mut new = DedupWindow::new(Duration::seconds(100), 4);
            for (index, (key, time, id)) in log.iter().enumerate() {
                if *time >= log[restart].1 - Duration::seconds(100) {
                    let first = new.see(*key, &[0; 32], *id, *time, None) == Verdict::First;
                    if index >= restart {
                        prop_assert_eq!(first, verdicts[index]);
                    }
                }
            }
        }
    }
}
