//! Contexts: what they are, and who may see them.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    agent::{Agent, AgentId, Permission, Role},
    fault::{Code, Fault},
    identity::lacks,
    message::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES},
    payload_schema::SchemaRef,
    quoted::quoted,
    upload::UploadId,
};

/// The most that a context may have inline, with its envelope.
pub const MAX_INLINE_BYTES: usize = 1024 * 1024;

/// The most groups or agents that one context can be shared with.
const MAX_AUDIENCE: usize = 100;

/// The longest time to live: ten years.
const MAX_TTL: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// A context's id, a UUIDv7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextId(pub Uuid);

impl ContextId {
    /// From its text. What is no id can't name a context either.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| Fault::invalid("CONTEXT_ID_INVALID", format!("context id {} is not a UUID", quoted(text))))
    }
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who may see a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All agents of the tenant.
    Public,
    /// Its creator.
    Private,
    /// Members of the named groups.
    Group,
    /// The listed agents.
    Shared,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Public, Self::Private, Self::Group, Self::Shared];

    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Group => "group",
            Self::Shared => "shared",
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| format!("unknown scope {text:?}"))
    }
}

/// A scope with the audience that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which kind of audience.
    pub scope: Scope,
    /// For [`Scope::Group`].
    pub groups: Vec<String>,
    /// For [`Scope::Shared`]: names.
    pub agents: Vec<String>,
}

impl Access {
    /// For all agents of the tenant.
    #[must_use]
    pub fn public() -> Self {
        Self { scope: Scope::Public, groups: Vec::new(), agents: Vec::new() }
    }

    /// Refuses an audience that the scope does not use, or lacks: it would be seen by other agents than the caller thinks.
    pub fn validate(&self) -> Result<(), Fault> {
        let (wanted, refused, what) = match self.scope {
            Scope::Group => (Some(&self.groups), &self.agents, "groups"),
            Scope::Shared => (Some(&self.agents), &self.groups, "agents"),
            Scope::Public | Scope::Private if self.groups.is_empty() => (None, &self.agents, "no audience"),
            Scope::Public | Scope::Private => (None, &self.groups, "no audience"),
        };
        let fault = |why: String| Err(Fault::invalid("ACCESS_INVALID", format!("scope {} {why}", self.scope.as_str())));
        if !refused.is_empty() {
            return fault(format!("takes {what} only"));
        }
        match wanted {
            Some(names) if names.is_empty() => fault(format!("needs at least one of {what}")),
            Some(names) if names.len() > MAX_AUDIENCE => fault(format!("takes at most {MAX_AUDIENCE} {what}")),
            Some(names) if names.iter().any(|name| name.is_empty() || name.len() > 253 || name.contains(char::is_control)) => {
                fault(format!("has an empty, over-long or unprintable name in {what}"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether this agent may make, change and finish contexts of a type. `known_type`: whether the tenant has it.
pub fn may_publish(agent: &Agent, kind: &str, known_type: bool) -> Result<(), Fault> {
    if !known_type {
        return Err(unknown_type(kind));
    }
    if !agent.role.allows(Permission::PublishContext) {
        return Err(lacks(agent, &[Permission::PublishContext]));
    }
    if agent.role != Role::Admin && !agent.publishes.iter().any(|own| own == kind) {
        return Err(Fault::new(
            Code::PermissionDenied,
            "CONTEXT_TYPE_NOT_PUBLISHED",
            format!("agent {} does not publish {}: add it to the Agent's publishes", agent.name, quoted(kind)),
        ));
    }
    Ok(())
}

/// Whether this agent may follow the changes of a type; which of them it sees is [`Viewer`]'s.
pub fn may_follow(agent: &Agent, kind: &str, known_type: bool) -> Result<(), Fault> {
    if !agent.role.allows(Permission::ReadContext) {
        return Err(lacks(agent, &[Permission::ReadContext]));
    }
    if agent.role != Role::Admin && !agent.subscribes.iter().chain(&agent.publishes).any(|own| own == kind) {
        return Err(Fault::new(
            Code::PermissionDenied,
            "CONTEXT_TYPE_NOT_SUBSCRIBED",
            format!("agent {} does not subscribe to {}: add it to the Agent's subscribes", agent.name, quoted(kind)),
        ));
    }
    if known_type { Ok(()) } else { Err(unknown_type(kind)) }
}

fn unknown_type(kind: &str) -> Fault {
    Fault::new(
        Code::FailedPrecondition,
        "CONTEXT_TYPE_UNKNOWN",
        format!("the tenant has no context type {}: add it to the Tenant's contextTypes", quoted(kind)),
    )
}

/// Where a payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Here.
    Inline(Bytes),
    /// In the chunks of this upload.
    Chunks(UploadId),
    /// Inline in the store, and not read.
    Unread,
}

/// A typed, versioned payload with a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its id.
    pub id: ContextId,
    /// Its type, one of the tenant's.
    pub kind: String,
    /// Who made it.
    pub creator: AgentId,
    /// The creator's name at that time.
    pub creator_name: String,
    /// Who may see it.
    pub access: Access,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// From 1; one more at each update.
    pub version: u64,
    /// Media type of the payload.
    pub content_type: String,
    /// The JSON Schema that the payload met, where its type had one when this version was made.
    pub schema: Option<SchemaRef>,
    /// The payload.
    pub payload: Payload,
    /// Bytes of the payload.
    pub size: u64,
    /// SHA-256 of the payload.
    pub sha256: [u8; 32],
    /// Since when it is there.
    pub created_at: OffsetDateTime,
    /// When this version was made.
    pub updated_at: OffsetDateTime,
    /// From when on it is gone.
    pub expires_at: Option<OffsetDateTime>,
}

impl Context {
    /// Whether it is gone.
    #[must_use]
    pub fn expired(&self, now: OffsetDateTime) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// What a caller gives to make a context, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The type.
    pub kind: String,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// Media type of the payload.
    pub content_type: String,
    /// How long it lives; `None`: until deleted.
    pub ttl: Option<Duration>,
    /// Who may see it.
    pub access: Access,
}

impl Description {
    /// Whether this agent may make such a context. `types` says whether the tenant has the type.
    pub fn validate(&self, creator: &Agent, known_type: bool) -> Result<(), Fault> {
        may_publish(creator, &self.kind, known_type)?;
        validate_labels(&self.metadata, &self.content_type)?;
        validate_ttl(self.ttl)?;
        self.access.validate()
    }

    /// The context that this makes.
    #[must_use]
    pub fn context(self, creator: &Agent, schema: Option<SchemaRef>, payload: Payload, size: u64, sha256: [u8; 32]) -> Context {
        let now = now();
        Context {
            id: ContextId(Uuid::now_v7()),
            kind: self.kind,
            creator: creator.id,
            creator_name: creator.name.clone(),
            access: self.access,
            metadata: self.metadata,
            version: 1,
            content_type: self.content_type,
            schema,
            payload,
            size,
            sha256,
            created_at: now,
            updated_at: now,
            expires_at: self.ttl.map(|ttl| now + ttl),
        }
    }
}

/// Refuses what the store can't keep, and more than a page of a list could hold.
pub fn validate_labels(metadata: &BTreeMap<String, String>, content_type: &str) -> Result<(), Fault> {
    if content_type.len() > 255 || content_type.contains(char::is_control) {
        return Err(Fault::invalid("CONTENT_TYPE_INVALID", "a content type has at most 255 bytes, without control characters"));
    }
    let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    let nul = metadata.iter().any(|(name, value)| name.contains('\0') || value.contains('\0'));
    if nul || metadata.len() > MAX_METADATA_ENTRIES || bytes > MAX_METADATA_BYTES || metadata.contains_key("") {
        let rule = format!(
            "metadata takes at most {MAX_METADATA_ENTRIES} named entries of together {MAX_METADATA_BYTES} bytes, without NUL: put more into the payload"
        );
        return Err(Fault::invalid("METADATA_INVALID", rule));
    }
    Ok(())
}

/// Refuses a time to live that is nothing or beyond what a date can say.
pub fn validate_ttl(ttl: Option<Duration>) -> Result<(), Fault> {
    match ttl {
        Some(ttl) if ttl.is_zero() || ttl > MAX_TTL => {
            Err(Fault::invalid("TTL_INVALID", "a time to live is more than nothing and at most ten years"))
        }
        _ => Ok(()),
    }
}

/// The time, as exactly as every store keeps it.
#[must_use]
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

/// What an agent may see, in a form that both a decision and a query can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    /// Who.
    pub agent: AgentId,
    /// Its name, as in [`Access::agents`].
    pub name: String,
    /// Everything in the tenant.
    pub all: bool,
    /// Types that it reads. Those of its own making come on top.
    pub types: Vec<String>,
    /// Nothing but public contexts, its own aside.
    pub public_only: bool,
    /// Groups that it is in now.
    pub groups: Vec<String>,
}

impl Viewer {
    /// What this agent may see now.
    #[must_use]
    pub fn of(agent: &Agent) -> Self {
        let reads = agent.role.allows(Permission::ReadContext);
        Self {
            agent: agent.id,
            name: agent.name.clone(),
            all: agent.role == Role::Admin,
            types: if reads { agent.subscribes.clone() } else { Vec::new() },
            public_only: agent.role == Role::Observer,
            groups: agent.groups.clone(),
        }
    }

    /// Whether it may see a context of this type, creator and access.
    #[must_use]
    pub fn sees(&self, kind: &str, creator: AgentId, access: &Access) -> bool {
        if self.all || self.agent == creator {
            return true;
        }
        if !self.types.iter().any(|own| own == kind) {
            return false;
        }
        match access.scope {
            Scope::Public => true,
            Scope::Private => false,
            Scope::Group => !self.public_only && access.groups.iter().any(|group| self.groups.contains(group)),
            Scope::Shared => !self.public_only && access.agents.contains(&self.name),
        }
    }

    /// Whether it may see this one.
    #[must_use]
    pub fn sees_context(&self, context: &Context) -> bool {
        self.sees(&context.kind, context.creator, &context.access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str, role: Role, subscribes: &[&str], groups: &[&str]) -> Agent {
        Agent {
            id: AgentId(Uuid::from_u128(name.bytes().fold(1, |id, byte| id * 256 + u128::from(byte)))),
            name: name.into(),
            kind: String::new(),
            capabilities: Vec::new(),
            groups: groups.iter().map(ToString::to_string).collect(),
            location: String::new(),
            metadata: BTreeMap::new(),
            role,
            publishes: vec!["notes".into()],
            subscribes: subscribes.iter().map(ToString::to_string).collect(),
            suspended: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    /// Every role, scope, relation and subscription, against the rule said in words once more.
    #[test]
    fn every_scope_decision() {
        let roles = [Role::Admin, Role::Producer, Role::Consumer, Role::Full, Role::Observer];
        let mut decisions = 0;
        for role in roles {
            for scope in Scope::ALL {
                for subscribed in [false, true] {
                    for member in [false, true] {
                        for listed in [false, true] {
                            for creator in [false, true] {
                                let viewer = agent(
                                    "viewer",
                                    role,
                                    if subscribed { &["notes"] } else { &["other"] },
                                    if member { &["red", "blue"] } else { &["blue"] },
                                );
                                let maker = if creator { viewer.id } else { AgentId(Uuid::nil()) };
                                let access = Access {
                                    scope,
                                    groups: vec!["red".into(), "green".into()],
                                    agents: vec![if listed { "viewer" } else { "viewer2" }.into()],
                                };
                                let in_audience = match scope {
                                    Scope::Public => true,
                                    Scope::Private => false,
                                    Scope::Group => member && role != Role::Observer,
                                    Scope::Shared => listed && role != Role::Observer,
                                };
                                let expected =
                                    role == Role::Admin || creator || (role != Role::Producer && subscribed && in_audience);
                                assert_eq!(
                                    Viewer::of(&viewer).sees("notes", maker, &access),
                                    expected,
                                    "{role:?} {scope:?} subscribed {subscribed} member {member} listed {listed} creator {creator}"
                                );
                                decisions += 1;
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(decisions, 5 * 4 * 16);
    }

    #[test]
    fn an_audience_must_fit_its_scope() {
        let access = |scope, groups: &[&str], agents: &[&str]| Access {
            scope,
            groups: groups.iter().map(ToString::to_string).collect(),
            agents: agents.iter().map(ToString::to_string).collect(),
        };
        for good in [
            access(Scope::Public, &[], &[]),
            access(Scope::Private, &[], &[]),
            access(Scope::Group, &["a"], &[]),
            access(Scope::Shared, &[], &["a"]),
        ] {
            assert_eq!(good.validate(), Ok(()));
        }
        for bad in [
            access(Scope::Public, &["a"], &[]),
            access(Scope::Public, &[], &["a"]),
            access(Scope::Private, &[], &["a"]),
            access(Scope::Group, &[], &[]),
            access(Scope::Group, &["a"], &["b"]),
            access(Scope::Group, &[""], &[]),
            access(Scope::Group, &["a\0"], &[]),
            access(Scope::Shared, &[], &[]),
            access(Scope::Shared, &["b"], &["a"]),
        ] {
            assert_eq!(bad.validate().map_err(|fault| fault.reason), Err("ACCESS_INVALID"), "{bad:?}");
        }
    }

    #[test]
    fn a_type_must_be_the_tenants_and_published() {
        let describe = |kind: &str, ttl| Description {
            kind: kind.into(),
            metadata: BTreeMap::new(),
            content_type: String::new(),
            ttl,
            access: Access::public(),
        };
        let full = agent("a", Role::Full, &[], &[]);
        let reason = |result: Result<(), Fault>| result.map_err(|fault| fault.reason);
        assert_eq!(describe("notes", None).validate(&full, true), Ok(()));
        assert_eq!(reason(describe("notes", None).validate(&full, false)), Err("CONTEXT_TYPE_UNKNOWN"));
        assert_eq!(reason(describe("plans", None).validate(&full, true)), Err("CONTEXT_TYPE_NOT_PUBLISHED"));
        assert_eq!(describe("plans", None).validate(&agent("b", Role::Admin, &[], &[]), true), Ok(()));
        assert_eq!(reason(describe("notes", Some(Duration::ZERO)).validate(&full, true)), Err("TTL_INVALID"));
        assert_eq!(reason(describe("notes", Some(Duration::MAX)).validate(&full, true)), Err("TTL_INVALID"));
        let labels = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(validate_labels(&labels("a", "b\nc"), "text/plain"), Ok(()));
        assert_eq!(reason(validate_labels(&labels("a", "\0"), "")), Err("METADATA_INVALID"));
        assert_eq!(reason(validate_labels(&labels("", "b"), "")), Err("METADATA_INVALID"));
        assert_eq!(reason(validate_labels(&labels("a", &"b".repeat(MAX_METADATA_BYTES)), "")), Err("METADATA_INVALID"));
        assert_eq!(reason(validate_labels(&BTreeMap::new(), "text\0")), Err("CONTENT_TYPE_INVALID"));
    }
}
