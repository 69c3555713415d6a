//! Whether the loop of a leader still turns. Where it stands still, everything is as it was for good while the lease is renewed: the kubelet
//! starts such a process over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The loop turns at least once a minute.
pub(super) const AT_LEAST_EVERY: Duration = Duration::from_secs(60);
const STANDS_STILL_AFTER: Duration = Duration::from_secs(5 * 60);

/// When the loop turned last; `None` while this process does not lead. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    fn set(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// The loop turned.
    pub(super) fn beat(&self) {
        self.set(Some(Instant::now()));
    }

    /// This process leads no more.
    pub(super) fn rest(&self) {
        self.set(None);
    }

    /// For how long the loop has stood still, where that is too long.
    pub(super) fn stands_still(&self, now: Instant) -> Option<Duration> {
        let last = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        Some(now.saturating_duration_since(last)).filter(|still| *still >= STANDS_STILL_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leader_stands_still() {
        let (pulse, later) = (Pulse::default(), Instant::now() + STANDS_STILL_AFTER + Duration::from_secs(1));
        assert_eq!(pulse.stands_still(later), None);
        pulse.beat();
        assert_eq!(pulse.stands_still(Instant::now() + AT_LEAST_EVERY), None);
        assert!(pulse.stands_still(later).is_some());
        pulse.rest();
        assert_eq!(pulse.stands_still(later), None);
    }
}
