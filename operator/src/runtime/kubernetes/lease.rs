//! The arithmetic of the leader's lease. Other machines' clocks are never compared with this one's: what counts is for how long the lease
//! was not seen to change. Pure.

use std::time::{Duration, Instant};

/// A lease that is not renewed for so long may be taken.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// The leader renews it this often.
pub(super) const RENEW_EVERY: Duration = Duration::from_secs(5);
/// A renewal that failed is tried again after this; a standby looks this often.
pub(super) const RETRY_EVERY: Duration = Duration::from_millis(500);
/// Kafka, which fences nothing, is asked for changes only while so much of the lease is left: more than a request may take.
pub(super) const KAFKA_SPARE: Duration = Duration::from_secs(5);

/// What a lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// Empty: nobody.
    pub(super) holder: String,
    /// As it was written: only whether it changes counts.
    pub(super) renewed: String,
    pub(super) duration: Duration,
    /// How often it changed hands.
    pub(super) transitions: i32,
}

/// What was seen of a lease.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    record: Record,
    since: Instant,
}

impl Sight {
    /// The lease as it is now; `before` is what was seen last.
    pub(super) fn of(before: Option<Self>, record: Record, now: Instant) -> Self {
        let since = before.filter(|before| before.record == record).map_or(now, |before| before.since);
        Self { record, since }
    }

    /// Whether `me` may take it.
    pub(super) fn is_free(&self, me: &str, now: Instant) -> bool {
        self.record.holder.is_empty() || self.record.holder == me || now.duration_since(self.since) >= self.record.duration
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn held(renewed: &str) -> Record {
        Record { holder: "a".into(), renewed: renewed.into(), duration: DURATION, transitions: 1 }
    }

    #[test]
    fn a_lease_is_free_when_it_was_not_renewed_for_its_duration() {
        let start = Instant::now();
        let seconds = |seconds| start + Duration::from_secs(seconds);
        // However old its time says it is: that clock is another's.
        let first = Sight::of(None, held("1999-01-01"), start);
        assert!(!first.is_free("b", seconds(14)));
        assert!(first.is_free("b", seconds(15)));
        let renewed = Sight::of(Some(first), held("1999-01-02"), seconds(10));
        assert!(!renewed.is_free("b", seconds(24)));
        let same = Sight::of(Some(renewed), held("1999-01-02"), seconds(20));
        assert!(same.is_free("b", seconds(25)), "seeing the same again renews nothing");
    }

    #[test]
    fn what_was_given_back_is_free_at_once() {
        let given = Record { holder: String::new(), ..held("1999-01-01") };
        assert!(Sight::of(None, given, Instant::now()).is_free("b", Instant::now()));
    }

    #[test]
    fn a_renewal_that_fails_leaves_time_for_kafka_and_for_another_try() {
        const { assert!(RENEW_EVERY.as_millis() + KAFKA_SPARE.as_millis() < DURATION.as_millis()) };
    }
}
