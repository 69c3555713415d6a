//! Who is, or was, in which group.

use time::OffsetDateTime;

use super::agent::AgentId;

/// One membership: `joined_at..left_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// Who.
    pub agent: AgentId,
    /// From when on, in log time.
    pub joined_at: OffsetDateTime,
    /// Until when; `None`: still.
    pub left_at: Option<OffsetDateTime>,
}

impl Membership {
    /// Whether a message of this log time is for the member.
    #[must_use]
    pub fn covers(&self, log_time: OffsetDateTime) -> bool {
        self.joined_at <= log_time && self.left_at.is_none_or(|left| log_time < left)
    }
}
