//! Who is in the tenant: a snapshot of what the operator projected, replaced as a whole when its generation rises.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};
use tokio::sync::watch;

use super::{
    agent::{Agent, AgentId, Role},
    issuer::Issuer,
    limits::{Limits, OperationLimits},
    membership::Membership,
    schema::PayloadSchema,
    source::Source,
    trusted_issuer::TrustedIssuer,
};
use crate::fault::{Code, Fault};

/// A context type.
#[derive(Clone, Debug, PartialEq)]
pub struct ContextType {
    /// The most that a payload may have inline.
    pub max_bytes: usize,
    /// What payloads must meet.
    pub schema: Option<Arc<PayloadSchema>>,
}

/// An API key that is there, by what is no secret of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownKey {
    /// Whose it is.
    pub agent: AgentId,
    /// Until when; `None`: until it is removed.
    pub expires_at: Option<OffsetDateTime>,
}

/// A Kubernetes ServiceAccount that proves an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAccount {
    /// Whom it proves.
    pub agent: AgentId,
    /// The UID that it has now.
    pub uid: String,
}

/// Everything that was projected for the tenant, at one generation.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Rises with every change.
    pub generation: u64,
    /// Whether the whole tenant is refused.
    pub suspended: bool,
    /// Whether agents may register others.
    pub open_registration: bool,
    /// What all agents together may use.
    pub limits: Limits,
    /// What each agent may ask for in a minute.
    pub operation_limits: Arc<OperationLimits>,
    /// Its context types, by name.
    pub context_types: HashMap<String, ContextType>,
    /// Under which tokens are issued. Those of another one have ended.
    pub credential_epoch: u64,
    /// Its API keys, by prefix.
    pub api_keys: HashMap<String, KnownKey>,
    /// Who issues the tokens of ServiceAccounts; `None` where no agent proves itself with one.
    pub issuer: Option<Arc<Issuer>>,
    /// The ServiceAccounts that prove agents, as `<namespace>/<name>`.
    pub accounts: HashMap<String, KnownAccount>,
    /// The OpenID Connect issuers that the tenant trusts, by their URLs.
    pub trusted_issuers: HashMap<String, Arc<TrustedIssuer>>,
    /// By how much the clock of the store is ahead of this machine's. Agents and memberships begin by that.
    pub ahead: Duration,
    agents: HashMap<AgentId, Arc<Agent>>,
    by_name: HashMap<String, AgentId>,
    members: HashMap<String, Vec<Membership>>,
    /// Who registered those that have no Agent resource.
    registered: HashMap<AgentId, AgentId>,
}

impl Snapshot {
    /// A snapshot of these agents and memberships.
    #[must_use]
    pub fn new(generation: u64, agents: Vec<Agent>, memberships: Vec<Membership>) -> Self {
        let mut snapshot = Self { generation, ..Self::default() };
        for agent in agents {
            snapshot.by_name.insert(agent.name.clone(), agent.id);
            snapshot.agents.insert(agent.id, Arc::new(agent));
        }
        for membership in memberships {
            snapshot.members.entry(membership.group.clone()).or_default().push(membership);
        }
        snapshot
    }

    /// Adds agents, each with the one that registered it. One whose name an Agent resource has is passed over.
    #[must_use]
    pub fn with_registered(mut self, registered: Vec<(Agent, AgentId)>) -> Self {
        for (agent, by) in registered {
            if !self.by_name.contains_key(&agent.name) {
                self.registered.insert(agent.id, by);
                self.by_name.insert(agent.name.clone(), agent.id);
                self.agents.insert(agent.id, Arc::new(agent));
            }
        }
        self
    }

    /// Who registered this agent; `None` for one with an Agent resource.
    #[must_use]
    pub fn registered_by(&self, id: AgentId) -> Option<&Arc<Agent>> {
        self.agent(*self.registered.get(&id)?)
    }

    /// On whose account an agent sends: its own, or that of who registered it. Otherwise an agent would have its limits once more with each that it
    /// registers.
    #[must_use]
    pub fn account(&self, id: AgentId) -> Option<&Arc<Agent>> {
        self.registered_by(id).or_else(|| self.agent(id))
    }

    /// Everybody who is on the account of this agent: itself, and those that it registered.
    #[must_use]
    pub fn on_account(&self, id: AgentId) -> Vec<AgentId> {
        let registered = self.registered.iter().filter(|(_, by)| **by == id).map(|(agent, _)| *agent);
        std::iter::once(id).chain(registered).collect()
    }

    /// What the clock of the store shows when this machine's shows `here`.
    #[must_use]
    pub fn by_store_clock(&self, here: OffsetDateTime) -> OffsetDateTime {
        here.saturating_add(self.ahead)
    }

    /// By UID.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<&Arc<Agent>> {
        self.agents.get(&id)
    }

    /// An agent that may act now. Long-lived operations must ask again: their agent may be removed or suspended while they run.
    pub fn acting(&self, id: AgentId) -> Result<&Arc<Agent>, Fault> {
        self.agent(id).filter(|agent| !agent.suspended && !self.suspended).ok_or_else(|| {
            let why = "the agent was removed or suspended: ask the tenant's administrator";
            Fault::new(Code::Unauthenticated, "AGENT_GONE", why)
        })
    }

    /// The same, with no more rights than its call was let in with: the token may have lowered its role.
    pub fn acting_as(&self, id: AgentId, role: Role) -> Result<Arc<Agent>, Fault> {
        let agent = self.acting(id)?;
        Ok(agent.lowered(role).map_or_else(|| agent.clone(), Arc::new))
    }

    /// Whether this API key is the agent's, and valid.
    #[must_use]
    pub fn key_lives(&self, agent: AgentId, prefix: &str, now: OffsetDateTime) -> bool {
        let key = self.api_keys.get(prefix);
        key.is_some_and(|key| key.agent == agent && key.expires_at.is_none_or(|at| now < at))
    }

    /// Whether what a token of the agent came from still proves the agent.
    #[must_use]
    pub fn source_lives(&self, agent: AgentId, source: &Source, now: OffsetDateTime) -> bool {
        match source {
            Source::ApiKey(prefix) => self.key_lives(agent, prefix, now),
            Source::Account(token) => {
                let is_issuers = self.issuer.as_ref().is_some_and(|issuer| issuer.is_named(&token.iss, now));
                let account = self.accounts.get(&token.account);
                is_issuers && account.is_some_and(|account| account.agent == agent && account.uid == token.uid)
            }
            Source::Oidc(token) => self.trusted_issuers.get(&token.iss).is_some_and(|issuer| issuer.digest() == token.terms),
        }
    }

    /// By name.
    #[must_use]
    pub fn agent_named(&self, name: &str) -> Option<&Arc<Agent>> {
        self.agents.get(self.by_name.get(name)?)
    }

    /// Everyone, in no order.
    pub fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.values()
    }

    /// Whether the group has a member, or had one while a message that still lives may have been sent to it.
    #[must_use]
    pub fn has_group(&self, group: &str) -> bool {
        self.members.contains_key(group)
    }

    /// Every membership of an agent, past ones too.
    pub fn memberships_of(&self, agent: AgentId) -> impl Iterator<Item = &Membership> {
        self.members.values().flatten().filter(move |membership| membership.agent == agent)
    }

    /// Memberships that an older snapshot does not know.
    pub fn joins_since<'a>(&'a self, older: &'a Snapshot) -> impl Iterator<Item = &'a Membership> {
        self.members.iter().flat_map(|(group, members)| {
            let known: HashSet<_> = older.memberships(group).iter().map(|member| (member.agent, member.joined_at)).collect();
            members.iter().filter(move |member| !known.contains(&(member.agent, member.joined_at)))
        })
    }

    /// Every membership of a group, past ones too.
    #[must_use]
    pub fn memberships(&self, group: &str) -> &[Membership] {
        self.members.get(group).map_or(&[], Vec::as_slice)
    }
}

/// Reads what was projected.
#[async_trait]
pub trait DirectoryStore: Send + Sync + 'static {
    /// The current generation alone: cheap.
    async fn generation(&self) -> Result<u64, Fault>;
    /// Everything.
    async fn load(&self) -> Result<Snapshot, Fault>;
}

/// The current snapshot, shared by everything that decides.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    current: Arc<watch::Sender<Arc<Snapshot>>>,
}

impl Directory {
    /// A directory that starts with this snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: Arc::new(watch::Sender::new(Arc::new(snapshot))) }
    }

    /// The snapshot to decide one request by.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// Sees every later snapshot, or at least the last.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Replaces it, unless it is older.
    pub fn replace(&self, snapshot: Snapshot) {
        self.current.send_if_modified(|current| {
            let newer = snapshot.generation >= current.generation;
            if newer {
                *current = Arc::new(snapshot);
            }
            newer
        });
    }
}
