//! How a deletion ends. It always does: what can't be taken down within the bound is left behind, and said.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::condition::Outcome;

/// What became of what a resource had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing is left.
    Removed,
    /// Taken down, and its data kept, as its policy says.
    Retained,
    /// The bound passed; the text says what could not be taken down, and why.
    LeftBehind(String),
}

/// How the deletion of a resource ends now; `None`: it goes on. `deleted_at` is RFC 3339; without a bound it is tried for ever.
pub(crate) fn ending(
    outcome: &Outcome,
    removed: Ending,
    deleted_at: &str,
    now: OffsetDateTime,
    bound: Option<Duration>,
) -> Option<Ending> {
    let why = match outcome {
        // What was refused was never provisioned: there is nothing to take down.
        Outcome::Ready | Outcome::Deleting(_) | Outcome::Stalled(_) => return Some(removed),
        Outcome::Waiting(why) | Outcome::Retrying(why) | Outcome::Refused(why) => why,
    };
    let since = OffsetDateTime::parse(deleted_at, &Rfc3339).ok()?;
    (now - since >= bound?).then(|| Ending::LeftBehind(why.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const DELETED: &str = "2026-01-01T00:00:00Z";

    fn after(seconds: i64, outcome: &Outcome, bound: Option<Duration>) -> Option<Ending> {
        let now = OffsetDateTime::parse(DELETED, &Rfc3339).unwrap() + time::Duration::seconds(seconds);
        ending(outcome, Ending::Retained, DELETED, now, bound)
    }

    #[test]
    fn what_is_taken_down_ends_at_once() {
        assert_eq!(after(0, &Outcome::Deleting("taken down".into()), None), Some(Ending::Retained));
        assert_eq!(after(0, &Outcome::Stalled(Vec::new()), None), Some(Ending::Retained));
    }

    #[test]
    fn what_fails_ends_within_the_bound() {
        let failing = Outcome::Retrying("PostgreSQL is unavailable".into());
        let bound = Some(Duration::from_secs(300));
        assert_eq!(after(299, &failing, bound), None);
        assert_eq!(after(300, &failing, bound), Some(Ending::LeftBehind("PostgreSQL is unavailable".into())));
        assert_eq!(after(1_000_000, &failing, None), None, "a machine of one's own has no bound");
    }
}
