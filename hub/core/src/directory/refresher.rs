//! Keeps the directory current. A tail of the control topic says when the directory changed, and a poll finds what the tail missed. Callers that must not
//! decide by stale data read the generation from the store first.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::snapshot::{Directory, DirectoryStore, Snapshot};
use crate::{
    fault::Fault,
    kit::attempts::Attempts,
    log::bus::{Bus, BusError, TopicName},
};

/// The poll with agents connected, and without.
const POLL_BUSY: Duration = Duration::from_secs(4);
const POLL_IDLE: Duration = Duration::from_secs(60);
/// After a failure: the log or PostgreSQL does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// How long the store is not asked again for a generation that it did not have: a database that was restored has an older one than
/// tokens that were issued before say, and those must not cost a query each.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// [Looks](Refresher::looked) at the store begin so far apart, however many ask for one.
pub const LOOKS_APART: Duration = Duration::from_millis(250);

/// Reloads the directory when its generation rose.
pub struct Refresher {
    directory: Directory,
    store: Arc<dyn DirectoryStore>,
    loading: Attempts<()>,
    /// The lowest generation that the store was asked for and did not have, and when.
    unmet: Attempts<Option<(u64, Instant)>>,
    looks: Attempts<Looks>,
    loaded: AtomicBool,
    /// Since when the store has not answered, or could not be read, and why.
    failing: std::sync::Mutex<Option<(Instant, String)>>,
    connected: Arc<AtomicUsize>,
}

/// When looks at the store began.
#[derive(Debug, Default)]
struct Looks {
    /// The last one.
    begun: Option<Instant>,
    /// The last one that was answered.
    answered: Option<Instant>,
}

/// One call that is open.
#[derive(Debug)]
pub struct Connected(Arc<AtomicUsize>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Refresher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refresher").field("generation", &self.directory.snapshot().generation).finish_non_exhaustive()
    }
}

impl Refresher {
    /// For a directory that was not loaded yet.
    #[must_use]
    pub fn new(directory: Directory, store: Arc<dyn DirectoryStore>) -> Self {
        Self {
            directory,
            store,
            loading: Attempts::default(),
            unmet: Attempts::default(),
            looks: Attempts::default(),
            loaded: AtomicBool::new(false),
            failing: std::sync::Mutex::default(),
            connected: Arc::default(),
        }
    }

    /// The directory that is kept current.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Whether it was ever loaded.
    #[must_use]
    pub fn loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Someone is connected while this lives.
    pub(crate) fn connect(&self) -> Connected {
        self.connected.fetch_add(1, Ordering::Relaxed);
        Connected(self.connected.clone())
    }

    /// The snapshot, after reading the generation: for token exchanges and new sessions.
    pub async fn current(&self) -> Result<Arc<Snapshot>, Fault> {
        let loaded = match self.store.generation().await {
            Ok(generation) => self.load(generation).await,
            Err(fault) => Err(fault),
        };
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match &loaded {
            Ok(_) => *failing = None,
            Err(fault) => {
                let since = failing.as_ref().map_or_else(Instant::now, |(since, _)| *since);
                *failing = Some((since, fault.message.clone()));
            }
        }
        loaded
    }

    /// For how long no attempt to bring the directory up to date has worked, and why the last one did not. Suspensions and removed keys of
    /// that time are not known here.
    #[must_use]
    pub fn stale(&self) -> Option<(Duration, String)> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.as_ref().map(|(since, why)| (since.elapsed(), why.clone()))
    }

    /// A snapshot of this generation or a later one, where the store has it: what a token says, it says of the time of its issue. One
    /// that it does not have is asked for once a second.
    pub async fn at_least(&self, generation: u64) -> Result<Arc<Snapshot>, Fault> {
        if !self.is_older(generation) {
            return Ok(self.directory.snapshot());
        }
        let mut unmet = self.unmet.next().await?;
        let recent = unmet.last.filter(|(_, asked)| self.loaded() && asked.elapsed() < ASK_AGAIN);
        if !self.is_older(generation) || recent.is_some_and(|(lowest, _)| lowest <= generation) {
            return Ok(self.directory.snapshot());
        }
        let snapshot = unmet.ended(self.current().await)?;
        if snapshot.generation < generation {
            unmet.last = Some((generation, Instant::now()));
        }
        Ok(snapshot)
    }

    /// The snapshot, after reading the generation at some moment after this was called: for what this replica does not know, and anybody may invent.
    /// All who ask meanwhile share that reading, and the next one waits a little, so that a crowd costs the store no more than one caller does.
    pub async fn looked(&self) -> Result<Arc<Snapshot>, Fault> {
        let called = Instant::now();
        let mut looks = self.looks.next().await?;
        if looks.last.answered.is_some_and(|begun| begun > called) {
            return Ok(self.directory.snapshot());
        }
        if let Some(begun) = looks.last.begun {
            tokio::time::sleep_until(begun + LOOKS_APART).await;
        }
        let begun = Instant::now();
        // Before the answer: who leaves meanwhile has asked all the same.
        looks.last.begun = Some(begun);
        let snapshot = looks.ended(self.current().await)?;
        looks.last.answered = Some(begun);
        Ok(snapshot)
    }

    async fn load(&self, generation: u64) -> Result<Arc<Snapshot>, Fault> {
        if !self.is_older(generation) {
            return Ok(self.directory.snapshot());
        }
        let mut attempt = self.loading.next().await?;
        if self.is_older(generation) {
            let snapshot = attempt.ended(self.store.load().await)?;
            tracing::info!(generation = snapshot.generation, agents = snapshot.agents().count(), "directory loaded");
            self.directory.replace(snapshot);
            self.loaded.store(true, Ordering::Release);
        }
        Ok(self.directory.snapshot())
    }

    fn is_older(&self, generation: u64) -> bool {
        !self.loaded() || self.directory.snapshot().generation < generation
    }

    /// Follows the control topic and polls, until stopped.
    pub async fn run(&self, bus: Arc<dyn Bus>, control: TopicName, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.poll() => {}
            () = self.follow(bus, control) => {}
        }
    }

    async fn poll(&self) {
        let mut idle = Duration::ZERO;
        loop {
            let pause = jittered(POLL_BUSY);
            tokio::time::sleep(pause).await;
            idle += pause;
            // Asking nobody costs nothing: whoever connects in between is known at the next turn.
            if self.connected.load(Ordering::Relaxed) == 0 && idle < POLL_IDLE && self.stale().is_none() {
                continue;
            }
            idle = Duration::ZERO;
            if let Err(fault) = self.current().await {
                tracing::warn!(%fault, "directory not refreshed");
            }
        }
    }

    async fn follow(&self, bus: Arc<dyn Bus>, control: TopicName) {
        loop {
            if let Err(error) = self.follow_once(&*bus, &control).await {
                tracing::warn!(%error, topic = %control, "control topic not followed, trying again");
            }
            tokio::time::sleep(jittered(RETRY)).await;
        }
    }

    /// The record itself is only a hint: what it announces is read from the store.
    async fn follow_once(&self, bus: &dyn Bus, control: &TopicName) -> Result<(), BusError> {
        let ends: Vec<_> = bus.bounds(control).await?.into_iter().map(|bounds| bounds.next).collect();
        let mut tail = bus.tail(control, &ends).await?;
        // What was announced between the load at start and the tail's first position.
        let mut announced = true;
        loop {
            if announced && let Err(fault) = self.current().await {
                tracing::warn!(%fault, "directory not refreshed");
            }
            match tail.next().await {
                Some(batch) => announced = !batch?.records.is_empty(),
                None => return Ok(()),
            }
        }
    }
}

/// Between 3/4 and 5/4 of the period, so that hubs don't ask at the same moment.
#[must_use]
pub fn jittered(period: Duration) -> Duration {
    let mut byte = [128_u8];
    // Without randomness the period is kept as it is.
    let _ = getrandom::fill(&mut byte);
    period.mul_f64(0.75 + f64::from(byte[0]) / 510.0)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;

    /// Counts what it is asked.
    #[derive(Default)]
    struct Counting {
        generation: AtomicUsize,
        asked: AtomicUsize,
        loads: AtomicUsize,
    }

    #[async_trait]
    impl DirectoryStore for Counting {
        async fn generation(&self) -> Result<u64, Fault> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            Ok(self.generation.load(Ordering::Relaxed) as u64)
        }

        async fn load(&self) -> Result<Snapshot, Fault> {
            self.loads.fetch_add(1, Ordering::Relaxed);
            Ok(Snapshot::new(self.generation.load(Ordering::Relaxed) as u64, Vec::new(), Vec::new()))
        }
    }

    #[tokio::test]
    async fn a_generation_that_the_store_lacks_is_asked_for_once_a_second() {
        let store = Arc::new(Counting { generation: AtomicUsize::new(5), ..Counting::default() });
        let refresher = Refresher::new(Directory::default(), store.clone());
        let asked = || store.asked.load(Ordering::Relaxed);
        let began = Instant::now();
        for _ in 0..1000 {
            assert_eq!(refresher.at_least(90).await.unwrap().generation, 5);
        }
        // However slow this machine is.
        let most = 1 + usize::try_from(began.elapsed().as_secs()).unwrap();
        assert!(asked() <= most, "{} questions", asked());
        assert_eq!(store.loads.load(Ordering::Relaxed), 1);
        // What another replica issued a token for meanwhile is there at once.
        store.generation.store(6, Ordering::Relaxed);
        assert_eq!(refresher.at_least(6).await.unwrap().generation, 6);
        let before = asked();
        while asked() == before {
            assert!(began.elapsed() < Duration::from_secs(20), "never asked again");
            tokio::time::sleep(Duration::from_millis(20)).await;
            refresher.at_least(90).await.unwrap();
        }
        assert_eq!(store.loads.load(Ordering::Relaxed), 2, "the generation alone is cheap");
    }

    #[tokio::test(start_paused = true)]
    async fn who_looks_sees_what_was_there_before_it_asked_and_a_crowd_shares_its_looks() {
        let store = Arc::new(Counting { generation: AtomicUsize::new(1), ..Counting::default() });
        let refresher = Arc::new(Refresher::new(Directory::default(), store.clone()));
        let began = Instant::now();
        refresher.looked().await.unwrap();
        for generation in 2..=8 {
            store.generation.store(generation, Ordering::Relaxed);
            let crowd = (0..1000).map(|_| refresher.looked());
            for snapshot in futures::future::join_all(crowd).await {
                assert_eq!(snapshot.unwrap().generation, generation as u64);
            }
        }
        assert_eq!(began.elapsed(), LOOKS_APART * 7, "each crowd waits once");
        assert_eq!(store.asked.load(Ordering::Relaxed), 8);
        // Nor does it cost more where each of a crowd leaves before its answer.
        for _ in 0..1000 {
            drop(tokio::time::timeout(Duration::from_millis(1), refresher.looked()).await);
        }
        let most = 8 + 1000 / 250 + 1;
        assert!(store.asked.load(Ordering::Relaxed) <= most, "{} questions", store.asked.load(Ordering::Relaxed));
    }

    /// Says after 5 s that it does not answer.
    struct Silent;

    #[async_trait]
    impl DirectoryStore for Silent {
        async fn generation(&self) -> Result<u64, Fault> {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Err(Fault::unavailable("SILENT", "it does not answer"))
        }

        async fn load(&self) -> Result<Snapshot, Fault> {
            self.generation().await.map(|_| Snapshot::default())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_wait_for_a_store_that_is_away_together_and_not_in_turn() {
        let refresher = Arc::new(Refresher::new(Directory::default(), Arc::new(Silent)));
        let began = Instant::now();
        let callers = (1..=100).map(|generation| refresher.at_least(generation));
        for outcome in futures::future::join_all(callers).await {
            assert_eq!(outcome.unwrap_err().reason, "SILENT");
        }
        assert_eq!(began.elapsed(), Duration::from_secs(5));
    }

    /// Answers, and can't be read, while it is damaged.
    #[derive(Default)]
    struct Damaged(AtomicBool);

    #[async_trait]
    impl DirectoryStore for Damaged {
        async fn generation(&self) -> Result<u64, Fault> {
            Ok(if self.0.load(Ordering::Relaxed) { 2 } else { 1 })
        }

        async fn load(&self) -> Result<Snapshot, Fault> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(Fault::unavailable("DAMAGED", "it can't be read")),
                false => Ok(Snapshot::new(1, Vec::new(), Vec::new())),
            }
        }
    }

    #[tokio::test]
    async fn a_directory_that_can_not_be_brought_up_to_date_says_since_when_and_why() {
        let store = Arc::new(Damaged::default());
        let refresher = Refresher::new(Directory::default(), store.clone());
        refresher.current().await.unwrap();
        assert_eq!(refresher.stale(), None);
        store.0.store(true, Ordering::Relaxed);
        refresher.current().await.unwrap_err();
        let (first, why) = refresher.stale().unwrap();
        assert_eq!(why, "it can't be read");
        tokio::time::sleep(Duration::from_millis(20)).await;
        refresher.current().await.unwrap_err();
        let (age, _) = refresher.stale().unwrap();
        assert!(age >= first + Duration::from_millis(20), "from the first failure on: {age:?}");
        store.0.store(false, Ordering::Relaxed);
        refresher.current().await.unwrap();
        assert_eq!(refresher.stale(), None);
    }
}
