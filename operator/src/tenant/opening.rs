//! What comes before everything else where this operator may not act in a tenant's namespaces (yet, or any more, because its binding was
//! removed): while their Secrets can't be read, nothing may be decided from their absence, and nothing in them can be taken down.

use super::{World, plan, validate::ValidatedTenant};
use crate::{
    plan::{KubernetesStep, Plan, Step},
    platform::Platform,
};

/// What gives the operator its right to the tenant's namespaces; `None`: it has it, or, of one on its way out, they are not its own.
#[must_use]
pub fn opening(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Option<Plan> {
    // One on its way out, too: its hub is in there.
    let is_own = |space: &String| {
        let hub = *space == tenant.name.hub_namespace();
        !tenant.deleting || if hub { tenant.owned.hub } else { tenant.owned.namespace }
    };
    if !world.closed.iter().any(is_own) {
        return None;
    }
    let opens = |step: &Step| match step {
        Step::Kubernetes(KubernetesStep::Apply { object }) => {
            let space = |pointer: &str| object.pointer(pointer).and_then(|space| space.as_str()).unwrap_or_default().to_owned();
            match object["kind"].as_str() {
                Some("Namespace") => is_own(&space("/metadata/name")),
                Some("RoleBinding") => is_own(&space("/metadata/namespace")),
                _ => false,
            }
        }
        _ => false,
    };
    Some(Plan { steps: plan::plan(tenant, world, platform).steps.into_iter().filter(opens).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use acb_crds::Tenant;
    use serde_json::json;

    use super::*;
    use crate::{effect::kubernetes::ObjectKey, platform::PlatformPostgres, tenant::validate::validate};

    fn acme() -> Tenant {
        serde_json::from_value(json!({
            "apiVersion": acb_crds::API_VERSION, "kind": "Tenant",
            "metadata": {"name": "acme", "uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"tier": "Free"},
        }))
        .unwrap()
    }

    #[test]
    fn a_closed_namespace_is_opened_before_it_is_taken_down() {
        let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
        let platform = Platform::new(postgres);
        let mut world = World::default();
        let tenant = validate(&acme(), &world, &platform).unwrap();
        assert_eq!(opening(&tenant, &world, &platform), None);
        world.closed.insert("acbhub-acme".to_owned());
        assert_eq!(opening(&tenant, &world, &platform), None, "nothing is done to another's namespaces");
        let labels = json!({"acb.dev/tenant": "acme", "acb.dev/tenant-uid": "u"});
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acbhub-acme", "labels": labels}});
        world.objects.insert(ObjectKey::of(&space).unwrap(), space);
        let tenant = validate(&acme(), &world, &platform).unwrap();
        let plan = opening(&tenant, &world, &platform).unwrap();
        let kind = |step: &Step| match step {
            Step::Kubernetes(KubernetesStep::Apply { object }) => object["kind"].as_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        let kinds: Vec<String> = plan.steps.iter().map(kind).collect();
        assert!(kinds.contains(&"RoleBinding".to_owned()), "{kinds:?}");
        assert!(kinds.iter().all(|kind| kind == "RoleBinding" || kind == "Namespace"), "{kinds:?}");
    }
}
