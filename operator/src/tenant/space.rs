//! The two namespaces of a tenant, and what is written on them.

use serde_json::{Map, Value, json};

use super::{
    namespace::{ADOPTED_ANNOTATION, TENANT_LABEL, TENANT_UID_LABEL, label},
    validate::ValidatedTenant,
};

/// The annotations with what a Quota may say at most: followed by `tenant-` or `agent-`, and the limit's field. The chart's admission
/// policy reads them, and denies where they are missing.
pub const CEILING_ANNOTATION: &str = "acb.dev/ceiling-";
/// The value of a ceiling that there is none of.
pub const UNLIMITED: &str = "unlimited";

/// What everything that ACB makes carries. Not `app.kubernetes.io/instance`: by that label Argo CD may take an object for one of the
/// Application of that name, and prune it.
#[must_use]
pub fn labels(tenant: &ValidatedTenant, component: &str) -> Value {
    labels_of(tenant.name.as_str(), component)
}

/// The same, of the tenant of this name.
pub(super) fn labels_of(tenant: &str, component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "acb",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "acb",
        "app.kubernetes.io/managed-by": "acb-operator",
        TENANT_LABEL: tenant,
    })
}

fn namespace(tenant: &ValidatedTenant, name: &str, component: &str) -> Value {
    let mut labels = labels(tenant, component);
    labels[TENANT_UID_LABEL] = json!(tenant.uid);
    for mode in ["enforce", "audit", "warn"] {
        labels[format!("pod-security.kubernetes.io/{mode}")] = json!("restricted");
    }
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// The namespaces: the hub's, and the tenant's own. Of one that the platform gave, only whom it serves and what it may is set.
#[must_use]
pub fn namespaces(tenant: &ValidatedTenant) -> Vec<Value> {
    let mut own = if tenant.own_namespace {
        namespace(tenant, &tenant.namespace, "tenant")
    } else {
        let labels = json!({TENANT_LABEL: tenant.name.as_str(), TENANT_UID_LABEL: tenant.uid});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant.namespace, "labels": labels}})
    };
    own["metadata"]["annotations"] = ceilings(tenant);
    let mut both = vec![namespace(tenant, &tenant.name.hub_namespace(), "hub"), own];
    // The UID says whose data it is only where that was not adopted.
    for namespace in both.iter_mut().filter(|_| tenant.adopted) {
        namespace["metadata"]["annotations"][ADOPTED_ANNOTATION] = json!(tenant.id.hex());
    }
    both
}

/// Whether a namespace that is there is written on for this tenant.
#[must_use]
pub fn serves(found: &Value, tenant: &ValidatedTenant) -> bool {
    found.pointer("/metadata/labels").and_then(|labels| labels.get(TENANT_UID_LABEL)) == Some(&json!(tenant.uid))
}

/// A namespace that the platform gave, without what ACB wrote on it. Whom it serves stays where it still says so: that is the platform's.
#[must_use]
pub fn released(tenant: &ValidatedTenant, found: &Value) -> Value {
    let is_named = label(found, TENANT_LABEL) == Some(tenant.name.as_str());
    let labels = if is_named { json!({TENANT_LABEL: tenant.name.as_str()}) } else { json!({}) };
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant.namespace, "labels": labels}})
}

/// What a Quota in the tenant's namespace may say at most, for the admission policy: it can read nothing but the namespace.
fn ceilings(tenant: &ValidatedTenant) -> Value {
    let mut annotations = Map::new();
    for (scope, limits) in [("tenant", &tenant.ceilings.tenant), ("agent", &tenant.ceilings.agent)] {
        for (field, most) in limits.entries() {
            let most = most.map_or_else(|| UNLIMITED.to_owned(), |most| most.to_string());
            annotations.insert(format!("{CEILING_ANNOTATION}{scope}-{field}"), json!(most));
        }
    }
    Value::Object(annotations)
}
