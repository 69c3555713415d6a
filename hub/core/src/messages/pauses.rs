//! Which partitions of a log took nothing lately, so that what is for one of them does not hold up the others.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::log::bus::Partition;

/// The longest that an append may take, where the partition took the one before, and where it did not.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(2));
/// The first pause after a partition took nothing, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// A partition that took nothing.
#[derive(Clone, Copy, Debug)]
struct Refusing {
    until: Instant,
    pause: Duration,
    /// Whether one append finds out now if it takes something again.
    probed: bool,
}

/// The partitions of one log, as one replica knows them.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<Partition, Refusing>>);

impl Pauses {
    /// The pause until this partition may be tried again, where it took nothing lately.
    pub(super) fn pause(&self, partition: Partition) -> Option<Duration> {
        let until = self.refusing().get(&partition)?.until;
        until.checked_duration_since(Instant::now()).filter(|pause| !pause.is_zero())
    }

    /// How long an append to this partition may take now. The pause until it may be tried where the partition took nothing lately: only one append
    /// at a time finds out whether it does again.
    pub(super) fn begin(&self, partition: Partition) -> Result<Duration, Duration> {
        let (mut refusing, now) = (self.refusing(), Instant::now());
        let Some(known) = refusing.get_mut(&partition) else { return Ok(PATIENCE.0) };
        if known.until > now {
            return Err(known.until - now);
        }
        known.until = now + PATIENCE.1;
        known.probed = true;
        Ok(PATIENCE.1)
    }

    /// Whether a partition took an append.
    pub(super) fn ended(&self, partition: Partition, taken: bool) {
        let mut refusing = self.refusing();
        if taken {
            refusing.remove(&partition);
            return;
        }
        let now = Instant::now();
        match refusing.get_mut(&partition) {
            // Of several that failed together, one counts.
            Some(Refusing { probed: false, .. }) => {}
            Some(known) => {
                known.probed = false;
                known.pause = (known.pause * 2).min(PAUSE.1);
                known.until = now + known.pause;
            }
            None => {
                refusing.insert(partition, Refusing { until: now + PAUSE.0, pause: PAUSE.0, probed: false });
            }
        }
    }

    fn refusing(&self) -> MutexGuard<'_, HashMap<Partition, Refusing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_append_finds_out_whether_a_partition_takes_something_again() {
        let pauses = Pauses::default();
        assert_eq!(pauses.begin(0), Ok(PATIENCE.0));
        for _ in 0..3 {
            pauses.ended(0, false);
        }
        // The others go on.
        assert_eq!(pauses.begin(1), Ok(PATIENCE.0));
        assert!(pauses.begin(0).is_err());
        assert!(pauses.begin(0).is_err_and(|pause| pause <= PAUSE.0), "they failed together");
        tokio::time::advance(PAUSE.0).await;
        assert_eq!((pauses.begin(0), pauses.begin(0)), (Ok(PATIENCE.1), Err(PATIENCE.1)));
        pauses.ended(0, true);
        assert_eq!(pauses.begin(0), Ok(PATIENCE.0));
    }
}
