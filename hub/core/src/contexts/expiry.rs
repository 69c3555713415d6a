//! Deletes contexts that have expired. Every replica runs this; a context that another replica deleted first is simply gone. A deletion that failed is
//! tried again later, with a growing pause, and holds up no other.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    context::{Context, ContextId},
    parts::Parts,
};
use crate::{
    fault::{Code, Fault},
    kit::retries::Retries,
    metrics::contexts::ContextMetrics,
};

/// Contexts deleted between two questions.
const BATCH: u32 = 100;

/// Deletions in a row that fail since the store does not answer, after which it is left alone until the next round.
const GIVE_UP: u32 = 3;

/// The first pause before a failed deletion is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60 * 60));

/// Failed deletions that are remembered. Further ones are tried again at each round.
const MAX_REMEMBERED: usize = 10_000;

/// The shortest and the longest pause between two counts of the stored bytes.
const COUNT_PAUSES: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(60 * 60));
/// Between two counts lies so many times what one takes: however many contexts there are, a replica has the store count for a thousandth of the time.
const COUNTED: u32 = 1000;

/// How long after a count that took so long the next one is due. At most twice as long as `before`: one slow answer, such as that of a server that starts,
/// must not leave the figure as it is for an hour.
fn count_pause(took: Duration, before: Duration) -> Duration {
    took.saturating_mul(COUNTED).min(before.saturating_mul(2)).clamp(COUNT_PAUSES.0, COUNT_PAUSES.1)
}

pub(crate) struct ExpirySweep {
    pub(crate) parts: Arc<Parts>,
    pub(crate) metrics: ContextMetrics,
    pub(crate) every: Duration,
    /// What could not be deleted.
    failed: Retries<ContextId>,
}

impl ExpirySweep {
    pub(crate) fn new(parts: Arc<Parts>, metrics: ContextMetrics) -> Self {
        let every = parts.config.expiry_poll;
        Self { parts, metrics, every, failed: Retries::new(RETRY, MAX_REMEMBERED) }
    }

    pub(crate) async fn run(mut self, upload_lifetime: Duration, cancellation: CancellationToken) {
        let (mut count_at, mut pause) = (Instant::now(), COUNT_PAUSES.0);
        loop {
            if let Err(fault) = self.clean(upload_lifetime).await {
                warn!(%fault, "what has expired stays for now, unseen");
            }
            let begun = Instant::now();
            if begun >= count_at {
                pause = match self.parts.stores.contexts.kept(None).await {
                    Ok(kept) => {
                        self.metrics.stored(kept.bytes);
                        count_pause(begun.elapsed(), pause)
                    }
                    Err(fault) => {
                        warn!(%fault, "stored bytes were not counted");
                        COUNT_PAUSES.0
                    }
                };
                count_at = Instant::now() + pause;
            }
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = tokio::time::sleep(self.every) => {}
            }
        }
    }

    async fn clean(&mut self, upload_lifetime: Duration) -> Result<(), Fault> {
        let mut after = None;
        // Of those that failed, now or before: what is not found again is gone.
        let mut seen = HashSet::new();
        let mut unanswered = 0;
        loop {
            let expired = self.parts.stores.contexts.expired(after, BATCH).await?;
            for context in &expired.contexts {
                unanswered = self.remove(context, unanswered).await?;
                if self.failed.knows(&context.id) {
                    seen.insert(context.id);
                }
            }
            after = expired.next;
            if after.is_none() {
                break;
            }
        }
        self.failed.keep(&seen);
        let abandoned = self.parts.stores.uploads.remove_abandoned(upload_lifetime).await?;
        if abandoned > 0 {
            info!(abandoned, "abandoned uploads removed");
        }
        Ok(())
    }

    /// Deletes one, unless it failed lately. Gives up the round where the store has not answered for several in a row.
    async fn remove(&mut self, context: &Context, unanswered: u32) -> Result<u32, Fault> {
        if self.failed.waits(&context.id, Instant::now()).is_some() {
            return Ok(unanswered);
        }
        let Err(fault) = self.parts.remove(context).await else { return Ok(0) };
        if fault.code == Code::Unavailable {
            if unanswered + 1 >= GIVE_UP {
                return Err(fault);
            }
            return Ok(unanswered + 1);
        }
        warn!(context = %context.id, %fault, "an expired context can't be deleted, trying again later");
        self.failed.failed(context.id, Instant::now());
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_takes_long_is_made_seldom() {
        let pause = |millis| count_pause(Duration::from_millis(millis), COUNT_PAUSES.1).as_secs();
        assert_eq!([pause(0), pause(60), pause(61), pause(500)], [60, 60, 61, 500]);
        assert_eq!(count_pause(Duration::MAX, COUNT_PAUSES.1), COUNT_PAUSES.1);
        assert_eq!(count_pause(Duration::MAX, COUNT_PAUSES.0), 2 * COUNT_PAUSES.0, "one slow answer");
    }
}
