//! Logins wait here for their turn at the store. Anybody may try to log in, so their number is bounded.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::fault::{Code, Fault};

/// Who may ask the store about a credential, one after the other.
#[derive(Debug)]
pub(crate) struct LoginQueue {
    places: Semaphore,
    turns: Semaphore,
}

impl LoginQueue {
    /// One that lets so many ask at one time, and so many wait for that.
    pub(crate) fn new(at_one_time: usize, waiting: usize) -> Self {
        Self { places: Semaphore::new(at_one_time + waiting), turns: Semaphore::new(at_one_time) }
    }

    /// Waits for one's turn, which ends when what is returned is dropped.
    pub(crate) async fn next(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), Fault> {
        let busy = || {
            Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_LOGINS",
                "as many credentials wait to be looked at as this replica takes: try again in a few seconds",
            )
        };
        let place = self.places.try_acquire().map_err(|_| busy())?;
        let turn = self.turns.acquire().await.map_err(|_| busy())?;
        Ok((turn, place))
    }
}
