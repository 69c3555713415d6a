//! Agents, their roles, and what a role allows.

use std::{collections::BTreeMap, fmt, str::FromStr};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

impl Role {
    /// As in the Agent resource.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Producer => "agent-producer",
            Self::Consumer => "agent-consumer",
            Self::Full => "agent-full",
            Self::Observer => "observer",
        }
    }

    /// Whether the role allows it.
    #[must_use]
    pub fn allows(self, permission: Permission) -> bool {
        use Permission::{
            AllDeadLetters, AllUsage, Discover, OwnDeadLetters, OwnUsage, Presence, PublishContext, ReadAudit, ReadContext,
            ReadOwnStream, Receive, RegisterOthers, Send,
        };
        match self {
            Self::Admin => true,
            Self::Full => !matches!(permission, AllDeadLetters | AllUsage | ReadAudit),
            Self::Producer => {
                matches!(permission, Discover | Presence | RegisterOthers | Send | PublishContext | ReadOwnStream | OwnUsage)
            }
            Self::Consumer => {
                matches!(permission, Discover | Presence | RegisterOthers | Receive | OwnDeadLetters | ReadContext | OwnUsage)
            }
            Self::Observer => matches!(permission, Discover | ReadContext | OwnUsage),
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Admin, Self::Producer, Self::Consumer, Self::Full, Self::Observer]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("unknown role {text:?}"))
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
    /// Send messages.
    Send,
    /// Receive messages.
    Receive,
    /// See, replay and drop the dead letters of one's own mailbox.
    OwnDeadLetters,
    /// The same with those of all mailboxes, and send them to others than they were for.
    AllDeadLetters,
    /// Create, update, delete and stream contexts.
    PublishContext,
    /// Read contexts within their scope.
    ReadContext,
    /// See how far one's own stream is.
    ReadOwnStream,
    /// See one's own limits and the tenant's, and what was used of them.
    OwnUsage,
    /// The same of every agent.
    AllUsage,
    /// Read the audit trail of the tenant.
    ReadAudit,
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
