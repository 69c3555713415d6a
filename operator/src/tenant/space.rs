//! The two namespaces of a tenant, and what guards them.

use serde_json::{Value, json};

use super::validate::{TENANT_LABEL, TENANT_UID_LABEL, ValidatedTenant};

/// What everything that ACB makes carries.
#[must_use]
pub fn labels(tenant: &ValidatedTenant, component: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "acb",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/instance": tenant.name.as_str(),
        "app.kubernetes.io/part-of": "acb",
        "app.kubernetes.io/managed-by": "acb-operator",
        TENANT_LABEL: tenant.name.as_str(),
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

/// The namespaces that the operator makes: the hub's, and the tenant's own unless the platform gave it one.
#[must_use]
pub fn namespaces(tenant: &ValidatedTenant) -> Vec<Value> {
    let mut namespaces = vec![namespace(tenant, &tenant.name.hub_namespace(), "hub")];
    if tenant.own_namespace {
        namespaces.push(namespace(tenant, &tenant.namespace, "tenant"));
    }
    namespaces
}

/// Nothing reaches the hub's namespace but agents at the hub's port; who else may is in the spec.
#[must_use]
pub fn network_policies(tenant: &ValidatedTenant) -> Vec<Value> {
    let space = tenant.name.hub_namespace();
    let policy = |name: &str, spec: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": space, "labels": labels(tenant, "hub")},
            "spec": spec,
        })
    };
    let mut peers = vec![json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace}}})];
    for peer in &tenant.hub.ingress_peers {
        if let Some(name) = &peer.namespace {
            peers.push(json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}));
        }
        if let Some(cidr) = &peer.cidr {
            peers.push(json!({"ipBlock": {"cidr": cidr}}));
        }
    }
    vec![
        policy("default-deny", json!({"podSelector": {}, "policyTypes": ["Ingress"]})),
        policy(
            "agents-to-hub",
            json!({
                "podSelector": {"matchLabels": {"app.kubernetes.io/component": "hub"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": peers, "ports": [{"port": "grpc", "protocol": "TCP"}]}],
            }),
        ),
    ]
}

/// Binds the tenant's admins to what a tenant's admin may do, in its own namespace only.
#[must_use]
pub fn admins(tenant: &ValidatedTenant) -> Option<Value> {
    let subject = |subject: &acb_crds::tenant::Subject| {
        let mut value = json!({"kind": subject.kind.as_str(), "name": subject.name});
        match &subject.namespace {
            Some(namespace) => value["namespace"] = json!(namespace),
            None => value["apiGroup"] = json!("rbac.authorization.k8s.io"),
        }
        value
    };
    (!tenant.admins.is_empty()).then(|| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "acb-tenant-admins", "namespace": tenant.namespace, "labels": labels(tenant, "tenant")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "acb-tenant-admin"},
            "subjects": tenant.admins.iter().map(subject).collect::<Vec<_>>(),
        })
    })
}
