//! Who changes again and again what this operator sets right. Each of two writers takes the other for a mistake; that is said at the Tenant,
//! with the other's name, so that somebody ends it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::effect::kubernetes::ObjectKey;

/// The first time makes the object as it should be; a difference that comes back so often is no accident.
const RETURNS: u32 = 3;
/// What did not come back for so long is over.
const MEMORY: Duration = Duration::from_secs(60 * 60);
/// A hub is rolled back from what someone else makes of it at most this often.
const REST: Duration = Duration::from_secs(10 * 60);

#[derive(Debug)]
struct Seen {
    /// A digest of what was applied.
    digest: u64,
    /// How often the same was applied again.
    returns: u32,
    at: Instant,
    writers: Vec<String>,
}

fn digest(object: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    hasher.finish()
}

/// What was applied in this leader's term, and came back.
#[derive(Debug, Default)]
pub(super) struct Conflicts {
    inner: Mutex<BTreeMap<ObjectKey, Seen>>,
}

impl Conflicts {
    fn inner(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectKey, Seen>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object was applied, which `others` had written as it was before. Where the same was applied earlier, someone changed it since.
    pub(super) fn applied(&self, key: &ObjectKey, object: &Value, others: Vec<String>) {
        let (digest, now) = (digest(object), Instant::now());
        let mut inner = self.inner();
        inner.retain(|_, seen| now.duration_since(seen.at) < MEMORY);
        match inner.get_mut(key).filter(|seen| seen.digest == digest) {
            Some(seen) => {
                (seen.returns, seen.at) = (seen.returns.saturating_add(1), now);
                if !others.is_empty() {
                    seen.writers = others;
                }
            }
            None => drop(inner.insert(key.clone(), Seen { digest, returns: 0, at: now, writers: Vec::new() })),
        }
    }

    /// An object was made that was not there. What was counted of the one before stays: a deletion is no change.
    pub(super) fn made(&self, key: &ObjectKey, object: &Value) {
        let (digest, now) = (digest(object), Instant::now());
        let mut inner = self.inner();
        if inner.get(key).is_none_or(|seen| seen.digest != digest) {
            inner.insert(key.clone(), Seen { digest, returns: 0, at: now, writers: Vec::new() });
        }
    }

    /// Whether a Deployment that another controller changes each time is left as it is for a while: each of the two writes would roll the hub.
    pub(super) fn rests(&self, key: &ObjectKey, object: &Value) -> bool {
        let inner = self.inner();
        let often = inner.get(key).filter(|seen| seen.returns >= RETURNS && seen.at.elapsed() < REST);
        key.kind == "Deployment" && often.is_some_and(|seen| seen.digest == digest(object))
    }

    /// What keeps coming back in these namespaces, each with whose doing it is; the empty namespace: in what is cluster-scoped.
    pub(super) fn of(&self, namespaces: &[&str]) -> Vec<String> {
        let inner = self.inner();
        let own = |key: &ObjectKey| match key.namespace.as_str() {
            "" => key.kind == "Namespace" && namespaces.contains(&key.name.as_str()),
            namespace => namespaces.contains(&namespace),
        };
        let often = inner.iter().filter(|(key, seen)| seen.returns >= RETURNS && seen.at.elapsed() < MEMORY && own(key));
        let said = often.map(|(key, seen)| {
            let by = if seen.writers.is_empty() { "someone else, such as a webhook".to_owned() } else { seen.writers.join(", ") };
            format!("{key} is changed by {by}, each time that it was set right: have that leave it alone")
        });
        said.collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;
    use crate::difference;

    fn policy(selector: &str) -> Value {
        difference::marked(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "default-deny", "namespace": "acbhub-acme"}, "spec": {"podSelector": selector},
        }))
    }

    #[test]
    fn what_comes_back_three_times_is_a_conflict_with_whom() {
        let (conflicts, key) = (Conflicts::default(), ObjectKey::of(&policy("a")).unwrap());
        for times in 0..4 {
            assert_eq!(conflicts.of(&["acbhub-acme"]), Vec::<String>::new(), "{times}");
            conflicts.applied(&key, &policy("a"), vec!["kubectl-edit".to_owned()]);
        }
        let said = conflicts.of(&["acbhub-acme"]);
        assert!(said.len() == 1 && said[0].contains("acbhub-acme/default-deny is changed by kubectl-edit,"), "{said:?}");
        assert_eq!(conflicts.of(&["acbhub-bravo", "acb-acme"]), Vec::<String>::new());
        // Something else is wanted now: that is no conflict.
        conflicts.applied(&key, &policy("b"), Vec::new());
        assert_eq!(conflicts.of(&["acbhub-acme"]), Vec::<String>::new());
    }

    #[test]
    fn what_is_made_again_was_changed_by_nobody() {
        let (conflicts, key) = (Conflicts::default(), ObjectKey::of(&policy("a")).unwrap());
        for _ in 0..6 {
            conflicts.made(&key, &policy("a"));
            assert_eq!(conflicts.of(&["acbhub-acme"]), Vec::<String>::new());
        }
        // Who deletes it in between does not hide who changes it.
        for _ in 0..3 {
            conflicts.applied(&key, &policy("a"), Vec::new());
            conflicts.made(&key, &policy("a"));
        }
        assert_eq!(conflicts.of(&["acbhub-acme"]).len(), 1);
    }

    #[test]
    fn a_hub_is_not_rolled_to_and_fro() {
        let (conflicts, mut deployment) = (Conflicts::default(), policy("a"));
        (deployment["apiVersion"], deployment["kind"]) = (json!("apps/v1"), json!("Deployment"));
        let (of_hub, of_policy) = (ObjectKey::of(&deployment).unwrap(), ObjectKey::of(&policy("a")).unwrap());
        for _ in 0..4 {
            assert!(!conflicts.rests(&of_hub, &deployment));
            conflicts.applied(&of_hub, &deployment, Vec::new());
            conflicts.applied(&of_policy, &policy("a"), Vec::new());
        }
        assert!(conflicts.rests(&of_hub, &deployment));
        assert!(!conflicts.rests(&of_policy, &policy("a")), "a wall is set right each time");
        deployment["spec"] = json!({"replicas": 3});
        assert!(!conflicts.rests(&of_hub, &deployment), "something else is wanted");
    }
}
