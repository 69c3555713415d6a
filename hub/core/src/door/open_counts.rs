//! How many streams, or connections, are open.

use std::collections::HashMap;

use crate::directory::agent::AgentId;

/// What is open of one kind: of all agents, and by whose account it is on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Of all.
    pub all: u64,
    /// Of each that has some.
    pub agents: HashMap<AgentId, u64>,
}

impl OpenCounts {
    /// Of this account.
    #[must_use]
    pub fn of(&self, account: AgentId) -> u64 {
        self.agents.get(&account).copied().unwrap_or(0)
    }

    /// One more.
    pub(super) fn open(&mut self, account: AgentId) {
        self.all = self.all.saturating_add(1);
        let open = self.agents.entry(account).or_default();
        *open = open.saturating_add(1);
    }

    /// One less.
    pub(super) fn close(&mut self, account: AgentId) {
        self.all = self.all.saturating_sub(1);
        if let Some(open) = self.agents.get_mut(&account) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.agents.remove(&account);
            }
        }
    }

    /// Those and these.
    pub(super) fn add(&mut self, other: Self) {
        self.all = self.all.saturating_add(other.all);
        for (account, open) in other.agents {
            let known = self.agents.entry(account).or_default();
            *known = known.saturating_add(open);
        }
    }

    /// The same, of those accounts alone that have several: most have one, and there may be thousands.
    #[must_use]
    pub fn of_several(&self) -> Self {
        let agents = self.agents.iter().filter(|(_, open)| **open > 1).map(|(account, open)| (*account, *open));
        Self { all: self.all, agents: agents.collect() }
    }
}
