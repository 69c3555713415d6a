//! A credential, as those see it who keep an eye on it: without what is secret of it.

use time::OffsetDateTime;

use crate::directory::agent::AgentId;

/// What kind of credential it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// An API key.
    ApiKey,
    /// A Kubernetes ServiceAccount.
    ServiceAccount,
}

/// Whose credentials are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialOwner<'a> {
    /// Every agent's.
    Anyone,
    /// Those of this agent.
    Agent(AgentId),
    /// Those of the agent that has this name in the store. The directory may be a few seconds behind it.
    Named(&'a str),
}

/// A credential, by what is no secret of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// Whom it proves: its UID.
    pub agent_id: AgentId,
    /// Its name.
    pub agent: String,
    /// What it is.
    pub kind: CredentialKind,
    /// The key's prefix, or the account as `<namespace>/<name>`.
    pub name: String,
    /// Since when it proves the agent.
    pub created_at: OffsetDateTime,
    /// Until when; `None`: until it is removed.
    pub expires_at: Option<OffsetDateTime>,
    /// When a token was last issued for it, to the minute. `None`: never, as far as is known.
    pub last_used_at: Option<OffsetDateTime>,
}
