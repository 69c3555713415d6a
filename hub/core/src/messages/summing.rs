//! Sums what agents have sent, behind the log. Every replica tries; whoever moves a partition's checkpoint first has added to the sums what lies before
//! it, in the same transaction, and the others drop theirs. So each message is in one sum, once, whoever dies when.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use super::{life, parts::Parts, sums::MANY};
use crate::{directory::refresher::jittered, fault::Fault};

/// How long hours are kept. Months stay.
const KEPT: time::Duration = time::Duration::days(400);
/// How often older ones are looked for, and how many are removed at one time.
const FORGET_EVERY: Duration = Duration::from_secs(60 * 60);
const FORGET: usize = 5000;
/// The longest pause after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// How often the store is asked for gaps where nothing is sent.
const GAPS_EVERY: Duration = Duration::from_secs(60);

/// Sums until stopped.
pub(super) async fn run(parts: Parts) {
    let (mut forget_at, mut gaps_at, mut failed) = (Instant::now(), Instant::now() + GAPS_EVERY, false);
    loop {
        // Not all replicas at the same time: each would lose to the first.
        let pause = jittered(if failed { parts.config.sum_every.min(RETRY) } else { parts.config.sum_every });
        tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            // After a failure there may be as many as before: that is no reason not to wait.
            () = parts.sums.many.notified(), if !failed => {}
            () = sleep(pause) => {}
        }
        let summed = tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            summed = sum(&parts) => summed,
        };
        failed = summed.is_err();
        match summed {
            Ok(true) => {}
            Ok(false) => return life::end_with_store(&parts).await,
            Err(error) => {
                parts.metrics.usage().failed();
                tracing::warn!(%error, "usage can't be summed, trying again");
                continue;
            }
        }
        // Where something is summed that says it, too.
        if Instant::now() >= gaps_at {
            gaps_at = Instant::now() + GAPS_EVERY;
            match parts.sums.store.gaps_lately().await {
                Ok(gaps) => parts.metrics.usage().gaps(gaps),
                Err(error) => tracing::debug!(%error, "gaps of the sums of usage can't be counted"),
            }
        }
        if Instant::now() >= forget_at {
            forget_at = Instant::now() + FORGET_EVERY;
            let before = OffsetDateTime::now_utc() - KEPT;
            while matches!(parts.sums.store.forget_hours(before, FORGET).await, Ok(gone) if gone >= FORGET as u64) {}
        }
    }
}

/// Adds to the sums what they lack, as far as nobody else has. False where the store is not what it was.
async fn sum(parts: &Parts) -> Result<bool, Fault> {
    let (sums, metrics) = (&parts.sums, parts.metrics.usage());
    loop {
        let advances = sums.lack(&parts.directory.snapshot());
        if advances.is_empty() {
            metrics.unsummed(0);
            return Ok(true);
        }
        let (moved, gaps) = sums.store.add(parts.log.epoch, &advances).await?;
        metrics.gaps(gaps);
        if !sums.moved(&advances, moved) {
            return Ok(false);
        }
        let left = sums.waiting();
        metrics.unsummed(left);
        if left < MANY {
            return Ok(true);
        }
    }
}
