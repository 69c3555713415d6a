//! One snapshot of Kafka for the looks at all tenancies: asked for one tenant, Kafka lists the topics of all. At most one is read at a time,
//! and who changed something since it was begun is not told what was there before.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::Mutex as Turn, time::timeout};

use super::{EffectError, kafka_snapshot::Snapshot};

/// A snapshot serves for so many times as long as it took: reading takes a hundredth of the time, where there is much to read.
const TIMES: u32 = 100;
/// At least, and at most: drift is looked for every ten minutes, and is found little later for it.
const SERVES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// What was not to be had a moment ago is not asked for by every tenancy in turn.
const FAILED_FOR: Duration = Duration::from_secs(1);
/// Each request has a bound, and there may be many.
const WITHIN: Duration = Duration::from_secs(30);

type Found = Result<Arc<Snapshot>, EffectError>;

#[derive(Clone, Debug)]
struct Taken {
    begun: Instant,
    until: Instant,
    found: Found,
}

/// What becomes of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// The snapshot has the answer.
    Serves,
    /// Another is to be taken.
    TakeAnew,
    /// It was begun before the looking tenancy last wrote: that one reads for itself.
    ReadOwn,
}

impl Taken {
    /// `wrote`: when what is looked for was last changed; `outdated`: when everything was, or will be.
    fn look(&self, wrote: Option<Instant>, outdated: [Option<Instant>; 2], now: Instant) -> Look {
        let is_before = |change: Option<Instant>| change.is_some_and(|change| self.begun <= change && change <= now);
        if now >= self.until || outdated.into_iter().any(is_before) {
            Look::TakeAnew
        } else if self.found.is_ok() && is_before(wrote) {
            Look::ReadOwn
        } else {
            Look::Serves
        }
    }
}

#[derive(Debug, Default)]
struct Writes {
    /// When a user, or what is under a prefix, was last changed. What is older than the snapshot is forgotten.
    of: BTreeMap<String, Instant>,
    /// When anything may have been changed by others.
    everything: Option<Instant>,
}

/// The snapshot, for one leader's term: what an earlier leader wrote is in none of its snapshots too early.
#[derive(Debug, Default)]
pub struct SharedSnapshot {
    /// As [`outdate`](Self::outdate), known from the beginning.
    outdated_at: Option<Instant>,
    taken: Turn<Option<Taken>>,
    writes: Mutex<Writes>,
}

/// A change that is under way. What was read before its end serves nobody whose it is.
#[derive(Debug)]
pub(super) struct Writing<'a> {
    shared: &'a SharedSnapshot,
    whose: Vec<String>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let mut writes = self.shared.writes();
        writes.of.extend(self.whose.drain(..).map(|whose| (whose, now)));
    }
}

impl SharedSnapshot {
    /// What is read before that time serves nobody after it.
    #[must_use]
    pub fn outdated_at(time: Instant) -> Self {
        Self { outdated_at: Some(time), ..Self::default() }
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is about to be changed: of these users, and under these prefixes.
    pub(super) fn writing<'a>(&self, whose: impl Iterator<Item = &'a str>) -> Writing<'_> {
        let mut whose: Vec<String> = whose.map(str::to_owned).collect();
        whose.dedup();
        Writing { shared: self, whose }
    }

    /// Others may have changed anything: what was read before now serves nobody.
    pub fn outdate(&self) {
        self.writes().everything = Some(Instant::now());
    }

    /// The snapshot, for a look at what this user has and what is under this prefix; `None`: that is to be read by itself. `take` reads
    /// another snapshot, where there is none that serves.
    pub(super) async fn get<F>(&self, whose: [&str; 2], take: impl FnOnce() -> F) -> Option<Found>
    where
        F: Future<Output = Result<Snapshot, EffectError>>,
    {
        // Who waits here is served by what is read meanwhile.
        let mut taken = self.taken.lock().await;
        if self.look(taken.as_ref(), whose) == Look::TakeAnew {
            let begun = Instant::now();
            let late = || EffectError::unavailable("Kafka", format!("what it holds was not listed in {} s", WITHIN.as_secs()));
            let found = timeout(WITHIN, take()).await.unwrap_or_else(|_| Err(late())).map(Arc::new);
            let serves = if found.is_ok() { (begun.elapsed() * TIMES).clamp(SERVES.0, SERVES.1) } else { FAILED_FOR };
            self.writes().of.retain(|_, change| *change >= begun);
            *taken = Some(Taken { begun, until: Instant::now() + serves, found });
        }
        let serves = self.look(taken.as_ref(), whose) != Look::ReadOwn;
        taken.as_ref().filter(|_| serves).map(|taken| taken.found.clone())
    }

    fn look(&self, taken: Option<&Taken>, whose: [&str; 2]) -> Look {
        let writes = self.writes();
        let wrote = whose.iter().filter_map(|whose| writes.of.get(*whose)).max().copied();
        let outdated = [writes.everything, self.outdated_at];
        taken.map_or(Look::TakeAnew, |taken| taken.look(wrote, outdated, Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::sleep;

    use super::*;

    const ACME: [&str; 2] = ["acb_t_1", "acb.acme."];
    const GLOBEX: [&str; 2] = ["acb_t_2", "acb.globex."];

    #[derive(Default)]
    struct Broker {
        asked: AtomicU32,
        is_away: bool,
    }

    impl Broker {
        async fn take(&self) -> Result<Snapshot, EffectError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(5)).await;
            if self.is_away { Err(EffectError::unavailable("Kafka", "away")) } else { Ok(Snapshot::default()) }
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn it_serves_until_its_end_and_nobody_who_wrote_since_it_was_begun() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let taken = Taken { begun, until: at(10), found: Ok(Arc::default()) };
        let never = [None, None];
        assert_eq!(taken.look(None, never, at(9)), Look::Serves);
        assert_eq!(taken.look(None, never, at(10)), Look::TakeAnew);
        // What was changed while it was read may not be in it.
        assert_eq!(taken.look(Some(at(1)), never, at(9)), Look::ReadOwn);
        assert_eq!(taken.look(Some(begun), never, at(9)), Look::ReadOwn);
        assert_eq!(taken.look(Some(at(1)), never, at(10)), Look::TakeAnew);
        for outdated in [[Some(at(5)), None], [None, Some(at(5))]] {
            assert_eq!(taken.look(None, outdated, at(4)), Look::Serves, "until then");
            assert_eq!(taken.look(None, outdated, at(5)), Look::TakeAnew);
        }
        let failed = Taken { found: Err(EffectError::unavailable("Kafka", "away")), ..taken };
        assert_eq!(failed.look(Some(at(1)), never, at(9)), Look::Serves, "nobody reads for itself from a Kafka that is away");
    }

    #[tokio::test]
    async fn many_looks_are_one_reading() {
        let (shared, broker) = (SharedSnapshot::default(), Broker::default());
        let looks = (0..50).map(|n| shared.get(if n % 2 == 0 { ACME } else { GLOBEX }, || broker.take()));
        for found in futures::future::join_all(looks).await {
            found.unwrap().unwrap();
        }
        assert_eq!(broker.asked(), 1);
    }

    #[tokio::test]
    async fn a_writer_is_not_served_by_what_was_read_before_and_others_are() {
        let (shared, broker) = (SharedSnapshot::default(), Broker::default());
        shared.get(ACME, || broker.take()).await.unwrap().unwrap();
        drop(shared.writing([ACME[1]].into_iter()));
        assert!(shared.get(ACME, || broker.take()).await.is_none(), "it reads for itself");
        shared.get(GLOBEX, || broker.take()).await.unwrap().unwrap();
        assert_eq!(broker.asked(), 1);
        // The next one has it.
        shared.outdate();
        shared.get(ACME, || broker.take()).await.unwrap().unwrap();
        assert_eq!((broker.asked(), shared.writes().of.len()), (2, 0), "and what was older is forgotten");
    }

    #[tokio::test]
    async fn what_is_changed_while_it_is_read_is_not_taken_from_it() {
        let (shared, broker) = (SharedSnapshot::default(), Broker::default());
        let take = || async {
            drop(shared.writing([ACME[0]].into_iter()));
            broker.take().await
        };
        assert!(shared.get(ACME, take).await.is_none());
    }

    #[tokio::test]
    async fn a_failure_is_everyones_for_a_moment() {
        let (shared, broker) = (SharedSnapshot::default(), Broker { is_away: true, ..Broker::default() });
        for _ in 0..10 {
            let error = shared.get(ACME, || broker.take()).await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "Kafka is unavailable: away");
        }
        assert!(broker.asked() <= 2, "asked {} times", broker.asked());
    }

    #[tokio::test]
    async fn who_is_broken_off_while_it_reads_holds_up_nobody() {
        let (shared, broker) = (SharedSnapshot::default(), Broker::default());
        let stuck = shared.get(ACME, std::future::pending::<Result<Snapshot, EffectError>>);
        timeout(Duration::from_millis(20), stuck).await.unwrap_err();
        shared.get(ACME, || broker.take()).await.unwrap().unwrap();
    }
}
