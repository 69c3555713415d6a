//! What one call turned out to be about: for its audit record. Whoever carries the call out fills it.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{agent::AgentId, source::Source};

/// The trail of one call. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Trail(Arc<Mutex<Facts>>);

/// What is known of a call so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The agent that called: its UID and name.
    pub agent: Option<(AgentId, String)>,
    /// The prefix of the API key that was shown, or the name of what the token came from.
    pub key: Option<String>,
    /// What the call is about, such as `context 0190…`.
    pub object: Option<String>,
    /// Which version of it the call made, or gave.
    pub version: Option<u64>,
    /// How much of it was read or written.
    pub bytes: u64,
    /// Tokens were revoked, whatever the caller hears.
    pub revoked: bool,
}

impl Trail {
    /// The agent that a credential turned out to be of.
    pub fn agent(&self, id: AgentId, name: &str) {
        self.lock().agent = Some((id, name.to_owned()));
    }

    /// The prefix of the API key that was shown.
    pub fn key(&self, prefix: &str) {
        self.lock().key = Some(prefix.to_owned());
    }

    /// What a token came from.
    pub fn source(&self, source: &Source) {
        self.lock().key = Some(source.name());
    }

    /// What the call is about, such as `context 0190…`.
    pub fn object(&self, kind: &str, id: impl Display) {
        self.lock().object = Some(format!("{kind} {id}"));
    }

    /// Which version of its object the call made, or gave.
    pub fn version(&self, version: u64) {
        self.lock().version = Some(version);
    }

    /// Tokens of the agent were revoked, for this.
    pub fn revoked(&self, why: &str) {
        let mut facts = self.lock();
        (facts.revoked, facts.object) = (true, Some(format!("tokens revoked: {why}")));
    }

    /// So much more was read or written.
    pub fn bytes(&self, bytes: u64) {
        let mut facts = self.lock();
        facts.bytes = facts.bytes.saturating_add(bytes);
    }

    /// All that is known.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
