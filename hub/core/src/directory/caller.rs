//! Who calls, once the door has proved it.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    agent::{Agent, Permission},
    source::Source,
};
use crate::fault::{Code, Fault};

/// The proven caller of one request, as the directory knew it when the request came in.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The agent that the access token speaks for.
    pub agent: Arc<Agent>,
    /// When the access token ends.
    pub expires_at: OffsetDateTime,
    /// The epoch that the token was issued under.
    pub epoch: u64,
    /// What the token came from, where it says so.
    pub source: Option<Source>,
}

impl Caller {
    /// For what only the content of a request shows to be needed; what a whole operation needs is in [`crate::door::rules`].
    pub fn require(&self, permission: Permission) -> Result<(), Fault> {
        if self.agent.role.allows(permission) {
            return Ok(());
        }
        Err(lacks(&self.agent, &[permission]))
    }
}

/// What an agent hears whose role allows none of these.
#[must_use]
pub fn lacks(agent: &Agent, any_of: &[Permission]) -> Fault {
    Fault::new(
        Code::PermissionDenied,
        "ROLE_LACKS_PERMISSION",
        format!(
            "agent {} has role {}, which allows none of {any_of:?}: give it another role in its Agent resource",
            agent.name,
            agent.role.as_str()
        ),
    )
}
