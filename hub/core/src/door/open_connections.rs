//! On which connections calls are open.

use std::collections::HashMap;

use super::open_counts::OpenCounts;
use crate::directory::agent::AgentId;

/// Open calls, by the connection that they are on.
type Calls = HashMap<usize, u64>;

/// Connections with open calls: of all agents, and by whose account the calls are on.
#[derive(Debug, Default)]
pub(super) struct OpenConnections {
    all: Calls,
    accounts: HashMap<AgentId, Calls>,
}

impl OpenConnections {
    /// Of this account.
    pub(super) fn of(&self, account: AgentId) -> u64 {
        self.accounts.get(&account).map_or(0, count)
    }

    /// Of all.
    pub(super) fn all(&self) -> u64 {
        count(&self.all)
    }

    /// Whether any call is open on it, of this account and at all.
    pub(super) fn knows(&self, account: AgentId, connection: usize) -> (bool, bool) {
        let of_account = self.accounts.get(&account).is_some_and(|calls| calls.contains_key(&connection));
        (of_account, self.all.contains_key(&connection))
    }

    /// One more call.
    pub(super) fn open(&mut self, account: AgentId, connection: usize) {
        for calls in [&mut self.all, self.accounts.entry(account).or_default()] {
            let open = calls.entry(connection).or_default();
            *open = open.saturating_add(1);
        }
    }

    /// One less.
    pub(super) fn close(&mut self, account: AgentId, connection: usize) {
        end(&mut self.all, connection);
        if let Some(calls) = self.accounts.get_mut(&account) {
            end(calls, connection);
            if calls.is_empty() {
                self.accounts.remove(&account);
            }
        }
    }

    /// How many there are, of all and of those accounts that are `limited`.
    pub(super) fn counts(&self, limited: impl Fn(AgentId) -> bool) -> OpenCounts {
        let agents = self.accounts.iter().filter(|(account, _)| limited(**account));
        OpenCounts { all: self.all(), agents: agents.map(|(account, calls)| (*account, count(calls))).collect() }
    }
}

fn count(calls: &Calls) -> u64 {
    calls.len() as u64
}

fn end(calls: &mut Calls, connection: usize) {
    if let Some(open) = calls.get_mut(&connection) {
        *open = open.saturating_sub(1);
        if *open == 0 {
            calls.remove(&connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_connection_is_one_however_many_calls_and_agents_are_on_it() {
        let (a, b) = (AgentId(Uuid::from_u128(1)), AgentId(Uuid::from_u128(2)));
        let mut connections = OpenConnections::default();
        for (account, connection) in [(a, 1), (a, 1), (a, 2), (b, 1)] {
            connections.open(account, connection);
        }
        assert_eq!((connections.of(a), connections.of(b), connections.all()), (2, 1, 2));
        assert_eq!(
            (connections.knows(b, 2), connections.knows(b, 1), connections.knows(b, 3)),
            ((false, true), (true, true), (false, false))
        );
        assert_eq!(connections.counts(|account| account == a), OpenCounts { all: 2, agents: [(a, 2)].into() });
        connections.close(a, 1);
        assert_eq!(connections.of(a), 2, "another call is on it");
        for (account, connection) in [(a, 1), (a, 2), (b, 1)] {
            connections.close(account, connection);
        }
        assert_eq!((connections.all.len(), connections.accounts.len()), (0, 0));
    }
}
