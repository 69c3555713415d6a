//! Which tenancies a change is about. Pure.

use std::collections::BTreeSet;

use acb_crds::{
    Tenant,
    names::{
        FINALIZER,
        annotations::{ADOPT, FORCE_RELEASE, ROLLOUT_WAVE, ROTATE},
    },
    schema::Kind,
};
use serde::Deserialize as _;
use serde_json::Value;

use super::{
    cache::{Change, resource_of},
    claims::{self, Claims},
};
use crate::{tenancy, tenant::namespace::TENANT_LABEL};

/// The namespaces of the tenancies to look at.
pub(super) fn wakes(change: &Change, claims: &Claims) -> BTreeSet<String> {
    match resource_of(&change.key) {
        Some(resource) => {
            if !is_meaningful(change) {
                return BTreeSet::new();
            }
            match resource.kind {
                Kind::Agent | Kind::Quota => BTreeSet::from([resource.namespace]),
                Kind::Tenant => of_tenant(change, claims),
            }
        }
        None => of_object(change, claims),
    }
}

/// Of a resource a status is this operator's own doing; most annotations are other programs'. Of its finalizers only ours counts, which
/// others may take away: then nothing would hold what is deleted.
fn is_meaningful(change: &Change) -> bool {
    let said = |object: &Option<std::sync::Arc<Value>>| {
        let object = object.as_ref()?;
        let of = |pointer: &str| object.pointer(pointer).cloned();
        let metadata = ["uid", "labels", "deletionTimestamp"].map(|name| of(&format!("/metadata/{name}")));
        let annotation = |name: &str| object.pointer("/metadata/annotations")?.get(name).cloned();
        Some((of("/spec"), metadata, [ADOPT, FORCE_RELEASE, ROTATE, ROLLOUT_WAVE].map(annotation)))
    };
    let is_held = |object: &Option<std::sync::Arc<Value>>| {
        let listed = object.as_ref().and_then(|object| object.pointer("/metadata/finalizers")?.as_array());
        listed.into_iter().flatten().any(|finalizer| finalizer == FINALIZER)
    };
    if is_held(&change.before) && !is_held(&change.now) {
        return true;
    }
    said(&change.before) != said(&change.now)
}

/// Its own. Where it came or went, also those of who would share a name with it; and where others can have data by that which it had or asked for,
/// those of who ask for it.
fn of_tenant(change: &Change, claims: &Claims) -> BTreeSet<String> {
    let parse = |object: &std::sync::Arc<Value>| Tenant::deserialize(object.as_ref()).ok();
    let both = [&change.before, &change.now].map(|object| object.as_ref().and_then(parse));
    let own: BTreeSet<String> = both.iter().flatten().filter_map(tenancy::namespace).collect();
    let ids = both.each_ref().map(|tenant| tenant.as_ref().map(claims::ids).unwrap_or_default());
    let changed = ids[0].symmetric_difference(&ids[1]);
    let asking = changed.flat_map(|id| claims.of_id(id)).cloned();
    let uid = |tenant: &Option<Tenant>| tenant.as_ref().and_then(|tenant| tenant.metadata.uid.clone());
    if uid(&both[0]) == uid(&both[1]) {
        return own.into_iter().chain(asking).collect();
    }
    let spaces: BTreeSet<String> = both.iter().flatten().flat_map(claims::spaces).collect();
    let sharing = spaces.iter().flat_map(|space| claims.of_space(space)).cloned();
    own.into_iter().chain(asking).chain(sharing).collect()
}

/// The tenants that claim the namespace that it is in, or that it is; and the one that its label names.
fn of_object(change: &Change, claims: &Claims) -> BTreeSet<String> {
    if !is_decisive(change) {
        return BTreeSet::new();
    }
    let space = if change.key.kind == "Namespace" { &change.key.name } else { &change.key.namespace };
    let object = change.now.as_ref().or(change.before.as_ref());
    let label = object.and_then(|object| object.get("metadata")?.get("labels")?.get(TENANT_LABEL)?.as_str());
    claims.of_space(space).chain(label.and_then(|label| claims.of_tenant(label))).cloned().collect()
}

/// Whether a decision could be another one for it. Of most kinds the status decides nothing, and some are written every few seconds, such as
/// an autoscaler's with what it measured.
fn is_decisive(change: &Change) -> bool {
    let (Some(before), Some(now)) = (change.before.as_deref(), change.now.as_deref()) else { return true };
    let reads_status = matches!(change.key.kind.as_str(), "Deployment" | "Service");
    let differs = |name: &str| match name {
        "metadata" => said_of(before) != said_of(now),
        "status" => reads_status && before.get(name) != now.get(name),
        _ => before.get(name) != now.get(name),
    };
    let names = [before, now].into_iter().filter_map(Value::as_object).flat_map(serde_json::Map::keys);
    names.collect::<BTreeSet<_>>().into_iter().any(|name| differs(name))
}

/// Metadata, without what changes with every write.
fn said_of(object: &Value) -> Vec<(&String, &Value)> {
    let fields = object.get("metadata").and_then(Value::as_object).into_iter().flatten();
    fields.filter(|(name, _)| !matches!(name.as_str(), "resourceVersion" | "managedFields" | "generation")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::effect::kubernetes::ObjectKey;

    fn tenant(name: &str, more: &Value) -> Value {
        let mut tenant = json!({"apiVersion": acb_crds::API_VERSION, "kind": "Tenant",
                                "metadata": {"name": name, "uid": name}, "spec": {"tier": "Free"}});
        for (key, value) in more.as_object().unwrap() {
            tenant[key] = value.clone();
        }
        tenant
    }

    fn change(before: Option<Value>, now: Option<Value>) -> Change {
        let key = ObjectKey::of(now.as_ref().or(before.as_ref()).unwrap()).unwrap();
        Change { key, before: before.map(Arc::new), now: now.map(Arc::new) }
    }

    fn known() -> Claims {
        let elsewhere = tenant("globex", &json!({"spec": {"tier": "Free", "agentNamespace": "acb-acme"}}));
        let mut claims = Claims::default();
        for tenant in [tenant("acme", &json!({})), elsewhere] {
            claims.set(tenant["metadata"]["name"].as_str().unwrap(), Some(&serde_json::from_value(tenant.clone()).unwrap()));
        }
        claims
    }

    #[test]
    fn a_status_of_ours_wakes_nobody() {
        let before = tenant("acme", &json!({}));
        let now = tenant("acme", &json!({"status": {"agents": 3}}));
        assert!(wakes(&change(Some(before.clone()), Some(now)), &known()).is_empty());
        let metadata = |annotations: Value| json!({"metadata": {"name": "acme", "uid": "acme", "annotations": annotations}});
        let annotated = tenant("acme", &metadata(json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"})));
        assert!(wakes(&change(Some(before.clone()), Some(annotated)), &known()).is_empty());
        for asked in [ADOPT, FORCE_RELEASE, ROTATE, ROLLOUT_WAVE] {
            let annotated = tenant("acme", &metadata(json!({asked: "now"})));
            assert_eq!(wakes(&change(Some(before.clone()), Some(annotated)), &known()).len(), 1, "{asked}");
        }
        let held = |by: &[&str]| tenant("acme", &json!({"metadata": {"name": "acme", "uid": "acme", "finalizers": by}}));
        let (ours, others) = (held(&[FINALIZER, "else.where/x"]), held(&["else.where/x"]));
        assert!(wakes(&change(Some(before.clone()), Some(ours.clone())), &known()).is_empty(), "of our own doing");
        assert_eq!(wakes(&change(Some(ours), Some(others)), &known()).len(), 1, "taken away by hand");
        let edited = tenant("acme", &json!({"spec": {"tier": "Starter"}}));
        assert_eq!(wakes(&change(Some(before), Some(edited)), &known()), BTreeSet::from(["acb-acme".to_owned()]));
    }

    #[test]
    fn a_tenant_that_comes_or_goes_wakes_who_shares_a_name() {
        let initech = tenant("initech", &json!({"spec": {"tier": "Free", "agentNamespace": "acbhub-acme"}}));
        let woken = wakes(&change(None, Some(initech)), &known());
        assert_eq!(woken, BTreeSet::from(["acb-acme".to_owned(), "acbhub-acme".to_owned()]));
    }

    /// One that asks for the data of another is refused as long as that one is there, or asks for it, too.
    #[test]
    fn who_asks_for_data_is_woken_when_others_have_or_want_it_no_more() {
        let asking = |name: &str, id: &str| {
            let metadata = json!({"name": name, "uid": name, "annotations": {ADOPT: id}});
            tenant(name, &json!({"metadata": metadata}))
        };
        let initech = tenant("initech", &json!({}));
        let id = acb_crds::names::TenantId::from_uid("initech").hex();
        let mut claims = known();
        claims.set("hooli", Some(&serde_json::from_value(asking("hooli", &id)).unwrap()));
        let of_both = BTreeSet::from(["acb-initech".to_owned(), "acb-hooli".to_owned()]);
        assert_eq!(wakes(&change(Some(initech), None), &claims), of_both);
        // Another that asked for the same asks for nothing any more.
        let (before, now) = (asking("acme", &id), tenant("acme", &json!({})));
        let woken = wakes(&change(Some(before), Some(now)), &claims);
        assert_eq!(woken, BTreeSet::from(["acb-acme".to_owned(), "acb-hooli".to_owned()]));
        claims.set("hooli", None);
        assert_eq!(claims.of_id(&id).count(), 0);
    }

    #[test]
    fn objects_wake_their_tenant() {
        let deployment =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hub", "namespace": "acbhub-globex"}});
        assert_eq!(wakes(&change(Some(deployment), None), &known()), BTreeSet::from(["acb-acme".to_owned()]));
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acbhub-acme"}});
        assert_eq!(wakes(&change(None, Some(namespace)), &known()).len(), 1);
        let foreign = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        assert!(wakes(&change(None, Some(foreign)), &known()).is_empty());
    }

    #[test]
    fn an_account_that_comes_or_goes_wakes_the_tenant_of_its_namespace() {
        let account = |namespace: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "worker", "namespace": namespace, "uid": "one"}});
        assert!(!wakes(&change(None, Some(account("acb-acme"))), &known()).is_empty());
        assert!(!wakes(&change(Some(account("acb-acme")), None), &known()).is_empty());
        let mut leaving = account("acb-acme");
        leaving["metadata"]["deletionTimestamp"] = json!("2025-01-01T00:00:00Z");
        assert!(!wakes(&change(Some(account("acb-acme")), Some(leaving)), &known()).is_empty());
        assert!(wakes(&change(Some(account("shop")), None), &known()).is_empty(), "of nobody");
    }

    #[test]
    fn a_status_that_decides_nothing_wakes_nobody() {
        let of = |api_version: &str, kind: &str, version: u64, status: Value| {
            json!({"apiVersion": api_version, "kind": kind, "spec": {"a": 1}, "status": status,
                   "metadata": {"name": "hub", "namespace": "acbhub-acme", "resourceVersion": version.to_string()}})
        };
        let wakes_for = |api_version: &str, kind: &str| {
            let [before, now] = [1, 2].map(|version| of(api_version, kind, version, json!({"seen": version})));
            !wakes(&change(Some(before), Some(now)), &known()).is_empty()
        };
        assert!(!wakes_for("autoscaling/v2", "HorizontalPodAutoscaler"), "what it measured");
        assert!(!wakes_for("policy/v1", "PodDisruptionBudget"));
        assert!(wakes_for("apps/v1", "Deployment") && wakes_for("v1", "Service"));
        let mut edited = of("autoscaling/v2", "HorizontalPodAutoscaler", 2, json!({}));
        edited["spec"]["a"] = json!(2);
        let before = of("autoscaling/v2", "HorizontalPodAutoscaler", 1, json!({}));
        assert!(!wakes(&change(Some(before), Some(edited)), &known()).is_empty());
    }

    #[test]
    fn a_tenant_that_goes_claims_nothing_any_more() {
        let mut claims = known();
        assert!(claims.has("acb-acme") && !claims.has("acbhub-acme") && !claims.has("acb-globex"));
        claims.set("globex", None);
        assert_eq!(claims.of_space("acb-acme").count(), 1);
        claims.set("acme", None);
        assert!(!claims.has("acb-acme") && claims.of_tenant("acme").is_none());
    }
}
