//! How a deletion ends: when all is gone. What keeps failing is let go after so many attempts that this leader saw over so long a time, and
//! said; the sweep of orphans finishes it. Where people asked for the data to go, only they let go of what is left.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use acb_crds::{names::annotations::FORCE_RELEASE, schema::ObjectRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::condition::Outcome;

/// So many attempts have to have failed, however long they took.
const LEAST_ATTEMPTS: u32 = 5;
/// Between two attempts no more than this counts: the leader may have been asleep.
const LONGEST_GAP: Duration = Duration::from_secs(90);
/// What was not tried for so long is no longer there.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// What became of what a resource had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing is left.
    Removed,
    /// Taken down, and its data kept, as its policy says.
    Retained,
    /// Its tenant is gone: what it had stays with that one's data, or went with it.
    WithItsTenant,
    /// The bound passed, or someone said so; the text says what could not be taken down, and why.
    LeftBehind(String),
}

/// What failed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failures {
    /// Attempts.
    pub(crate) attempts: u32,
    /// For how long they were made, one after the other.
    pub(crate) lasted: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Tried {
    failures: Failures,
    last: Instant,
}

/// The attempts of one leader. The next one begins anew: it may reach what this one can't.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    tried: Mutex<HashMap<(ObjectRef, String), Tried>>,
}

impl Attempts {
    fn tried(&self) -> std::sync::MutexGuard<'_, HashMap<(ObjectRef, String), Tried>> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more failed.
    pub(crate) fn failed(&self, object: &ObjectRef, uid: &str, now: Instant) -> Failures {
        let mut all = self.tried();
        all.retain(|_, tried| now.saturating_duration_since(tried.last) < FORGOTTEN_AFTER);
        let fresh = Tried { failures: Failures { attempts: 0, lasted: Duration::ZERO }, last: now };
        let tried = all.entry((object.clone(), uid.to_owned())).or_insert(fresh);
        tried.failures.attempts = tried.failures.attempts.saturating_add(1);
        tried.failures.lasted += now.saturating_duration_since(tried.last).min(LONGEST_GAP);
        tried.last = now;
        tried.failures
    }

    /// It is gone.
    pub(crate) fn forget(&self, object: &ObjectRef, uid: &str) {
        self.tried().remove(&(object.clone(), uid.to_owned()));
    }
}

/// What lets go of what could not be taken down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Only a person.
    Endless,
    /// After attempts over so long a time.
    Until(Duration),
}

/// Whether a person lets go of it: by its own name, so that it is done to one at a time.
pub(crate) fn is_released(metadata: &ObjectMeta) -> bool {
    let said = metadata.annotations.as_ref().and_then(|annotations| annotations.get(FORCE_RELEASE));
    said.is_some() && said == metadata.name.as_ref()
}

/// How a deletion ends now; `None`: it goes on. `failures` is asked for where this attempt failed.
pub(crate) fn ending(
    outcome: &Outcome,
    removed: Ending,
    patience: Patience,
    is_released: bool,
    failures: impl FnOnce() -> Failures,
) -> Option<Ending> {
    let why = match outcome {
        // What was refused was never provisioned: there is nothing to take down.
        Outcome::Ready | Outcome::Deleting(_) | Outcome::Stalled(_) => return Some(removed),
        Outcome::Starting(why) | Outcome::Waiting(why) | Outcome::Retrying(why) | Outcome::Refused(why) => why,
    };
    let failures = failures();
    let is_over = match patience {
        Patience::Endless => false,
        Patience::Until(bound) => failures.attempts >= LEAST_ATTEMPTS && failures.lasted >= bound,
    };
    (is_over || is_released).then(|| Ending::LeftBehind(why.clone()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use acb_crds::schema::Kind;

    use super::*;

    const BOUND: Duration = Duration::from_secs(300);

    fn acme() -> ObjectRef {
        ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: "acme".into() }
    }

    fn failing() -> Outcome {
        Outcome::Retrying("PostgreSQL is unavailable".into())
    }

    fn after(failures: Failures, patience: Patience, is_released: bool) -> Option<Ending> {
        ending(&failing(), Ending::Retained, patience, is_released, || failures)
    }

    #[test]
    fn what_is_taken_down_ends_at_once() {
        for outcome in [Outcome::Deleting("taken down".into()), Outcome::Stalled(Vec::new())] {
            let ended = ending(&outcome, Ending::Retained, Patience::Endless, false, || panic!("nothing failed"));
            assert_eq!(ended, Some(Ending::Retained));
        }
    }

    #[test]
    fn the_bound_is_so_many_attempts_over_so_long_a_time() {
        let failures = |attempts, seconds| Failures { attempts, lasted: Duration::from_secs(seconds) };
        let until = Patience::Until(BOUND);
        assert_eq!(after(failures(1, 100_000), until, false), None, "one failure is none, however late");
        assert_eq!(after(failures(100, 299), until, false), None, "nor are many in a moment");
        let left = Some(Ending::LeftBehind("PostgreSQL is unavailable".into()));
        assert_eq!(after(failures(5, 300), until, false), left);
        assert_eq!(after(failures(100_000, 1_000_000), Patience::Endless, false), None);
        assert_eq!(after(failures(1, 0), Patience::Endless, true), left, "a person said so");
    }

    #[test]
    fn time_in_which_nothing_was_tried_does_not_count() {
        let (attempts, begun) = (Attempts::default(), Instant::now());
        assert_eq!(attempts.failed(&acme(), "u", begun), Failures { attempts: 1, lasted: Duration::ZERO });
        let asleep = begun + Duration::from_secs(360);
        assert_eq!(attempts.failed(&acme(), "u", asleep), Failures { attempts: 2, lasted: LONGEST_GAP });
        // One of the same name is another.
        assert_eq!(attempts.failed(&acme(), "v", asleep).attempts, 1);
        attempts.forget(&acme(), "u");
        assert_eq!(attempts.failed(&acme(), "u", asleep).attempts, 1);
        attempts.failed(&acme(), "v", asleep + FORGOTTEN_AFTER);
        assert_eq!(attempts.tried().len(), 1, "what is not tried any more takes no room");
    }

    #[test]
    fn a_person_lets_go_of_one_by_its_name() {
        let metadata = |said: &str| ObjectMeta {
            name: Some("acme".into()),
            annotations: Some([(FORCE_RELEASE.to_owned(), said.to_owned())].into()),
            ..ObjectMeta::default()
        };
        assert!(is_released(&metadata("acme")) && !is_released(&metadata("true")) && !is_released(&ObjectMeta::default()));
    }
}
