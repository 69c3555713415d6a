//! How long to wait before the next try, and when to stop trying.

use std::time::Duration;

use tokio::time::Instant;

use crate::Error;

/// What lasted so long was of use, also where nothing came: what breaks after it has its full time again.
pub(crate) const STEADY: Duration = Duration::from_secs(10);

/// How long what may have reached the log is sent again, from when it was first sent. A hub knows a key for 10 minutes of its log, and what is
/// sent may take 5 of them into the log: what comes later may be taken for another message, and arrive twice.
pub(crate) const RESEND_FOR: Duration = Duration::from_secs(300);

const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(5);

/// Exponential backoff with full jitter, within a time that progress renews. It runs from the first failure: what went well for long, and
/// then breaks, has all of it.
#[derive(Debug)]
pub(crate) struct Patience {
    within: Duration,
    /// `None` while nothing failed.
    until: Option<Instant>,
    next: Duration,
}

impl Patience {
    pub(crate) fn new(within: Duration) -> Self {
        Self { within, until: None, next: FIRST }
    }

    /// Something succeeded: the full time again.
    pub(crate) fn renew(&mut self) {
        *self = Self::new(self.within);
    }

    /// Waits before the next try, or gives the error back where the time is over.
    pub(crate) async fn wait(&mut self, error: Error) -> Result<(), Error> {
        let pause = self.next.mul_f64(0.5 + random_fraction() / 2.0);
        let now = Instant::now();
        if now + pause > *self.until.get_or_insert(now + self.within) {
            let tried = self.within.as_secs_f64();
            return Err(error.during(format_args!("gave up after {tried:.0} s")));
        }
        tracing::debug!(%error, ?pause, "trying again");
        self.next = (self.next * 2).min(MOST);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// How long one message or call is kept back, all in all, while a limit has no room for it.
const LIMITED: Duration = Duration::from_secs(120);
/// When a limit has room again, not everybody comes at once.
const SPREAD: Duration = Duration::from_secs(1);
/// The reason of a refusal where a month is used up. Nothing waits for the next one: not even at its end, when it is near.
const MONTH_USED_UP: &str = "MONTHLY_LIMIT_EXCEEDED";

/// Waits of one message or call for a limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limited(Option<Instant>);

impl Limited {
    /// When to try again after this error. `None` where it is of no limit, or where the wait would be too long.
    pub(crate) fn again_at(&mut self, error: &Error) -> Option<Instant> {
        if error.reason() == MONTH_USED_UP {
            return None;
        }
        let now = Instant::now();
        let again = now + error.retry_after()? + SPREAD.mul_f64(random_fraction());
        let until = *self.0.get_or_insert(now + LIMITED);
        (again <= until).then_some(again)
    }
}

/// Evenly in `0.0..1.0`.
fn random_fraction() -> f64 {
    f64::from(random_u32()) / (f64::from(u32::MAX) + 1.0)
}

/// A random number; not for secrets.
pub(crate) fn random_u32() -> u32 {
    // The first 32 bits of a UUIDv4 are random.
    uuid::Uuid::new_v4().as_fields().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gives_up_within_its_time_and_says_so() {
        let start = Instant::now();
        let mut patience = Patience::new(Duration::from_secs(20));
        let mut tries = 0;
        let error = loop {
            tries += 1;
            if let Err(error) = patience.wait(Error::Unavailable("refused".into())).await {
                break error;
            }
        };
        assert!(start.elapsed() <= Duration::from_secs(20));
        assert!((8..40).contains(&tries), "{tries}");
        assert_eq!(error.message(), "gave up after 20 s: refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_waited_for_as_long_as_it_says_and_not_for_ever() {
        let refused = |after| Error::refused(crate::Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED", "no").until(after);
        let (mut limited, start) = (Limited::default(), Instant::now());
        assert_eq!(limited.again_at(&refused(None)), None);
        let again = limited.again_at(&refused(Some(Duration::from_secs(50)))).unwrap();
        assert!((Duration::from_secs(50)..=Duration::from_secs(51)).contains(&(again - start)), "{again:?}");
        tokio::time::sleep_until(again).await;
        let again = limited.again_at(&refused(Some(Duration::from_secs(60)))).unwrap();
        tokio::time::sleep_until(again).await;
        assert_eq!(limited.again_at(&refused(Some(Duration::from_secs(60)))), None);
        assert_eq!(Limited::default().again_at(&refused(Some(Duration::from_secs(86_400)))), None);
        let month = Error::refused(crate::Code::ResourceExhausted, "MONTHLY_LIMIT_EXCEEDED", "no");
        assert_eq!(Limited::default().again_at(&month.until(Some(Duration::from_secs(5)))), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_went_well_for_long_is_tried_again_all_the_same() {
        let mut patience = Patience::new(Duration::from_secs(20));
        tokio::time::sleep(Duration::from_secs(3600)).await;
        patience.wait(Error::Unavailable("refused".into())).await.unwrap();
    }
}
