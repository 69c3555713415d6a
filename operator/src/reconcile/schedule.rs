//! When each tenancy is reconciled next: at once after a change, after a growing and jittered wait after a failure, and every so often
//! for drift. Pure: the time is given.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How long a tenancy is left alone that did not fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// One that has converged: drift is looked for this often.
    pub(crate) resync: Duration,
    /// One that waits for something that is expected to tell of itself.
    pub(crate) waiting: Duration,
}

const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MOST: Duration = Duration::from_secs(60);

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Converged, or nothing to do until something changes.
    Settled,
    /// Waits for something that will be looked at again soon.
    Waiting,
    /// Failed; a retry may help.
    Failed,
}

#[derive(Clone, Debug)]
struct Entry {
    due: Instant,
    failures: u32,
    running: bool,
    /// Changed while it ran.
    again: bool,
    /// Gone while it ran.
    removed: bool,
}

/// What is due when.
#[derive(Debug)]
pub(crate) struct Schedule<K> {
    entries: BTreeMap<K, Entry>,
    running: usize,
    limit: usize,
    waits: Waits,
}

impl<K: Ord + Clone> Schedule<K> {
    /// At most `limit` run at a time.
    pub(crate) fn new(limit: usize, waits: Waits) -> Self {
        Self { entries: BTreeMap::new(), running: 0, limit, waits }
    }

    /// Due now, and its failures are forgotten: something changed.
    pub(crate) fn touch(&mut self, key: K, now: Instant) {
        let fresh = Entry { due: now, failures: 0, running: false, again: false, removed: false };
        let entry = self.entries.entry(key).or_insert(fresh);
        (entry.due, entry.failures, entry.again, entry.removed) = (now, 0, entry.running, false);
    }

    /// What is not in `keys` is never due again.
    pub(crate) fn keep_only(&mut self, keys: &BTreeSet<K>) {
        self.entries.retain(|key, entry| {
            entry.removed = !keys.contains(key);
            !entry.removed || entry.running
        });
    }

    /// Starts what is due, as far as the limit goes.
    pub(crate) fn start_due(&mut self, now: Instant) -> Vec<K> {
        let mut started = Vec::new();
        for (key, entry) in &mut self.entries {
            if self.running >= self.limit {
                break;
            }
            if !entry.running && entry.due <= now {
                (entry.running, entry.again) = (true, false);
                self.running += 1;
                started.push(key.clone());
            }
        }
        started
    }

    /// When something becomes due, where there is room for it.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let waiting = self.entries.values().filter(|entry| !entry.running).map(|entry| entry.due);
        if self.running < self.limit { waiting.min() } else { None }
    }

    /// How many are due, and not begun.
    pub(crate) fn due(&self, now: Instant) -> usize {
        self.entries.values().filter(|entry| !entry.running && entry.due <= now).count()
    }

    /// Due at that time, unless it is earlier.
    pub(crate) fn no_later_than(&mut self, key: &K, at: Instant) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.due = entry.due.min(at);
        }
    }

    /// It ran. `jitter` is in 0..1.
    pub(crate) fn finish(&mut self, key: &K, turn: Turn, now: Instant, jitter: f64) {
        self.running = self.running.saturating_sub(1);
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.removed {
            self.entries.remove(key);
            return;
        }
        entry.running = false;
        let wait = match turn {
            Turn::Settled => {
                entry.failures = 0;
                self.waits.resync
            }
            Turn::Waiting => self.waits.waiting,
            Turn::Failed => {
                let doubled = BACKOFF_FIRST.saturating_mul(1 << entry.failures.min(16));
                entry.failures = entry.failures.saturating_add(1);
                doubled.min(BACKOFF_MOST)
            }
        };
        entry.due = if entry.again { now } else { now + wait.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0)) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const WAITS: Waits = Waits { resync: Duration::from_secs(60), waiting: Duration::from_secs(5) };

    #[test]
    fn failures_wait_longer_and_longer() {
        let (mut schedule, now) = (Schedule::new(4, WAITS), Instant::now());
        schedule.touch("a", now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let at = schedule.next_due().unwrap();
            assert_eq!(schedule.start_due(at), ["a"]);
            schedule.finish(&"a", Turn::Failed, at, 0.5);
            waits.push((schedule.next_due().unwrap() - at).as_millis());
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]);
        schedule.touch("a", now);
        assert_eq!(schedule.next_due(), Some(now), "a change forgets failures");
    }

    #[test]
    fn what_waits_and_what_converged_are_left_alone() {
        let (mut schedule, now) = (Schedule::new(1, WAITS), Instant::now());
        for (turn, wait) in [(Turn::Waiting, 5), (Turn::Settled, 60)] {
            schedule.touch("a", now);
            assert_eq!(schedule.due(now), 1);
            schedule.start_due(now);
            schedule.finish(&"a", turn, now, 0.5);
            assert_eq!(schedule.next_due(), Some(now + Duration::from_secs(wait)));
        }
        schedule.no_later_than(&"a", now + Duration::from_secs(7));
        schedule.no_later_than(&"a", now + Duration::from_secs(9));
        assert_eq!(schedule.next_due(), Some(now + Duration::from_secs(7)));
    }

    #[test]
    fn only_so_many_run_at_a_time() {
        let (mut schedule, now) = (Schedule::new(2, WAITS), Instant::now());
        ["a", "b", "c"].into_iter().for_each(|key| schedule.touch(key, now));
        assert_eq!(schedule.start_due(now), ["a", "b"]);
        assert_eq!(schedule.next_due(), None);
        assert!(schedule.start_due(now).is_empty());
        schedule.finish(&"a", Turn::Settled, now, 0.0);
        assert_eq!(schedule.start_due(now), ["c"]);
    }

    #[test]
    fn a_change_during_a_run_runs_it_again() {
        let (mut schedule, now) = (Schedule::new(1, WAITS), Instant::now());
        schedule.touch("a", now);
        schedule.start_due(now);
        schedule.touch("a", now);
        assert!(schedule.start_due(now).is_empty(), "never twice at once");
        schedule.finish(&"a", Turn::Settled, now, 0.0);
        assert_eq!(schedule.start_due(now), ["a"]);
        schedule.keep_only(&BTreeSet::new());
        schedule.finish(&"a", Turn::Failed, now, 0.0);
        assert_eq!(schedule.next_due(), None);
    }
}
