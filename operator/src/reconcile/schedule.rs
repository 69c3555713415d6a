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

/// A change that comes so soon after the one before is one of a row of changes.
const ROW: Duration = Duration::from_secs(10);
/// After the first change of a row; doubled with each, to the second.
const ROW_WAITS: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));
/// In a row of changes a tenancy is left alone for so many times as long as it took, at most.
const ROW_COST: u32 = 4;
/// However much it costs, a tenancy that was changed is looked at after this.
const ROW_MOST: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Entry {
    due: Instant,
    /// Tells apart what is due at the same time: who came first.
    sequence: u64,
    failures: u32,
    /// How often it waited without having converged in between.
    waits: u32,
    running: bool,
    /// Changed while it ran.
    again: bool,
    /// Gone while it ran.
    removed: bool,
    /// When it was begun last, when that ended, and how long it took.
    begun: Instant,
    ended: Instant,
    took: Duration,
    /// When it was changed last, and how many changes came in a row.
    touched: Option<Instant>,
    row: u32,
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            due: now,
            sequence: 0,
            failures: 0,
            waits: 0,
            running: false,
            again: false,
            removed: false,
            begun: now,
            ended: now,
            took: Duration::ZERO,
            touched: None,
            row: 0,
        }
    }

    /// The earliest time for a change of now. One change is acted on at once; who changes something again and again gets a share that shrinks
    /// with what it costs, and never a place for good.
    fn earliest(&self, now: Instant) -> Instant {
        if self.row == 0 {
            return now;
        }
        let steady = ROW_WAITS.0.saturating_mul(1 << (self.row - 1).min(16)).min(ROW_WAITS.1);
        let costly = self.took.saturating_mul(self.row.min(ROW_COST)).min(ROW_MOST);
        now.max(self.ended + steady.max(costly))
    }
}

/// What is due when.
#[derive(Debug)]
pub(crate) struct Schedule<K> {
    entries: BTreeMap<K, Entry>,
    /// Those that do not run, in the order in which they are begun: who has waited longest comes first, whatever it is called.
    queue: BTreeSet<(Instant, u64, K)>,
    sequence: u64,
    running: usize,
    limit: usize,
    waits: Waits,
}

impl<K: Ord + Clone> Schedule<K> {
    /// At most `limit` run at a time.
    pub(crate) fn new(limit: usize, waits: Waits) -> Self {
        Self { entries: BTreeMap::new(), queue: BTreeSet::new(), sequence: 0, running: 0, limit, waits }
    }

    /// Puts one that does not run where it belongs.
    fn set_due(&mut self, key: &K, due: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        self.queue.remove(&(entry.due, entry.sequence, key.clone()));
        self.sequence += 1;
        (entry.due, entry.sequence) = (due, self.sequence);
        self.queue.insert((due, self.sequence, key.clone()));
    }

    /// Due now: something changed. What failed before is not forgotten for that.
    pub(crate) fn touch(&mut self, key: K, now: Instant) {
        let is_known = self.entries.contains_key(&key);
        let entry = self.entries.entry(key.clone()).or_insert_with(|| Entry::new(now));
        entry.removed = false;
        if entry.running {
            entry.again = true;
            return;
        }
        // What is due anyway is not changed more often for being changed again before it is begun.
        if is_known && entry.due <= now {
            return;
        }
        let is_row = entry.touched.is_some_and(|before| now.saturating_duration_since(before) < ROW);
        (entry.row, entry.touched) = (if is_row { entry.row.saturating_add(1) } else { 0 }, Some(now));
        let earliest = entry.earliest(now);
        let due = if is_known { entry.due.min(earliest) } else { earliest };
        self.set_due(&key, due);
    }

    /// Never due again.
    pub(crate) fn remove(&mut self, key: &K) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.running {
            entry.removed = true;
        } else if let Some(entry) = self.entries.remove(key) {
            self.queue.remove(&(entry.due, entry.sequence, key.clone()));
        }
    }

    /// What is not in `keys` is never due again.
    pub(crate) fn keep_only(&mut self, keys: &BTreeSet<K>) {
        let gone: Vec<K> = self.entries.keys().filter(|key| !keys.contains(*key)).cloned().collect();
        gone.iter().for_each(|key| self.remove(key));
        for (_, entry) in self.entries.iter_mut().filter(|(key, _)| keys.contains(*key)) {
            entry.removed = false;
        }
    }

    /// Starts what is due, as far as the limit goes.
    pub(crate) fn start_due(&mut self, now: Instant) -> Vec<K> {
        let mut started = Vec::new();
        while self.running < self.limit && self.queue.first().is_some_and(|(due, _, _)| *due <= now) {
            let Some((_, _, key)) = self.queue.pop_first() else { break };
            if let Some(entry) = self.entries.get_mut(&key) {
                (entry.running, entry.again, entry.begun) = (true, false, now);
                self.running += 1;
                started.push(key);
            }
        }
        started
    }

    /// When something becomes due, where there is room for it.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        if self.running < self.limit { self.queue.first().map(|(due, _, _)| *due) } else { None }
    }

    /// How many are due, and not begun.
    pub(crate) fn due(&self, now: Instant) -> usize {
        self.queue.iter().take_while(|(due, _, _)| *due <= now).count()
    }

    /// Due at that time, unless it is earlier.
    pub(crate) fn no_later_than(&mut self, key: &K, at: Instant) {
        if self.entries.get(key).is_some_and(|entry| !entry.running && at < entry.due) {
            self.set_due(key, at);
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
        (entry.ended, entry.took) = (now, now.saturating_duration_since(entry.begun));
        let wait = match turn {
            Turn::Settled => {
                (entry.failures, entry.waits) = (0, 0);
                self.waits.resync
            }
            Turn::Waiting => {
                let grown = self.waits.waiting.saturating_mul(1 << entry.waits.min(16));
                entry.waits = entry.waits.saturating_add(1);
                grown.min(self.waits.resync).max(self.waits.waiting)
            }
            Turn::Failed => {
                let doubled = BACKOFF_FIRST.saturating_mul(1 << entry.failures.min(16));
                entry.failures = entry.failures.saturating_add(1);
                doubled.min(BACKOFF_MOST)
            }
        };
        let mut due = now + wait.mul_f64(0.8 + 0.4 * jitter.clamp(0.0, 1.0));
        if entry.again {
            let is_row = entry.touched.is_some_and(|before| now.saturating_duration_since(before) < ROW);
            (entry.row, entry.touched) = (if is_row { entry.row.saturating_add(1) } else { 0 }, Some(now));
            due = entry.earliest(now).min(due);
        }
        self.set_due(key, due);
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
        let at = schedule.next_due().unwrap() - Duration::from_secs(30);
        let mut fails = |at: Instant, turn: Turn| {
            schedule.touch("a", at);
            assert_eq!(schedule.start_due(at), ["a"], "a change is looked at");
            schedule.finish(&"a", turn, at, 0.5);
            schedule.next_due().unwrap() - at
        };
        assert_eq!(fails(at, Turn::Failed), BACKOFF_MOST, "and forgets no failure");
        fails(at + Duration::from_secs(30), Turn::Settled);
        assert_eq!(fails(at + Duration::from_secs(60), Turn::Failed), BACKOFF_FIRST, "a success does");
    }

    #[test]
    fn what_waits_is_looked_at_less_and_less_often() {
        let (mut schedule, mut now) = (Schedule::new(1, WAITS), Instant::now());
        schedule.touch("a", now);
        let mut waits = Vec::new();
        for _ in 0..6 {
            schedule.start_due(now);
            schedule.finish(&"a", Turn::Waiting, now, 0.5);
            let due = schedule.next_due().unwrap();
            waits.push((due - now).as_secs());
            now = due;
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
    }

    #[test]
    fn who_has_waited_longest_comes_first_whatever_it_is_called() {
        let (mut schedule, mut now) = (Schedule::new(1, WAITS), Instant::now());
        for key in ["zeta", "a", "b"] {
            schedule.touch(key, now);
        }
        let mut begun = Vec::new();
        for _ in 0..6 {
            let started = schedule.start_due(now);
            // Two that are edited in a loop.
            for key in ["a", "b"] {
                schedule.touch(key, now);
            }
            now += Duration::from_secs(2);
            for key in &started {
                schedule.finish(key, Turn::Settled, now, 0.5);
            }
            begun.extend(started);
        }
        assert_eq!(begun[..3], ["zeta", "a", "b"], "{begun:?}");
    }

    #[test]
    fn who_changes_something_in_a_loop_has_no_place_for_good() {
        let (mut schedule, begun) = (Schedule::new(1, WAITS), Instant::now());
        let (mut now, mut busy) = (begun, Duration::ZERO);
        while now < begun + Duration::from_secs(100) {
            schedule.touch("a", now);
            for _ in schedule.start_due(now) {
                now += Duration::from_secs(1);
                busy += Duration::from_secs(1);
                schedule.finish(&"a", Turn::Failed, now, 0.5);
            }
            now += Duration::from_millis(100);
        }
        assert!(busy <= Duration::from_secs(35), "{busy:?} of 100 s");
        // One that is left alone for a while is looked at at once.
        now += Duration::from_secs(120);
        schedule.start_due(now);
        schedule.finish(&"a", Turn::Settled, now, 0.5);
        schedule.touch("a", now + Duration::from_secs(30));
        assert_eq!(schedule.next_due(), Some(now + Duration::from_secs(30)));
    }

    #[test]
    fn twenty_thousand_patches_are_far_fewer_reconciles() {
        let (mut schedule, begun) = (Schedule::new(4, WAITS), Instant::now());
        let (mut started, mut running) = (0, false);
        // Twenty a second, of something that takes a twentieth of one.
        for patch in 0..20_000 {
            let now = begun + Duration::from_millis(50) * patch;
            if std::mem::take(&mut running) {
                schedule.finish(&"a", Turn::Settled, now, 0.5);
            }
            schedule.touch("a", now);
            running = !schedule.start_due(now).is_empty();
            started += u32::from(running);
        }
        assert!(started <= 1_100, "{started} in 1,000 s");
    }

    #[test]
    fn what_waits_and_what_converged_are_left_alone() {
        let (mut schedule, mut now) = (Schedule::new(1, WAITS), Instant::now());
        for (turn, wait) in [(Turn::Waiting, 5), (Turn::Settled, 60)] {
            now += Duration::from_secs(20);
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
        assert_eq!(schedule.start_due(now + ROW_WAITS.0), ["a"]);
        schedule.keep_only(&BTreeSet::new());
        schedule.finish(&"a", Turn::Failed, now, 0.0);
        assert_eq!(schedule.next_due(), None);
    }
}
