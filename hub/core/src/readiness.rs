//! What a hub waits for before it takes agents.

use std::collections::BTreeMap;

use tokio::sync::watch;

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

    /// Tells of changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<BTreeMap<&'static str, Option<String>>> {
        self.0.subscribe()
    }
}
