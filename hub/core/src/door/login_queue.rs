//! Logins wait here for their turn at the store. Anybody may try to log in, so their number is bounded.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::fault::{Code, Fault};

/// Credentials of one kind that are looked at in the store at one time. The store's other sessions are for those who are known.
pub(super) const AT_ONE_TIME: usize = 2;
/// Credentials of one kind that wait for their turn: as many agents as may come back at once after an outage, and then some.
pub(super) const MAX_WAITING: usize = 256;
/// And of those that prove nobody by what this replica knows: some are newer than its directory, the others are a stranger's inventions.
pub(super) const MAX_UNKNOWN_WAITING: usize = 16;

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
