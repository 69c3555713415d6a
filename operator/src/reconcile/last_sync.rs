//! When each Tenant was last seen to have in every system what its spec says. It is kept here, and written with the next change of the status:
//! a status that is written at each look for drift would be a write for nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use acb_crds::{TenantStatus, schema::ObjectRef};

use crate::{
    condition::{Outcome, SYNCED},
    plan::Plan,
};

/// Of this leader's term, in RFC 3339.
#[derive(Debug, Default)]
pub(crate) struct LastSyncs {
    seen: Mutex<HashMap<ObjectRef, String>>,
}

impl LastSyncs {
    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectRef, String>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the status is to say after a reconcile. `said` is the status before.
    pub(crate) fn after(
        &self,
        object: &ObjectRef,
        said: Option<&TenantStatus>,
        outcome: &Outcome,
        plan: &Plan,
        now: &str,
    ) -> Option<String> {
        let written = said.and_then(|said| said.last_sync_time.clone());
        if !outcome.is_synced() {
            return self.seen().get(object).cloned().or(written);
        }
        self.seen().insert(object.clone(), now.to_owned());
        let was_synced = said
            .is_some_and(|said| said.conditions.iter().any(|condition| condition.r#type == SYNCED && condition.status == "True"));
        if was_synced && plan.steps.is_empty() { written.or_else(|| Some(now.to_owned())) } else { Some(now.to_owned()) }
    }

    /// It is gone.
    pub(crate) fn forget(&self, object: &ObjectRef) {
        self.seen().remove(object);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use acb_crds::{Condition, schema::Kind};

    use super::*;

    #[test]
    fn it_is_written_when_something_changes_and_is_then_the_last_one() {
        let object = ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: "acme".into() };
        let (syncs, nothing, away) = (LastSyncs::default(), Plan::default(), Outcome::Retrying("Kafka is away".into()));
        assert_eq!(syncs.after(&object, None, &away, &nothing, "0"), None, "never");
        let first = syncs.after(&object, None, &Outcome::Ready, &nothing, "1");
        assert_eq!(first.as_deref(), Some("1"));
        let synced = Condition { r#type: SYNCED.into(), status: "True".into(), ..Condition::default() };
        let said = TenantStatus { last_sync_time: first.clone(), conditions: vec![synced], ..TenantStatus::default() };
        assert_eq!(syncs.after(&object, Some(&said), &Outcome::Ready, &nothing, "2"), first, "nothing is written for that");
        assert_eq!(syncs.after(&object, Some(&said), &away, &nothing, "3").as_deref(), Some("2"));
        // Another leader knows what is written.
        assert_eq!(LastSyncs::default().after(&object, Some(&said), &away, &nothing, "3"), first);
        syncs.forget(&object);
        assert!(syncs.seen().is_empty());
    }
}
