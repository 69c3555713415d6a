//! Which tenancies a change is about. Pure.

use std::collections::BTreeSet;

use acb_crds::{
    Tenant,
    names::{
        FINALIZER, TenantName,
        annotations::{ADOPT, FORCE_RELEASE, ROTATE},
    },
    schema::Kind,
};
use serde_json::Value;

use super::cache::{Change, resource_of};
use crate::{tenancy, tenant::namespace::TENANT_LABEL};

/// The namespaces of the tenancies to look at.
pub(super) fn wakes(change: &Change, tenants: &[Tenant]) -> BTreeSet<String> {
    match resource_of(&change.key) {
        Some(resource) => {
            if !is_meaningful(change) {
                return BTreeSet::new();
            }
            match resource.kind {
                Kind::Agent | Kind::Quota => BTreeSet::from([resource.namespace]),
                Kind::Tenant => of_tenant(change, tenants),
            }
        }
        None => of_object(change, tenants),
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
        Some((of("/spec"), metadata, [ADOPT, FORCE_RELEASE, ROTATE].map(annotation)))
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

/// Its own, and where it came or went also those of who would share a name with it.
fn of_tenant(change: &Change, tenants: &[Tenant]) -> BTreeSet<String> {
    let parse = |object: &std::sync::Arc<Value>| serde_json::from_value::<Tenant>(Value::clone(object)).ok();
    let both = [&change.before, &change.now].map(|object| object.as_ref().and_then(parse));
    let own: BTreeSet<String> = both.iter().flatten().flat_map(spaces).collect();
    let uid = |tenant: &Option<Tenant>| tenant.as_ref().and_then(|tenant| tenant.metadata.uid.clone());
    if uid(&both[0]) == uid(&both[1]) {
        return both.iter().flatten().filter_map(tenancy::namespace).collect();
    }
    let sharing = tenants.iter().filter(|tenant| spaces(tenant).iter().any(|space| own.contains(space)));
    both.iter().flatten().chain(sharing).filter_map(tenancy::namespace).collect()
}

/// Every namespace that a tenant claims.
fn spaces(tenant: &Tenant) -> Vec<String> {
    let name = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).ok();
    let derived = name.iter().flat_map(|name| [name.namespace(), name.hub_namespace()]);
    derived.chain(tenancy::namespace(tenant)).collect()
}

/// The tenants that claim the namespace that it is in, or that it is; and the one that its label names.
fn of_object(change: &Change, tenants: &[Tenant]) -> BTreeSet<String> {
    let space = if change.key.kind == "Namespace" { &change.key.name } else { &change.key.namespace };
    let object = change.now.as_ref().or(change.before.as_ref());
    let label = object.and_then(|object| object.get("metadata")?.get("labels")?.get(TENANT_LABEL)?.as_str());
    let concerned = tenants
        .iter()
        .filter(|tenant| spaces(tenant).contains(space) || (label.is_some() && tenant.metadata.name.as_deref() == label));
    concerned.filter_map(tenancy::namespace).collect()
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

    fn known() -> Vec<Tenant> {
        let elsewhere = tenant("globex", &json!({"spec": {"tier": "Free", "namespace": "acb-acme"}}));
        [tenant("acme", &json!({})), elsewhere].into_iter().map(|value| serde_json::from_value(value).unwrap()).collect()
    }

    #[test]
    fn a_status_of_ours_wakes_nobody() {
        let before = tenant("acme", &json!({}));
        let now = tenant("acme", &json!({"status": {"agents": 3}}));
        assert!(wakes(&change(Some(before.clone()), Some(now)), &known()).is_empty());
        let metadata = |annotations: Value| json!({"metadata": {"name": "acme", "uid": "acme", "annotations": annotations}});
        let annotated = tenant("acme", &metadata(json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"})));
        assert!(wakes(&change(Some(before.clone()), Some(annotated)), &known()).is_empty());
        for asked in [ADOPT, FORCE_RELEASE, ROTATE] {
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
        let initech = tenant("initech", &json!({"spec": {"tier": "Free", "namespace": "acbhub-acme"}}));
        let woken = wakes(&change(None, Some(initech)), &known());
        assert_eq!(woken, BTreeSet::from(["acb-acme".to_owned(), "acbhub-acme".to_owned()]));
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
}
