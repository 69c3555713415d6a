//! What comes before everything else where this operator may not act in a tenant's namespaces (yet, or any more, because its binding was
//! removed): while their Secrets can't be read, nothing may be decided from their absence, and nothing in them can be taken down.

use super::{World, plan, validate::ValidatedTenant};
use crate::{
    plan::{KubernetesStep, Plan, Step},
    platform::Platform,
};

/// What gives the operator its right to the tenant's namespaces; `None`: it has it, or they are not this tenant's.
#[must_use]
pub fn opening(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Option<Plan> {
    if world.closed.is_empty() || !tenant.owns_names {
        return None;
    }
    // One on its way out, too: its hub is in there.
    let staying = ValidatedTenant { deleting: false, ..tenant.clone() };
    let opens = |step: &Step| match step {
        Step::Kubernetes(KubernetesStep::Apply { object }) => {
            matches!(object["kind"].as_str(), Some("Namespace" | "RoleBinding"))
        }
        _ => false,
    };
    Some(Plan { steps: plan::plan(&staying, world, platform).steps.into_iter().filter(opens).collect() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use acb_crds::Tenant;
    use serde_json::json;

    use super::*;
    use crate::{platform::PlatformPostgres, tenant::validate::validate};

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
        let plan = opening(&tenant, &world, &platform).unwrap();
        let kind = |step: &Step| match step {
            Step::Kubernetes(KubernetesStep::Apply { object }) => object["kind"].as_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        let kinds: Vec<String> = plan.steps.iter().map(kind).collect();
        assert!(kinds.contains(&"RoleBinding".to_owned()), "{kinds:?}");
        assert!(kinds.iter().all(|kind| kind == "RoleBinding" || kind == "Namespace"), "{kinds:?}");
        let other = ValidatedTenant { owns_names: false, ..tenant };
        assert_eq!(opening(&other, &world, &platform), None, "nothing is done to another's namespaces");
    }
}
