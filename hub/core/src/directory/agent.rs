//! Agents, their roles, and what a role allows.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::limits::Limits;

/// The UID of an Agent resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(pub Uuid);

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an agent may do within its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Role {
    /// Everything in this tenant.
    Admin,
    /// Sends messages and publishes contexts.
    Producer,
    /// Receives messages and reads contexts.
    Consumer,
    /// Both.
    Full,
    /// Sees agents and public contexts.
    Observer,
    /// Sees who is there, what was used and what was done, and no contents.
    Auditor,
}

impl Role {
    /// All of them, the mightiest first.
    pub const ALL: [Self; 6] = [Self::Admin, Self::Full, Self::Producer, Self::Consumer, Self::Observer, Self::Auditor];

    /// As in the Agent resource.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Producer => "agent-producer",
            Self::Consumer => "agent-consumer",
            Self::Full => "agent-full",
            Self::Observer => "observer",
            Self::Auditor => "auditor",
        }
    }

    /// The one that an Agent resource calls so, such as `AgentFull`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| {
            let letters = role.as_str().split('-').flat_map(|word| {
                word.char_indices().map(|(at, letter)| if at == 0 { letter.to_ascii_uppercase() } else { letter })
            });
            letters.eq(name.chars())
        })
    }

    /// Whether it allows nothing that the other one does not.
    #[must_use]
    pub fn is_within(self, other: Self) -> bool {
        Permission::ALL.into_iter().all(|permission| !self.allows(permission) || other.allows(permission))
    }

    /// Whether the role allows it.
    #[must_use]
    pub fn allows(self, permission: Permission) -> bool {
        use Permission::{
            AllTraces, AllUsage, Discover, OwnCredentials, OwnDeadLetters, OwnScheduledMessages, OwnTraces, OwnUsage, Presence,
            PublishContext, ReadAddressedContext, ReadAudit, ReadContext, ReadOwnStream, Receive, RegisterOthers, Send,
        };
        match self {
            Self::Admin => true,
            Self::Full => !permission.is_of_all(),
            Self::Producer => {
                let sends = matches!(permission, Send | OwnScheduledMessages | PublishContext | ReadOwnStream);
                let own = matches!(permission, OwnUsage | OwnCredentials | OwnTraces);
                sends || own || matches!(permission, Discover | Presence | RegisterOthers)
            }
            Self::Consumer => {
                let reads = matches!(permission, ReadContext | ReadAddressedContext | Receive | OwnDeadLetters);
                let own = matches!(permission, OwnUsage | OwnCredentials | OwnTraces);
                reads || own || matches!(permission, Discover | Presence | RegisterOthers)
            }
            Self::Observer => matches!(permission, Discover | ReadContext | OwnUsage | OwnCredentials),
            Self::Auditor => matches!(permission, Discover | OwnUsage | AllUsage | AllTraces | ReadAudit | OwnCredentials),
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| format!("unknown role {text:?}"))
    }
}

impl TryFrom<String> for Role {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Role> for &'static str {
    fn from(role: Role) -> Self {
        role.as_str()
    }
}

/// What a method needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// See the agents of the tenant.
    Discover,
    /// Say that oneself is there.
    Presence,
    /// Register another agent of one's own role, where the tenant's registration is Open.
    RegisterOthers,
    /// Unregister agents, whoever registered them.
    AllRegistrations,
    /// Send messages.
    Send,
    /// See and cancel the messages that one scheduled.
    OwnScheduledMessages,
    /// See and cancel the scheduled messages of all agents, and not just those that one scheduled oneself.
    AllScheduledMessages,
    /// Receive messages.
    Receive,
    /// See, replay and drop the dead letters of one's own mailbox.
    OwnDeadLetters,
    /// The same with those of all mailboxes, and send them to others than they were for.
    AllDeadLetters,
    /// Create, update, delete and stream contexts.
    PublishContext,
    /// Read contexts that are public.
    ReadContext,
    /// Read contexts that are for the agent by its group or its name.
    ReadAddressedContext,
    /// Read, change and publish contexts of every type, whoever made them.
    AllContexts,
    /// See how far one's own stream is.
    ReadOwnStream,
    /// See one's own limits and the tenant's, and what was used of them.
    OwnUsage,
    /// The same of every agent.
    AllUsage,
    /// See what happened to messages that one sent, or that are for oneself.
    OwnTraces,
    /// The same of all messages.
    AllTraces,
    /// Read the audit trail of the tenant.
    ReadAudit,
    /// See which credentials one has, and when they were used.
    OwnCredentials,
    /// The same of every agent.
    AllCredentials,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::Discover,
        Self::Presence,
        Self::RegisterOthers,
        Self::AllRegistrations,
        Self::Send,
        Self::OwnScheduledMessages,
        Self::AllScheduledMessages,
        Self::Receive,
        Self::OwnDeadLetters,
        Self::AllDeadLetters,
        Self::PublishContext,
        Self::ReadContext,
        Self::ReadAddressedContext,
        Self::AllContexts,
        Self::ReadOwnStream,
        Self::OwnUsage,
        Self::AllUsage,
        Self::OwnTraces,
        Self::AllTraces,
        Self::ReadAudit,
        Self::OwnCredentials,
        Self::AllCredentials,
    ];

    /// What of the tenant it is about, as docs/permissions.md says it.
    #[must_use]
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Discover => "the tenant's agents",
            Self::Presence => "itself",
            Self::RegisterOthers => "agents of its role",
            Self::AllRegistrations => "itself; every agent that was registered",
            Self::Send => "to agents that receive",
            Self::OwnScheduledMessages => "those that it scheduled",
            Self::AllScheduledMessages => "everybody's",
            Self::Receive => "its mailbox",
            Self::OwnDeadLetters => "its mailbox's",
            Self::AllDeadLetters => "every mailbox's",
            Self::PublishContext => "its own, of types that it publishes",
            Self::ReadContext => "its own; of types that it reads: public ones",
            Self::ReadAddressedContext => "those for its groups or its name",
            Self::AllContexts => "every one",
            Self::ReadOwnStream => "its own",
            Self::OwnUsage => "its own, the tenant's",
            Self::AllUsage => "every agent's, the tenant's",
            Self::OwnTraces => "what it sent, and what is for it",
            Self::AllTraces => "every message",
            Self::ReadAudit => "the tenant's",
            Self::OwnCredentials => "its own",
            Self::AllCredentials => "every agent's",
        }
    }

    /// Whether it is about what belongs to others, too.
    #[must_use]
    pub const fn is_of_all(self) -> bool {
        matches!(
            self,
            Self::AllRegistrations
                | Self::AllScheduledMessages
                | Self::AllDeadLetters
                | Self::AllContexts
                | Self::AllUsage
                | Self::AllTraces
                | Self::ReadAudit
                | Self::AllCredentials
        )
    }
}

/// An agent, as projected by the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// UID of its resource.
    pub id: AgentId,
    /// Its name, unique in the tenant.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// The groups that it is in now.
    pub groups: Vec<String>,
    /// Where it is.
    pub location: String,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// What it may do.
    pub role: Role,
    /// Context types that it publishes.
    pub publishes: Vec<String>,
    /// Context types that it reads.
    pub subscribes: Vec<String>,
    /// What it may use.
    pub limits: Limits,
    /// Whether it is refused.
    pub suspended: bool,
    /// Since when it is known.
    pub created_at: OffsetDateTime,
}

impl Agent {
    /// The same, with this role in the place of its own. `None` where that would allow it more.
    #[must_use]
    pub fn lowered(&self, role: Role) -> Option<Self> {
        role.is_within(self.role).then(|| Self { role, ..self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_within_those_that_allow_all_that_it_does() {
        for role in Role::ALL {
            assert!(role.is_within(role) && role.is_within(Role::Admin));
            assert!(role == Role::Admin || !Role::Admin.is_within(role));
        }
        assert!(
            Role::Producer.is_within(Role::Full) && Role::Consumer.is_within(Role::Full) && Role::Observer.is_within(Role::Full)
        );
        assert!(Role::Observer.is_within(Role::Consumer) && !Role::Observer.is_within(Role::Producer));
        assert!(!Role::Auditor.is_within(Role::Full) && !Role::Full.is_within(Role::Producer));
    }

    #[test]
    fn a_role_is_found_by_its_name_in_the_resource() {
        let named = |name| Role::named(name).map(Role::as_str);
        for (name, role) in [
            ("Admin", Role::Admin),
            ("AgentProducer", Role::Producer),
            ("AgentConsumer", Role::Consumer),
            ("AgentFull", Role::Full),
            ("Observer", Role::Observer),
            ("Auditor", Role::Auditor),
        ] {
            assert_eq!(named(name), Some(role.as_str()));
        }
        for none in ["", "admin", "agent-full", "Agentfull", "AgentFulls", "Agent"] {
            assert_eq!(named(none), None, "{none}");
        }
    }
}
