//! Who is, or was, in which group.

use time::{Duration, OffsetDateTime};

use super::agent::AgentId;

/// By how much what is known of clocks may be off. Who joins is owed what was logged so long before, too: better a message too many than one that was sent
/// right after the join and never comes.
pub const TOLERANCE: Duration = Duration::SECOND;

/// One membership: `joined_at..left_at`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// Who.
    pub agent: AgentId,
    /// From when on, by the clock of the store.
    pub joined_at: OffsetDateTime,
    /// Until when; `None`: still.
    pub left_at: Option<OffsetDateTime>,
}

impl Membership {
    /// Whether a message is for the member that was logged when the clock of the store showed this.
    #[must_use]
    pub fn covers(&self, at: OffsetDateTime) -> bool {
        began_by(self.joined_at, at) && self.left_at.is_none_or(|left| at < left)
    }
}

/// Whether what is there since `since` was there already at this time.
#[must_use]
pub fn began_by(since: OffsetDateTime, at: OffsetDateTime) -> bool {
    since <= at.saturating_add(TOLERANCE)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn who_joins_is_owed_what_was_logged_a_moment_before() {
        let at = |millis| OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(millis);
        let member = |left_at| Membership { group: "g".to_owned(), agent: AgentId(Uuid::nil()), joined_at: at(5000), left_at };
        let covered = [3999, 4000, 5000, 9000].map(|millis| member(None).covers(at(millis)));
        assert_eq!(covered, [false, true, true, true]);
        assert!(member(Some(at(9000))).covers(at(8999)) && !member(Some(at(9000))).covers(at(9000)));
    }
}
