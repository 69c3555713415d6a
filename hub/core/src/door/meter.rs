//! What each caller holds at one time: connections with open calls, and bytes of requests. The meter stands between the right to a call and its
//! handling, so that one caller can't use up what is there for all.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;

use super::origin::Origin;
use crate::{
    directory::{agent::AgentId, caller::Caller},
    fault::{Code, Fault},
    kit::budget::{Budget, Queue, Room},
};

const MIB: usize = 1024 * 1024;
/// What the requests of all agents hold at one time, and of one of them.
const AGENTS: usize = 64 * MIB;
const AGENT: usize = 16 * MIB;
/// The same of those who call without a token, by where they call from. Apart from the agents', whom strangers must not crowd out.
const STRANGERS: usize = 4 * MIB;
/// The same of one such source.
pub const STRANGER: usize = MIB;
/// Connections with open calls of one agent: on each of them a protocol holds a window.
const CONNECTIONS: usize = 64;

/// How long a request waits for room.
pub const WAIT: Duration = Duration::from_secs(5);

/// What the callers of one replica hold. Clones share it.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    agents: Budget,
    strangers: Budget,
    accounts: Mutex<HashMap<Who, Account>>,
}

/// Whose share a request counts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Agent(AgentId),
    Source(IpAddr),
}

#[derive(Debug)]
struct Account {
    share: Queue,
    /// Open calls on each of its connections.
    calls: HashMap<usize, usize>,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new(Budget::new(AGENTS), Budget::new(STRANGERS))
    }
}

impl Meter {
    /// One that counts the requests of agents, and of those who call without a token, on these budgets.
    #[must_use]
    pub fn new(agents: Budget, strangers: Budget) -> Self {
        Self(Arc::new(Shared { agents, strangers, accounts: Mutex::default() }))
    }

    /// A call of this caller, or of anybody at that place.
    pub fn enter(&self, caller: Option<&Caller>, origin: &Origin) -> Result<Metered, Fault> {
        if caller.is_none() && origin.crowded {
            return Err(Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_CALLS",
                "this connection has as many calls open as one may on which nobody has shown a token: try again when some have ended",
            ));
        }
        let who = caller.map_or(Who::Source(origin.source), |caller| Who::Agent(caller.agent.id));
        let mut accounts = self.0.lock();
        let account = accounts.entry(who).or_insert_with(|| {
            let share = match who {
                Who::Agent(_) => self.0.agents.share(AGENT),
                Who::Source(_) => self.0.strangers.share(STRANGER),
            };
            Account { share, calls: HashMap::new() }
        });
        let known = account.calls.len();
        if matches!(who, Who::Agent(_)) && known >= CONNECTIONS && !account.calls.contains_key(&origin.connection) {
            return Err(Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_CONNECTIONS",
                format!("the agent has calls open on {known} connections to this replica: end some, or call over one of them"),
            ));
        }
        *account.calls.entry(origin.connection).or_default() += 1;
        let (shared, connection, share) = (self.0.clone(), origin.connection, account.share.clone());
        Ok(Metered(Arc::new(OneCall { shared, who, connection, share })))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Who, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open call of an account, as long as a clone of it lives.
#[derive(Clone, Debug)]
pub struct Metered(Arc<OneCall>);

#[derive(Debug)]
struct OneCall {
    shared: Arc<Shared>,
    who: Who,
    connection: usize,
    share: Queue,
}

impl Metered {
    /// Whether nobody has shown who calls.
    #[must_use]
    pub fn is_strangers(&self) -> bool {
        matches!(self.0.who, Who::Source(_))
    }

    /// Waits for room for a request, for a while.
    pub async fn room(&self, bytes: usize) -> Result<Room, Fault> {
        timeout(WAIT, self.0.share.wait(bytes)).await.map_err(|_| {
            let whose = match self.0.who {
                Who::Agent(_) => "this agent",
                Who::Source(_) => "this address",
            };
            let why = format!(
                "requests of {whose}, or of all callers, hold as many bytes as they may on this replica: try again when some have ended"
            );
            Fault::new(Code::ResourceExhausted, "TOO_MANY_REQUEST_BYTES", why)
        })
    }
}

impl Drop for OneCall {
    fn drop(&mut self) {
        let mut accounts = self.shared.lock();
        let Some(account) = accounts.get_mut(&self.who) else { return };
        if let Some(calls) = account.calls.get_mut(&self.connection) {
            *calls -= 1;
            if *calls == 0 {
                account.calls.remove(&self.connection);
            }
        }
        if account.calls.is_empty() {
            accounts.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use time::OffsetDateTime;

    use super::*;
    use crate::{directory::agent::Role, door::access_token::tests::agent};

    fn at(connection: usize) -> Origin {
        Origin { connection, source: Ipv4Addr::LOCALHOST.into(), ..Origin::default() }
    }

    #[test]
    fn an_agent_calls_over_so_many_connections_and_over_another_one_when_one_is_free() {
        let meter = Meter::default();
        let caller = Caller { agent: agent(Role::Full).into(), expires_at: OffsetDateTime::now_utc(), key: None };
        let mut calls: Vec<_> = (0..CONNECTIONS).map(|number| meter.enter(Some(&caller), &at(number)).unwrap()).collect();
        assert_eq!(meter.enter(Some(&caller), &at(CONNECTIONS)).unwrap_err().reason, "TOO_MANY_CONNECTIONS");
        calls.push(meter.enter(Some(&caller), &at(0)).unwrap());
        calls.swap_remove(1);
        calls.push(meter.enter(Some(&caller), &at(CONNECTIONS)).unwrap());
        drop(calls);
        assert!(meter.0.lock().is_empty());
    }

    #[test]
    fn strangers_on_a_crowded_connection_are_refused_and_agents_are_not() {
        let (meter, crowded) = (Meter::default(), Origin { crowded: true, ..at(1) });
        assert_eq!(meter.enter(None, &crowded).unwrap_err().reason, "TOO_MANY_CALLS");
        let caller = Caller { agent: agent(Role::Full).into(), expires_at: OffsetDateTime::now_utc(), key: None };
        assert!(!meter.enter(Some(&caller), &crowded).unwrap().is_strangers());
        assert!(meter.enter(None, &at(1)).unwrap().is_strangers());
    }
}
