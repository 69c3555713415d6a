//! Logins wait here for their turn at the store. Anybody may try to log in, so their number is bounded.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::fault::{Code, Fault};

/// Credentials that are looked at in the store at one time. Anybody may present one: the store's other sessions are for those who are known.
pub(crate) const AT_ONE_TIME: usize = 2;

/// Credentials that wait for their turn: as many agents as may come back at once after an outage, and then some.
pub(crate) const MAX_WAITING: usize = 256;

/// Who may ask the store about a credential, one after the other.
#[derive(Debug)]
pub(crate) struct LoginQueue {
    places: Semaphore,
    turns: Semaphore,
}

impl Default for LoginQueue {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONE_TIME + MAX_WAITING), turns: Semaphore::new(AT_ONE_TIME) }
    }
}

impl LoginQueue {
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
