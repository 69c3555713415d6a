//! Who is in the tenant and who was seen: registration, heartbeats, discovery.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};

use super::{
    agent::{Agent, AgentId, Permission},
    caller::Caller,
    snapshot::Directory,
};
use crate::{
    fault::{Code, Fault},
    kit::{page, quoted::quoted},
};

/// Without a heartbeat for this long, an agent's status is unknown.
pub const SILENCE: Duration = Duration::seconds(90);
/// What hubs ask agents for: three may be lost.
pub const HEARTBEAT_SECONDS: u32 = 30;

const MAX_CRITERIA: usize = 32;

/// Whether an agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Seen within [`SILENCE`].
    Online,
    /// It said goodbye, or was never seen.
    Offline,
    /// It fell silent.
    Unknown,
}

/// When an agent was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Whether it is there, as it last said.
    pub online: bool,
    /// When it last said anything.
    pub last_seen_at: OffsetDateTime,
}

impl Presence {
    /// What that means now.
    #[must_use]
    pub fn status(&self, now: OffsetDateTime) -> Status {
        match self.online {
            false => Status::Offline,
            true if now - self.last_seen_at <= SILENCE => Status::Online,
            true => Status::Unknown,
        }
    }
}

/// What a registration says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Registration {
    /// Empty: the caller itself.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// Where it is.
    pub location: String,
}

/// Where presence is kept.
#[async_trait]
pub trait PresenceStore: Send + Sync + 'static {
    /// Notes that an agent is there, or said goodbye.
    async fn note(&self, agent: AgentId, online: bool) -> Result<(), Fault>;
    /// Those of the agents who were ever seen.
    async fn presence(&self, agents: &[AgentId]) -> Result<HashMap<AgentId, Presence>, Fault>;
}

/// What an agent is, and whether it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The agent.
    pub agent: Arc<Agent>,
    /// When it was seen; `None`: never.
    pub presence: Option<Presence>,
    /// Who registered it, by name; `None` for one with an Agent resource.
    pub registered_by: Option<String>,
}

impl Listed {
    /// Its status now.
    #[must_use]
    pub fn status(&self, now: OffsetDateTime) -> Status {
        self.presence.map_or(Status::Offline, |presence| presence.status(now))
    }
}

/// What agents are looked for by. All of it must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Criteria {
    /// Empty: any.
    pub kind: String,
    /// All of these.
    pub capabilities: Vec<String>,
    /// All of these entries.
    pub metadata: BTreeMap<String, String>,
}

impl Criteria {
    fn match_agent(&self, agent: &Agent) -> bool {
        (self.kind.is_empty() || self.kind == agent.kind)
            && self.capabilities.iter().all(|wanted| agent.capabilities.contains(wanted))
            && self.metadata.iter().all(|(key, value)| agent.metadata.get(key) == Some(value))
    }
}

/// One page of a list, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// 0: the default.
    pub size: u32,
    /// The last name of the page before; empty: the first page.
    pub after: String,
}

/// The agents of one tenant.
#[derive(Clone)]
pub struct Registry {
    directory: Directory,
    store: Arc<dyn PresenceStore>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

impl Registry {
    /// Over this directory.
    pub fn new(directory: Directory, store: Arc<dyn PresenceStore>) -> Self {
        Self { directory, store }
    }

    /// Whether a name in a request of this caller's means itself.
    #[must_use]
    pub fn is_own(caller: &Caller, name: &str) -> bool {
        name.is_empty() || name == caller.agent.name
    }

    /// Announces the caller.
    pub async fn announce(&self, caller: &Caller, registration: &Registration) -> Result<Listed, Fault> {
        caller.require(Permission::Presence)?;
        // What is known of it stands: a caller that says otherwise must hear it, not believe that it was taken.
        let agent = &caller.agent;
        let differs = (!registration.kind.is_empty() && registration.kind != agent.kind)
            || (!registration.location.is_empty() && registration.location != agent.location)
            || registration.capabilities.iter().any(|capability| !agent.capabilities.contains(capability))
            || registration.metadata.iter().any(|(key, value)| agent.metadata.get(key) != Some(value));
        if differs {
            return Err(Fault::new(
                Code::FailedPrecondition,
                "AGENT_IS_DECLARED",
                format!(
                    "agent {} is described by its Agent resource, or by who registered it: change it there, and register without a description",
                    agent.name
                ),
            ));
        }
        self.store.note(agent.id, true).await?;
        let registered_by = self.registered_by(agent.id);
        Ok(Listed { agent: agent.clone(), presence: Some(seen_now()), registered_by })
    }

    /// Takes the caller offline.
    pub async fn goodbye(&self, caller: &Caller) -> Result<(), Fault> {
        caller.require(Permission::Presence)?;
        self.store.note(caller.agent.id, false).await
    }

    /// The caller lives.
    pub async fn heartbeat(&self, caller: &Caller) -> Result<(), Fault> {
        self.store.note(caller.agent.id, true).await
    }

    /// One agent by name.
    pub async fn get(&self, name: &str) -> Result<Listed, Fault> {
        let agent = self.directory.snapshot().agent_named(name).cloned().ok_or_else(|| no_such_agent(name))?;
        let presence = self.store.presence(&[agent.id]).await?.remove(&agent.id);
        let registered_by = self.registered_by(agent.id);
        Ok(Listed { agent, presence, registered_by })
    }

    fn registered_by(&self, agent: AgentId) -> Option<String> {
        self.directory.snapshot().registered_by(agent).map(|by| by.name.clone())
    }

    /// One page of those who match, and where the next one begins (`None`: this is the last).
    pub async fn list(&self, criteria: &Criteria, page: &Page) -> Result<(Vec<Listed>, Option<String>), Fault> {
        if criteria.capabilities.len() + criteria.metadata.len() > MAX_CRITERIA {
            return Err(Fault::invalid(
                "TOO_MANY_CRITERIA",
                format!("at most {MAX_CRITERIA} capabilities and metadata entries can be asked for"),
            ));
        }
        let mut agents = self.everyone();
        agents.retain(|listed| listed.agent.name > page.after && criteria.match_agent(&listed.agent));
        agents.sort_by(|a, b| a.agent.name.cmp(&b.agent.name));
        let more = page::cut(&mut agents, page::size(page.size), |listed| bytes(&listed.agent));
        let next = agents.last().filter(|_| more).map(|last| last.agent.name.clone());
        let ids: Vec<AgentId> = agents.iter().map(|listed| listed.agent.id).collect();
        let presence = self.store.presence(&ids).await?;
        for listed in &mut agents {
            listed.presence = presence.get(&listed.agent.id).copied();
        }
        Ok((agents, next))
    }

    /// All agents, without their presence.
    fn everyone(&self) -> Vec<Listed> {
        let snapshot = self.directory.snapshot();
        let listed = |agent: &Arc<Agent>| {
            let registered_by = snapshot.registered_by(agent.id).map(|by| by.name.clone());
            Listed { agent: agent.clone(), presence: None, registered_by }
        };
        snapshot.agents().map(listed).collect()
    }
}

fn bytes(agent: &Agent) -> usize {
    let lists = agent.capabilities.iter().chain(&agent.groups).chain(agent.metadata.keys()).chain(agent.metadata.values());
    page::bytes(lists.chain([&agent.kind, &agent.location]))
}

fn seen_now() -> Presence {
    Presence { online: true, last_seen_at: OffsetDateTime::now_utc() }
}

/// What a caller hears of an agent that is not there.
pub(crate) fn no_such_agent(name: &str) -> Fault {
    Fault::not_found("AGENT_NOT_FOUND", format!("this tenant has no agent {}: ListAgents shows all", quoted(name)))
}

/// As Kubernetes names objects.
pub(crate) fn check_name(name: &str) -> Result<(), Fault> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = name.len() <= 63 && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(Fault::invalid("AGENT_NAME_INVALID", "a name has at most 63 lower-case letters, digits and inner hyphens"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody was ever seen.
    struct Unseen;

    #[async_trait]
    impl PresenceStore for Unseen {
        async fn note(&self, _: AgentId, _: bool) -> Result<(), Fault> {
            Ok(())
        }

        async fn presence(&self, _: &[AgentId]) -> Result<HashMap<AgentId, Presence>, Fault> {
            Ok(HashMap::new())
        }
    }

    #[tokio::test]
    async fn large_agents_are_listed_all_and_no_page_is_larger_than_clients_take() {
        use crate::{
            directory::{agent::Role, snapshot::Snapshot},
            door::access_token::tests::agent,
        };
        let mut agents = Vec::new();
        for number in 0..7_u128 {
            let mut large = agent(Role::Full);
            large.id = AgentId(uuid::Uuid::from_u128(number));
            large.name = format!("agent-{number}");
            large.metadata = [("note".to_owned(), "x".repeat(400_000))].into();
            agents.push(large);
        }
        let registry = Registry::new(Directory::new(Snapshot::new(1, agents, Vec::new())), Arc::new(Unseen));
        let (mut names, mut after) = (Vec::new(), Some(String::new()));
        while let Some(last) = after {
            let page = Page { size: 5000, after: last };
            let (listed, next) = registry.list(&Criteria::default(), &page).await.unwrap();
            assert!(listed.len() <= 2);
            names.extend(listed.iter().map(|listed| listed.agent.name.clone()));
            after = next;
        }
        assert_eq!(names, (0..7).map(|number| format!("agent-{number}")).collect::<Vec<_>>());
    }

    #[test]
    fn a_name_is_one_of_kubernetes() {
        assert_eq!(check_name("worker-7"), Ok(()));
        for bad in ["a\0b", "-a", "a-", "A", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
