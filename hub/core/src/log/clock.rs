//! The clock of the log, as far as a replica knows it. The log's times are those of the machine that it is on, whose clock may be minutes off: only what
//! was brought to one clock is compared.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use time::{Duration, OffsetDateTime};

use super::bus::Partition;

const UNKNOWN: i64 = i64::MIN;

/// This machine's clock was set where it goes faster or slower by more than this.
const SET: Duration = Duration::SECOND;

/// The clocks of a log's partitions, which may be on several machines.
#[derive(Debug)]
pub struct LogClock {
    /// By how much each is ahead of this machine's, in microseconds.
    ahead: Vec<AtomicI64>,
    /// What this machine's clock showed at one moment.
    machine: Mutex<(OffsetDateTime, Instant)>,
}

impl LogClock {
    /// Of which nothing is known yet: it is taken for one that is so far ahead of this machine's.
    #[must_use]
    pub fn new(partitions: u32, ahead: Duration) -> Self {
        let ahead = if ahead.is_zero() { UNKNOWN } else { micros(ahead) };
        let ahead = (0..partitions).map(|_| AtomicI64::new(ahead)).collect();
        Self { ahead, machine: Mutex::new((OffsetDateTime::now_utc(), Instant::now())) }
    }

    /// What a partition's clock shows when this machine's shows `here`.
    #[must_use]
    pub fn there(&self, partition: Partition, here: OffsetDateTime) -> OffsetDateTime {
        here.saturating_add(self.ahead(partition))
    }

    /// What this machine's clock showed when a partition's showed `there`.
    #[must_use]
    pub fn here(&self, partition: Partition, there: OffsetDateTime) -> OffsetDateTime {
        there.saturating_sub(self.ahead(partition))
    }

    /// What the clock that is furthest ahead shows when this machine's shows `here`.
    #[must_use]
    pub fn latest(&self, here: OffsetDateTime) -> OffsetDateTime {
        self.follow_machine();
        let known = self.ahead.iter().map(|ahead| ahead.load(Ordering::Relaxed)).filter(|ahead| *ahead != UNKNOWN);
        here.saturating_add(Duration::microseconds(known.max().unwrap_or(0)))
    }

    /// What the clock that is furthest behind shows when this machine's shows `here`.
    #[must_use]
    pub fn earliest(&self, here: OffsetDateTime) -> OffsetDateTime {
        let ahead = (0..).zip(&self.ahead).map(|(partition, _)| self.ahead(partition));
        here.saturating_add(ahead.min().unwrap_or_default())
    }

    /// The log took a record between these two times of this machine, at this time of its own. What was known before stays, where that agrees.
    pub fn took(&self, partition: Partition, (began, ended): (OffsetDateTime, OffsetDateTime), log_time: OffsetDateTime) {
        let (least, most) = (micros(log_time - ended), micros(log_time - began));
        // This machine's clock was set back in between: nothing follows.
        if least <= most {
            self.adjust(partition, |ahead| ahead.clamp(least, most));
        }
    }

    /// A record of this time was there already when this machine's clock showed `here`.
    pub fn showed(&self, partition: Partition, log_time: OffsetDateTime, here: OffsetDateTime) {
        let least = micros(log_time - here);
        // That a record is old says nothing of the clock.
        if least > 0 {
            self.adjust(partition, |ahead| ahead.max(least));
        }
    }

    fn adjust(&self, partition: Partition, change: impl Fn(i64) -> i64) {
        self.follow_machine();
        if let Some(ahead) = self.ahead.get(partition as usize) {
            let known = |ahead| if ahead == UNKNOWN { 0 } else { ahead };
            let _ = ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ahead| Some(change(known(ahead))));
        }
    }

    /// Where this machine's clock was set, those of the log were not: until the log has taken something again, nothing else would say so, and what is sent
    /// meanwhile would be judged by another month.
    fn follow_machine(&self) {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, (before, at)) = ((OffsetDateTime::now_utc(), Instant::now()), *machine);
        let passed = Duration::try_from(now.1.saturating_duration_since(at)).unwrap_or(Duration::MAX);
        let set = (now.0 - before).saturating_sub(passed);
        *machine = now;
        if set.abs() > SET {
            self.machine_set(set);
        }
    }

    fn machine_set(&self, by: Duration) {
        for ahead in &self.ahead {
            let known = |ahead: i64| (ahead != UNKNOWN).then(|| ahead.saturating_sub(micros(by)));
            let _unknown = ahead.fetch_update(Ordering::Relaxed, Ordering::Relaxed, known);
        }
    }

    fn ahead(&self, partition: Partition) -> Duration {
        self.follow_machine();
        let ahead = self.ahead.get(partition as usize).map_or(0, |ahead| ahead.load(Ordering::Relaxed));
        Duration::microseconds(if ahead == UNKNOWN { 0 } else { ahead })
    }
}

/// Times of the log are within some thousands of years.
fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.whole_microseconds()).unwrap_or(if duration.is_negative() { i64::MIN + 1 } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: OffsetDateTime = time::macros::datetime!(2026-01-01 12:00 UTC);

    fn at(seconds: i64) -> OffsetDateTime {
        NOON + Duration::seconds(seconds)
    }

    #[test]
    fn nothing_is_assumed_of_a_clock_that_agrees() {
        let clock = LogClock::new(2, Duration::ZERO);
        clock.took(0, (at(0), at(3)), at(2));
        assert_eq!((clock.there(0, at(9)), clock.there(1, at(9)), clock.there(7, at(9))), (at(9), at(9), at(9)));
    }

    #[test]
    fn a_clock_that_is_off_is_known_as_well_as_its_answers_are_quick() {
        let clock = LogClock::new(2, Duration::ZERO);
        clock.took(0, (at(0), at(3)), at(3601));
        // It took the record at once, or right before it answered.
        assert_eq!(clock.there(0, at(0)), at(3598));
        clock.took(0, (at(10), at(11)), at(3611));
        assert_eq!((clock.there(0, at(0)), clock.here(0, at(3600))), (at(3600), at(0)));
        clock.took(1, (at(20), at(21)), at(-3580));
        assert_eq!((clock.there(1, at(0)), clock.latest(at(0)), clock.earliest(at(0))), (at(-3600), at(3600), at(-3600)));
    }

    #[test]
    fn what_a_clock_is_taken_for_holds_until_it_is_known_better() {
        let clock = LogClock::new(2, Duration::seconds(-3600));
        assert_eq!((clock.there(0, at(3600)), clock.here(1, at(0))), (at(0), at(3600)));
        // It was read an hour after it was logged, or this machine is an hour ahead.
        clock.took(0, (at(0), at(3600)), at(0));
        assert_eq!(clock.there(0, at(3600)), at(0));
        clock.took(1, (at(0), at(1)), at(1));
        assert_eq!((clock.there(0, at(3600)), clock.there(1, at(3600))), (at(0), at(3600)));
    }

    #[test]
    fn a_machine_that_is_set_moves_no_other_clock() {
        let clock = LogClock::new(2, Duration::ZERO);
        clock.took(0, (at(0), at(1)), at(3600));
        let there = clock.there(0, at(1));
        let year = Duration::days(365);
        clock.machine_set(year);
        assert_eq!((clock.there(0, at(1) + year), clock.here(0, there)), (there, at(1) + year));
        // Of one of which nothing is known nothing follows.
        assert_eq!(clock.there(1, at(1)), at(1));
        clock.machine_set(-year);
        assert_eq!(clock.there(0, at(1)), there);
    }

    #[test]
    fn an_answer_that_took_long_says_little() {
        let clock = LogClock::new(1, Duration::ZERO);
        clock.took(0, (at(0), at(1)), at(1));
        clock.took(0, (at(10), at(1000)), at(990));
        assert_eq!(clock.there(0, at(0)), at(0));
        // The clock here was set back by an hour in between.
        clock.took(0, (at(2000), at(-1600)), at(2001));
        assert_eq!(clock.there(0, at(0)), at(0));
    }

    #[test]
    fn what_was_read_shows_that_a_clock_is_ahead_and_never_that_it_is_behind() {
        let clock = LogClock::new(1, Duration::ZERO);
        clock.showed(0, at(-86_400), at(0));
        assert_eq!(clock.there(0, at(0)), at(0));
        clock.showed(0, at(3600), at(0));
        clock.showed(0, at(1800), at(0));
        assert_eq!(clock.there(0, at(0)), at(3600));
        // Only at least so far: what the log took says how far it is.
        clock.took(0, (at(10), at(11)), at(7211));
        assert_eq!(clock.there(0, at(0)), at(7200));
    }
}
