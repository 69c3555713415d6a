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

/// A tenant holds this many agents that others registered.
const MAX_REGISTERED: usize = 1000;
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

/// Where presence and registered agents are kept.
#[async_trait]
pub trait PresenceStore: Send + Sync + 'static {
    /// Notes that an agent is there, or said goodbye.
    async fn note(&self, agent: AgentId, online: bool) -> Result<(), Fault>;
    /// Those of the agents who were ever seen.
    async fn presence(&self, agents: &[AgentId]) -> Result<HashMap<AgentId, Presence>, Fault>;
    /// Every agent that another one registered.
    async fn registered(&self) -> Result<Vec<RegisteredRow>, Fault>;
    /// The one that was registered under this name.
    async fn registered_as(&self, name: &str) -> Result<Option<RegisteredRow>, Fault>;
    /// Adds or replaces one, by name. ALREADY_EXISTS where another agent registered that name.
    async fn register(&self, by: AgentId, registration: &Registration) -> Result<RegisteredRow, Fault>;
    /// Removes what `by` registered under this name, and its presence; whether there was one.
    async fn unregister(&self, by: AgentId, name: &str) -> Result<bool, Fault>;
}

/// A stored registration.
#[derive(Clone, Debug, PartialEq)]
pub struct RegisteredRow {
    /// Made by the store.
    pub id: AgentId,
    /// What was said.
    pub registration: Registration,
    /// Who said it.
    pub by: AgentId,
    /// When.
    pub created_at: OffsetDateTime,
}

/// What an agent is, and whether it is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The agent.
    pub agent: Arc<Agent>,
    /// When it was seen; `None`: never.
    pub presence: Option<Presence>,
    /// Who registered it, by name. Such an agent has no key of its own, and so no mailbox: it is reached by way of who registered it.
    pub registered_by: Option<String>,
}

impl Listed {
    /// Its status now. One that can't be reached is never online.
    #[must_use]
    pub fn status(&self, now: OffsetDateTime) -> Status {
        if self.registered_by.is_some() {
            return Status::Offline;
        }
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

    /// Announces the caller, or registers another agent of its role.
    pub async fn register(&self, caller: &Caller, registration: Registration) -> Result<Listed, Fault> {
        if registration.name.is_empty() || registration.name == caller.agent.name {
            return self.announce(caller, &registration).await;
        }
        caller.require(Permission::RegisterOthers)?;
        let snapshot = self.directory.snapshot();
        if !snapshot.open_registration {
            return Err(Fault::new(
                Code::FailedPrecondition,
                "REGISTRATION_DECLARED",
                "this tenant only has agents with an Agent resource: apply one, or set the Tenant's spec.registration to Open",
            ));
        }
        check_name(&registration.name)?;
        check_size(&registration)?;
        if snapshot.agent_named(&registration.name).is_some() {
            return Err(Fault::new(
                Code::AlreadyExists,
                "AGENT_EXISTS",
                format!("there is an Agent resource {}: choose another name", registration.name),
            ));
        }
        let known = self.store.registered().await?;
        if known.len() >= MAX_REGISTERED && !known.iter().any(|row| row.registration.name == registration.name) {
            return Err(Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_REGISTERED",
                format!("{MAX_REGISTERED} agents are registered by others: unregister some"),
            ));
        }
        let row = self.store.register(caller.agent.id, &registration).await?;
        self.store.note(row.id, true).await?;
        let registered_by = Some(caller.agent.name.clone());
        Ok(Listed { agent: Arc::new(as_agent(row, &caller.agent)), presence: Some(seen_now()), registered_by })
    }

    async fn announce(&self, caller: &Caller, registration: &Registration) -> Result<Listed, Fault> {
        // What the resource says stands: a caller that says otherwise must hear it, not believe that it was taken.
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
                    "agent {} is described by its Agent resource: change it there, and register without a description",
                    agent.name
                ),
            ));
        }
        self.store.note(agent.id, true).await?;
        Ok(Listed { agent: agent.clone(), presence: Some(seen_now()), registered_by: None })
    }

    /// Takes the caller, or one that it registered, offline.
    pub async fn unregister(&self, caller: &Caller, name: &str) -> Result<(), Fault> {
        if name.is_empty() || name == caller.agent.name {
            return self.store.note(caller.agent.id, false).await;
        }
        caller.require(Permission::RegisterOthers)?;
        if check_name(name).is_ok() && self.store.unregister(caller.agent.id, name).await? {
            Ok(())
        } else {
            Err(no_such_agent(name))
        }
    }

    /// The caller lives.
    pub async fn heartbeat(&self, caller: &Caller) -> Result<(), Fault> {
        self.store.note(caller.agent.id, true).await
    }

    /// One agent by name.
    pub async fn get(&self, name: &str) -> Result<Listed, Fault> {
        let snapshot = self.directory.snapshot();
        let (agent, registered_by) = match snapshot.agent_named(name) {
            Some(agent) => (agent.clone(), None),
            None if check_name(name).is_err() => return Err(no_such_agent(name)),
            None => {
                let row = self.store.registered_as(name).await?.ok_or_else(|| no_such_agent(name))?;
                let by = snapshot.agent(row.by).ok_or_else(|| no_such_agent(name))?;
                (Arc::new(as_agent(row, by)), Some(by.name.clone()))
            }
        };
        let presence = self.store.presence(&[agent.id]).await?.remove(&agent.id);
        Ok(Listed { agent, presence, registered_by })
    }

    /// One page of those who match, and where the next one begins (`None`: this is the last).
    pub async fn list(&self, criteria: &Criteria, page: &Page) -> Result<(Vec<Listed>, Option<String>), Fault> {
        if criteria.capabilities.len() + criteria.metadata.len() > MAX_CRITERIA {
            return Err(Fault::invalid(
                "TOO_MANY_CRITERIA",
                format!("at most {MAX_CRITERIA} capabilities and metadata entries can be asked for"),
            ));
        }
        let mut agents = self.everyone().await?;
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
    async fn everyone(&self) -> Result<Vec<Listed>, Fault> {
        let snapshot = self.directory.snapshot();
        let declared = |agent: &Arc<Agent>| Listed { agent: agent.clone(), presence: None, registered_by: None };
        let mut agents: Vec<Listed> = snapshot.agents().map(declared).collect();
        for row in self.store.registered().await? {
            if snapshot.agent_named(&row.registration.name).is_none()
                && let Some(by) = snapshot.agent(row.by)
            {
                let registered_by = Some(by.name.clone());
                agents.push(Listed { agent: Arc::new(as_agent(row, by)), presence: None, registered_by });
            }
        }
        Ok(agents)
    }
}

fn bytes(agent: &Agent) -> usize {
    let lists = agent.capabilities.iter().chain(&agent.groups).chain(agent.metadata.keys()).chain(agent.metadata.values());
    page::bytes(lists.chain([&agent.kind, &agent.location]))
}

fn seen_now() -> Presence {
    Presence { online: true, last_seen_at: OffsetDateTime::now_utc() }
}

fn as_agent(row: RegisteredRow, by: &Agent) -> Agent {
    let Registration { name, kind, capabilities, metadata, location } = row.registration;
    Agent {
        id: row.id,
        name,
        kind,
        capabilities,
        groups: Vec::new(),
        location,
        metadata,
        role: by.role,
        publishes: Vec::new(),
        subscribes: Vec::new(),
        limits: by.limits,
        suspended: by.suspended,
        created_at: row.created_at,
    }
}

fn no_such_agent(name: &str) -> Fault {
    Fault::not_found("AGENT_NOT_FOUND", format!("this tenant has no agent {}: ListAgents shows all", quoted(name)))
}

/// As Kubernetes names objects.
fn check_name(name: &str) -> Result<(), Fault> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = name.len() <= 63 && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(Fault::invalid("AGENT_NAME_INVALID", "a name has at most 63 lower-case letters, digits and inner hyphens"))
}

fn check_size(registration: &Registration) -> Result<(), Fault> {
    let texts = registration.capabilities.iter().chain(registration.metadata.keys()).chain(registration.metadata.values());
    let texts: Vec<&String> = texts.chain([&registration.kind, &registration.location]).collect();
    if texts.iter().any(|text| text.contains('\0')) {
        return Err(Fault::invalid("REGISTRATION_INVALID", "type, capabilities, metadata and location take no NUL"));
    }
    if texts.iter().map(|text| text.len()).sum::<usize>() > 16 * 1024 {
        return Err(Fault::invalid(
            "REGISTRATION_TOO_LARGE",
            "type, capabilities, metadata and location take at most 16 KiB together",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One agent at a time may be registered.
    #[derive(Default)]
    struct Model(std::sync::Mutex<Option<RegisteredRow>>);

    #[async_trait]
    impl PresenceStore for Model {
        async fn note(&self, _: AgentId, _: bool) -> Result<(), Fault> {
            Ok(())
        }

        async fn presence(&self, _: &[AgentId]) -> Result<HashMap<AgentId, Presence>, Fault> {
            Ok(HashMap::new())
        }

        async fn registered(&self) -> Result<Vec<RegisteredRow>, Fault> {
            Ok(self.0.lock().unwrap().iter().cloned().collect())
        }

        async fn registered_as(&self, name: &str) -> Result<Option<RegisteredRow>, Fault> {
            Ok(self.0.lock().unwrap().clone().filter(|row| row.registration.name == name))
        }

        async fn register(&self, by: AgentId, registration: &Registration) -> Result<RegisteredRow, Fault> {
            let id = AgentId(uuid::Uuid::from_u128(50));
            let row = RegisteredRow { id, registration: registration.clone(), by, created_at: OffsetDateTime::UNIX_EPOCH };
            *self.0.lock().unwrap() = Some(row.clone());
            Ok(row)
        }

        async fn unregister(&self, _: AgentId, _: &str) -> Result<bool, Fault> {
            Ok(self.0.lock().unwrap().take().is_some())
        }
    }

    #[tokio::test]
    async fn others_are_registered_by_who_may_and_where_registration_is_open() {
        use crate::{
            directory::{agent::Role, snapshot::Snapshot},
            door::access_token::tests::agent,
        };
        let outcome = async |role: Role, open: bool| {
            let caller = Caller { agent: Arc::new(agent(role)), expires_at: OffsetDateTime::now_utc(), key: None };
            let mut snapshot = Snapshot::new(1, vec![agent(role)], Vec::new());
            snapshot.open_registration = open;
            let registry = Registry::new(Directory::new(snapshot), Arc::new(Model::default()));
            let registration = Registration { name: "helper".to_owned(), ..Registration::default() };
            match registry.register(&caller, registration).await {
                Ok(made) => {
                    assert_eq!(made.agent.role, role, "of its own role");
                    let (listed, _) = registry.list(&Criteria::default(), &Page::default()).await.unwrap();
                    let listed = listed.into_iter().find(|listed| listed.agent.name == "helper").unwrap();
                    for found in [&made, &listed, &registry.get("helper").await.unwrap()] {
                        assert_eq!(found.agent.id, made.agent.id);
                        // It was just registered, and nobody can reach it.
                        let shown = (found.status(OffsetDateTime::now_utc()), found.registered_by.as_deref());
                        assert_eq!(shown, (Status::Offline, Some("alice")));
                    }
                    registry.unregister(&caller, "helper").await.unwrap();
                    registry.get("helper").await.map_or_else(|fault| fault.reason, |_| "still there")
                }
                Err(fault) => fault.reason,
            }
        };
        for role in [Role::Admin, Role::Full, Role::Producer, Role::Consumer] {
            assert_eq!(outcome(role, true).await, "AGENT_NOT_FOUND", "{role:?}: made, and removed again");
            assert_eq!(outcome(role, false).await, "REGISTRATION_DECLARED", "{role:?}");
        }
        for open in [true, false] {
            assert_eq!(outcome(Role::Observer, open).await, "ROLE_LACKS_PERMISSION");
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
        let registry = Registry::new(Directory::new(Snapshot::new(1, agents, Vec::new())), Arc::new(Model::default()));
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
    fn a_registration_must_fit_the_store() {
        let check = |kind: &str| check_size(&Registration { kind: kind.to_owned(), ..Registration::default() });
        assert_eq!(check("worker"), Ok(()));
        assert_eq!(check("a\0b").map_err(|fault| fault.reason), Err("REGISTRATION_INVALID"));
        assert_eq!(check(&"x".repeat(17_000)).map_err(|fault| fault.reason), Err("REGISTRATION_TOO_LARGE"));
        for bad in ["a\0b", "-a", "a-", "A", &"a".repeat(64)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
