//! Attempts at what many want, one at a time. When one fails, all who waited while it was made fail with it: in turn, each would wait for a failure of
//! its own, and the last of a thousand for a thousand times as long.

use std::ops::{Deref, DerefMut};

use tokio::{
    sync::{Mutex, MutexGuard},
    time::Instant,
};

use crate::fault::Fault;

/// Who may make the next attempt, and what the last one left.
#[derive(Debug, Default)]
pub struct Attempts<T>(Mutex<Kept<T>>);

/// What is kept from one attempt to the next.
#[derive(Debug, Default)]
pub struct Kept<T> {
    /// What the attempts share.
    pub last: T,
    failed: Option<(Instant, Fault)>,
}

impl<T> Attempts<T> {
    /// Waits for one's turn. An error is the failure of an attempt that ended meanwhile.
    pub async fn next(&self) -> Result<Attempt<'_, T>, Fault> {
        let since = Instant::now();
        let kept = self.0.lock().await;
        match &kept.failed {
            Some((at, fault)) if *at > since => Err(fault.clone()),
            _ => Ok(Attempt(kept)),
        }
    }
}

/// One's turn.
#[derive(Debug)]
pub struct Attempt<'a, T>(MutexGuard<'a, Kept<T>>);

impl<T> Attempt<'_, T> {
    /// Notes what became of the attempt, for those who wait.
    pub fn ended<R>(&mut self, outcome: Result<R, Fault>) -> Result<R, Fault> {
        self.0.failed = outcome.as_ref().err().map(|fault| (Instant::now(), fault.clone()));
        outcome
    }
}

impl<T> Deref for Attempt<'_, T> {
    type Target = Kept<T>;

    fn deref(&self) -> &Kept<T> {
        &self.0
    }
}

impl<T> DerefMut for Attempt<'_, T> {
    fn deref_mut(&mut self) -> &mut Kept<T> {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_for_a_failing_attempt_fail_with_it_and_the_next_one_tries_again() {
        let attempts = Arc::new(Attempts::<u32>::default());
        let attempt = |attempts: Arc<Attempts<u32>>, fails: bool| async move {
            let mut attempt = attempts.next().await?;
            attempt.last += 1;
            tokio::time::sleep(Duration::from_secs(5)).await;
            let outcome = if fails { Err(Fault::unavailable("AWAY", "it is away")) } else { Ok(attempt.last) };
            attempt.ended(outcome)
        };
        let began = Instant::now();
        let waiting: Vec<_> = (0..100).map(|_| tokio::spawn(attempt(attempts.clone(), true))).collect();
        for one in waiting {
            assert_eq!(one.await.unwrap().unwrap_err().reason, "AWAY");
        }
        assert_eq!(began.elapsed(), Duration::from_secs(5), "of one attempt");
        let both = [tokio::spawn(attempt(attempts.clone(), false)), tokio::spawn(attempt(attempts.clone(), false))];
        let mut counts = Vec::new();
        for one in both {
            counts.push(one.await.unwrap().unwrap());
        }
        assert_eq!(counts, [2, 3], "what works is done by each");
    }
}
