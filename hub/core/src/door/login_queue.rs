//! Logins wait here for their turn. Anybody may try to log in, so their number is bounded, and each source has only its share of the places: a
//! stranger with many connections keeps nobody else from logging in.

use std::{net::IpAddr, time::Duration};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    fault::{Code, Fault},
    kit::crowds::{Crowds, Member},
};

/// Credentials of one kind that are looked at in the store at one time. The store's other sessions are for those who are known.
pub(super) const AT_ONE_TIME: usize = 2;
/// Credentials of one kind that wait for their turn. A source alone has half of the places: as many agents behind one address as may come back at
/// once after an outage, and then some.
pub(super) const MAX_WAITING: usize = 512;
/// When to present a credential again that found no place. The store looks at hundreds in this time.
const AGAIN: Duration = Duration::from_secs(5);

/// Places of those who wait for one thing.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: Crowds,
}

impl Places {
    /// So many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, taken: Crowds::default() }
    }

    /// One for this source. The fewer places are left, the fewer of them a source gets: however many crowd in, one that has none yet finds a place.
    ///
    /// # Errors
    /// `TOO_MANY_LOGINS` where its source has its share.
    pub(crate) fn take(&self, source: IpAddr) -> Result<Member, Fault> {
        self.taken.join(source, |all| self.most - all).ok_or_else(busy)
    }
}

/// Who may do one thing with a credential, a few at a time.
#[derive(Debug)]
pub(crate) struct LoginQueue {
    places: Places,
    turns: Semaphore,
}

/// One's turn, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    _turn: SemaphorePermit<'a>,
    _place: Member,
}

impl LoginQueue {
    /// One that lets so many in at one time, and so many wait for that.
    pub(crate) fn new(at_one_time: usize, waiting: usize) -> Self {
        Self { places: Places::new(at_one_time + waiting), turns: Semaphore::new(at_one_time) }
    }

    /// Waits for one's turn. Sources take turns, however many of each wait.
    ///
    /// # Errors
    /// `TOO_MANY_LOGINS` where its source has its share of the places.
    pub(crate) async fn next(&self, source: IpAddr) -> Result<Turn<'_>, Fault> {
        let place = self.places.take(source)?;
        // The first of each source alone waits among those of other sources.
        let first = place.line().lock().await;
        let turn = self.turns.acquire().await.map_err(|_| busy())?;
        drop(first);
        Ok(Turn { _turn: turn, _place: place })
    }
}

fn busy() -> Fault {
    Fault::new(
        Code::ResourceExhausted,
        "TOO_MANY_LOGINS",
        "as many credentials of this address wait to be looked at as this replica takes: try again in a few seconds",
    )
    .passing_in(AGAIN)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    fn source(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn however_few_sources_crowd_in_another_one_finds_a_place() {
        let places = Places::new(100);
        let mut held = Vec::new();
        for _ in 0..100 {
            held.extend(places.take(source(1)).ok());
        }
        assert_eq!(held.len(), 50, "alone it has half of them");
        assert_eq!(places.take(source(1)).unwrap_err().retry_after(), Some(AGAIN));
        for _ in 0..100 {
            held.extend(places.take(source(2)).ok());
        }
        assert_eq!(held.len(), 75);
        for last in 3..=20 {
            held.push(places.take(source(last)).unwrap());
        }
        drop(held);
        assert!(places.taken.is_empty(), "{places:?}");
    }

    #[tokio::test]
    async fn sources_take_turns_however_many_of_each_wait() {
        let queue = LoginQueue::new(1, 512);
        let present = queue.next(source(1)).await.unwrap();
        let mut crowd: Vec<_> = (0..100).map(|_| Box::pin(queue.next(source(1)))).collect();
        for one in &mut crowd {
            assert!(poll!(one).is_pending());
        }
        let mut other = pin!(queue.next(source(2)));
        assert!(poll!(&mut other).is_pending());
        drop(present);
        // The first of the crowd was there before; the second was not.
        let first = crowd.remove(0).await.unwrap();
        for one in &mut crowd {
            assert!(poll!(one).is_pending());
        }
        assert!(poll!(&mut other).is_pending());
        drop(first);
        drop(other.await.unwrap());
        for one in crowd {
            drop(one.await.unwrap());
        }
        // Who leaves while waiting leaves nothing behind.
        let present = queue.next(source(1)).await.unwrap();
        {
            let mut leaving = pin!(queue.next(source(1)));
            assert!(poll!(&mut leaving).is_pending());
        }
        drop(present);
        queue.next(source(1)).await.unwrap();
        assert!(queue.places.taken.is_empty());
    }
}
