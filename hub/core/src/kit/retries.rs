//! What failed lately, and when to try it again: later, and later still where it fails again.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    time::Duration,
};

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Retries<K> {
    pauses: (Duration, Duration),
    most: usize,
    waiting: HashMap<K, (Duration, Instant)>,
}

impl<K: Eq + Hash> Retries<K> {
    /// With the first pause and the longest. Remembers so many failures; further ones are tried again at once.
    pub(crate) fn new(pauses: (Duration, Duration), most: usize) -> Self {
        Self { pauses, most, waiting: HashMap::new() }
    }

    /// When to try again, where that is not yet.
    pub(crate) fn waits(&self, key: &K, now: Instant) -> Option<Instant> {
        self.waiting.get(key).map(|(_, due)| *due).filter(|due| now < *due)
    }

    /// It failed; gives when to try again.
    pub(crate) fn failed(&mut self, key: K, now: Instant) -> Instant {
        let pause = self.waiting.get(&key).map_or(self.pauses.0, |(pause, _)| (*pause * 2).min(self.pauses.1));
        if self.waiting.len() < self.most || self.waiting.contains_key(&key) {
            self.waiting.insert(key, (pause, now + pause));
        }
        now + pause
    }

    /// Whether a failure of it is remembered.
    pub(crate) fn knows(&self, key: &K) -> bool {
        self.waiting.contains_key(key)
    }

    /// It did not fail this time.
    pub(crate) fn forget(&mut self, key: &K) {
        self.waiting.remove(key);
    }

    /// Forgets all others.
    pub(crate) fn keep(&mut self, keys: &HashSet<K>) {
        self.waiting.retain(|key, _| keys.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(60 * 60));

    #[test]
    fn what_fails_again_waits_longer_and_is_forgotten_once_it_is_gone() {
        let (mut retries, id, now) = (Retries::new(RETRY, 1), 'a', Instant::now());
        let waits = |retries: &Retries<char>, at| retries.waits(&id, at).is_some();
        assert!(!waits(&retries, now));
        retries.failed(id, now);
        assert!(waits(&retries, now + RETRY.0 / 2) && !waits(&retries, now + RETRY.0));
        retries.failed(id, now);
        assert!(waits(&retries, now + RETRY.0) && !waits(&retries, now + RETRY.0 * 2));
        for _ in 0..20 {
            retries.failed(id, now);
        }
        assert!(!waits(&retries, now + RETRY.1));
        retries.failed('b', now);
        assert!(!retries.knows(&'b'), "no more than these are remembered");
        retries.keep(&HashSet::from([id]));
        assert!(waits(&retries, now));
        retries.keep(&HashSet::new());
        assert!(!waits(&retries, now));
    }
}
