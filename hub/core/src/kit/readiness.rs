//! What a hub waits for before it takes agents.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::watch, time::Instant};

/// The parts that must be there, and what each is waiting for. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<BTreeMap<&'static str, Option<String>>>);

impl Readiness {
    /// Every part waits to be looked at.
    #[must_use]
    pub fn new(parts: &[&'static str]) -> Self {
        let waiting = parts.iter().map(|part| (*part, Some("not looked at yet".to_owned()))).collect();
        Self(watch::Sender::new(waiting))
    }

    /// The part is there.
    pub fn ready(&self, part: &'static str) {
        self.set(part, None);
    }

    /// The part is missing: says what is waited for, and where it was looked for.
    pub fn waiting(&self, part: &'static str, what: impl Into<String>) {
        self.set(part, Some(what.into()));
    }

    fn set(&self, part: &'static str, state: Option<String>) {
        self.0.send_if_modified(|parts| {
            let changed = parts.get(part) != Some(&state);
            if changed {
                match &state {
                    None => tracing::info!(part, "ready"),
                    Some(what) => tracing::warn!(part, waiting_for = what, "not ready"),
                }
                parts.insert(part, state);
            }
            changed
        });
    }

    /// What is missing now; empty: ready.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        self.0.borrow().iter().filter_map(|(part, state)| Some((*part, state.clone()?))).collect()
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.borrow().values().all(Option::is_none)
    }

    /// Tells of changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<BTreeMap<&'static str, Option<String>>> {
        self.0.subscribe()
    }
}

/// When a part last answered. A single lost answer is no outage.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    answered_at: Instant,
    patience: Duration,
}

impl Liveness {
    /// Of a part that has just answered, and is missing once it has not for longer than `patience`.
    #[must_use]
    pub fn new(now: Instant, patience: Duration) -> Self {
        Self { answered_at: now, patience }
    }

    /// It answered.
    pub fn answered(&mut self, now: Instant) {
        self.answered_at = now;
    }

    /// Whether it has been silent for too long.
    #[must_use]
    pub fn silent(&self, now: Instant) -> bool {
        now.duration_since(self.answered_at) >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_missing_after_its_patience_and_there_at_its_next_answer() {
        let began = Instant::now();
        let after = |seconds| began + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(began, Duration::from_secs(10));
        assert!(!liveness.silent(after(9)));
        assert!(liveness.silent(after(10)));
        liveness.answered(after(11));
        assert!(!liveness.silent(after(20)));
        assert!(liveness.silent(after(21)));
    }

    #[test]
    fn every_part_counts() {
        let readiness = Readiness::new(&["a", "b"]);
        readiness.ready("a");
        assert_eq!(readiness.missing().len(), 1);
        assert!(!readiness.is_ready());
        readiness.ready("b");
        assert!(readiness.is_ready());
        readiness.waiting("a", "gone");
        assert_eq!(readiness.missing(), [("a", "gone".to_owned())]);
    }
}
