//! Who may do what in a tenant's two namespaces, to the Kubernetes API.

use acb_crds::names::objects;
use serde_json::{Value, json};

use super::{space::labels, validate::ValidatedTenant};
use crate::platform::Platform;

const RBAC: &str = "rbac.authorization.k8s.io";
/// What binds a role in a namespace.
pub const ROLE_BINDING: (&str, &str) = ("rbac.authorization.k8s.io/v1", "RoleBinding");

/// Lets the operator into a tenant's namespaces: cluster-wide it may read no Secret and write next to nothing.
#[must_use]
pub fn operator(tenant: &ValidatedTenant, platform: &Platform) -> Vec<Value> {
    let subject = json!({"kind": "ServiceAccount", "name": objects::OPERATOR, "namespace": platform.operator_namespace});
    [(tenant.name.hub_namespace(), "hub"), (tenant.namespace.clone(), "tenant")]
        .map(|(namespace, component)| {
            binding(tenant, objects::OPERATOR, &namespace, component, "acb-operator-tenant", std::slice::from_ref(&subject))
        })
        .into()
}

/// Binds the tenant's admins to what a tenant's admin may do, in its own namespace only.
#[must_use]
pub fn admins(tenant: &ValidatedTenant) -> Option<Value> {
    let subject = |subject: &acb_crds::tenant::Subject| {
        let mut value = json!({"kind": subject.kind.as_str(), "name": subject.name});
        match &subject.namespace {
            Some(namespace) => value["namespace"] = json!(namespace),
            None => value["apiGroup"] = json!(RBAC),
        }
        value
    };
    let subjects: Vec<_> = tenant.admins.iter().map(subject).collect();
    (!subjects.is_empty())
        .then(|| binding(tenant, objects::TENANT_ADMINS, &tenant.namespace, "tenant", "acb-tenant-admin", &subjects))
}

/// Lets the operator start Jobs that attack the walls, and see how they end: in the hub's namespace alone.
pub(super) fn isolation(tenant: &ValidatedTenant, platform: &Platform) -> Value {
    let subject = json!({"kind": "ServiceAccount", "name": objects::OPERATOR, "namespace": platform.operator_namespace});
    let (name, namespace) = (objects::OPERATOR_ISOLATION, tenant.name.hub_namespace());
    binding(tenant, name, &namespace, "isolation", objects::OPERATOR_ISOLATION, &[subject])
}

fn binding(tenant: &ValidatedTenant, name: &str, namespace: &str, component: &str, role: &str, subjects: &[Value]) -> Value {
    json!({
        "apiVersion": ROLE_BINDING.0, "kind": ROLE_BINDING.1,
        "metadata": {"name": name, "namespace": namespace, "labels": labels(tenant, component)},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": subjects,
    })
}

/// Who the hub is to the Kubernetes API, which it never talks to: no right, no token.
#[must_use]
pub fn hub(tenant: &ValidatedTenant) -> Value {
    account(tenant, objects::HUB)
}

/// An account without a right and without a token, in the hub's namespace.
pub(super) fn account(tenant: &ValidatedTenant, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": tenant.name.hub_namespace(), "labels": labels(tenant, name)},
        "automountServiceAccountToken": false,
    })
}
