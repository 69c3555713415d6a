//! Whom contexts are for, and who may make and follow them.

use std::str::FromStr;

use crate::{
    directory::{
        agent::{Agent, Permission},
        caller::lacks,
    },
    fault::{Code, Fault},
    kit::quoted::quoted,
};

/// The most groups or agents that one context can be shared with.
const MAX_AUDIENCE: usize = 100;

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

    /// Whether nobody may see by it who may not by the other.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let some_of = |these: &[String], those: &[String]| these.iter().all(|name| those.contains(name));
        match (self.scope, other.scope) {
            (Scope::Private, _) | (_, Scope::Public) => true,
            (Scope::Group, Scope::Group) => some_of(&self.groups, &other.groups),
            (Scope::Shared, Scope::Shared) => some_of(&self.agents, &other.agents),
            _ => false,
        }
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
    if !agent.role.allows(Permission::AllContexts) && !agent.publishes.iter().any(|own| own == kind) {
        return Err(Fault::new(
            Code::PermissionDenied,
            "CONTEXT_TYPE_NOT_PUBLISHED",
            format!("agent {} does not publish {}: add it to the Agent's publishes", agent.name, quoted(kind)),
        ));
    }
    Ok(())
}

/// Whether this agent may follow the changes of a type; which of them it sees is said in [`visibility`](super::visibility).
pub fn may_follow(agent: &Agent, kind: &str, known_type: bool) -> Result<(), Fault> {
    if !agent.role.allows(Permission::ReadContext) {
        return Err(lacks(agent, &[Permission::ReadContext]));
    }
    if !agent.role.allows(Permission::AllContexts) && !agent.subscribes.iter().chain(&agent.publishes).any(|own| own == kind) {
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

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::directory::agent::{AgentId, Role};

    pub(crate) fn agent(name: &str, role: Role, subscribes: &[&str], groups: &[&str]) -> Agent {
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
            limits: Default::default(),
            suspended: false,
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
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
}
