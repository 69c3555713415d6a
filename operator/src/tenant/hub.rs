//! A tenant's hub as objects: what it is given is the contract in `docs/architecture.md`.

use acb_crds::names::objects;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{space::labels, validate::ValidatedTenant};
use crate::{
    plan::SecretRef,
    platform::{Platform, PlatformBus, PlatformPostgres},
};

/// The hub's port for agents.
pub const GRPC_PORT: u16 = 8443;
/// The hub's port for probes and metrics.
pub const OPS_PORT: u16 = 8080;

/// The Secrets of one tenant, by name and generation.
#[derive(Clone, Debug, PartialEq)]
pub struct HubSecrets {
    /// In the operator's namespace.
    pub authority: SecretRef,
    /// The hub's leaf.
    pub tls: SecretRef,
    /// Signing key, pepper, key of refresh tokens.
    pub keys: SecretRef,
    /// The login to PostgreSQL.
    pub postgres: SecretRef,
    /// The login to Kafka, where it is used.
    pub kafka: Option<SecretRef>,
}

/// `hub.json`. A struct rather than JSON, so that its text is always the same.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HubConfig<'a> {
    tenant: &'a str,
    tenant_id: String,
    bus: &'a PlatformBus,
    postgres: &'a PlatformPostgres,
}

/// The text of `hub.json`.
#[must_use]
pub fn config_text(tenant: &ValidatedTenant, platform: &Platform) -> String {
    let config =
        HubConfig { tenant: tenant.name.as_str(), tenant_id: tenant.id.hex(), bus: &platform.bus, postgres: &platform.postgres };
    serde_json::to_string_pretty(&config).unwrap_or_default()
}

/// The names in the hub's certificate.
#[must_use]
pub fn tls_names(tenant: &ValidatedTenant, platform: &Platform) -> Vec<String> {
    let service = format!("{}.{}", objects::HUB, tenant.name.hub_namespace());
    let mut names = vec![service.clone(), format!("{service}.svc"), format!("{service}.svc.cluster.local")];
    names.extend(tenant.hub.gateway.iter().map(|gateway| gateway.hostname.clone()));
    names.extend(platform.extra_tls_names.iter().cloned());
    names
}

/// ConfigMap `hub-config`.
#[must_use]
pub fn config_map(tenant: &ValidatedTenant, platform: &Platform) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": objects::HUB_CONFIG, "namespace": tenant.name.hub_namespace(), "labels": labels(tenant, "hub")},
        "data": {"hub.json": config_text(tenant, platform)},
    })
}

/// The Service that agents reach the hub by.
#[must_use]
pub fn service(tenant: &ValidatedTenant) -> Value {
    let kind = tenant.hub.service.as_ref().and_then(|service| service.r#type).map_or("ClusterIP", |kind| kind.as_str());
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": objects::HUB, "namespace": tenant.name.hub_namespace(), "labels": labels(tenant, "hub")},
        "spec": {
            "type": kind,
            "selector": selector(tenant),
            "ports": [{"name": "grpc", "port": GRPC_PORT, "targetPort": "grpc", "protocol": "TCP", "appProtocol": "https"}],
        },
    })
}

fn selector(tenant: &ValidatedTenant) -> Value {
    json!({
        "app.kubernetes.io/name": "acb",
        "app.kubernetes.io/component": "hub",
        "app.kubernetes.io/instance": tenant.name.as_str(),
    })
}

fn probe(path: &str, period: u32) -> Value {
    json!({"httpGet": {"path": path, "port": "ops"}, "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": 3})
}

/// The Deployment `hub`. A new generation of a Secret changes a volume's name, and so rolls it.
#[must_use]
pub fn deployment(tenant: &ValidatedTenant, secrets: &HubSecrets, platform: &Platform) -> Value {
    let mut volumes = vec![json!({"name": "config", "configMap": {"name": objects::HUB_CONFIG}})];
    let mounted = [
        ("tls", Some(&secrets.tls)),
        ("keys", Some(&secrets.keys)),
        ("postgres", Some(&secrets.postgres)),
        ("kafka", secrets.kafka.as_ref()),
    ];
    for (name, secret) in mounted {
        if let Some(secret) = secret {
            volumes.push(json!({"name": name, "secret": {"secretName": secret.object_name(), "defaultMode": 0o440}}));
        }
    }
    let mounts: Vec<Value> = volumes
        .iter()
        .map(|volume| {
            let name = volume["name"].as_str().unwrap_or_default();
            json!({"name": name, "mountPath": format!("/etc/acb/{name}"), "readOnly": true})
        })
        .collect();
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let env = vec![
        field("ACB_POD_NAME", "metadata.name"),
        field("ACB_POD_IP", "status.podIP"),
        json!({"name": "ACB_GRPC_PORT", "value": GRPC_PORT.to_string()}),
        json!({"name": "ACB_OPS_PORT", "value": OPS_PORT.to_string()}),
        json!({"name": "ACB_CONFIG_DIR", "value": "/etc/acb"}),
    ];
    let mut container = json!({
        "name": objects::HUB,
        "image": platform.hub_image,
        "command": ["acb-hub"],
        "env": env,
        "ports": [
            {"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"},
            {"name": "ops", "containerPort": OPS_PORT, "protocol": "TCP"},
        ],
        "volumeMounts": mounts,
        "readinessProbe": probe("/readyz", 2),
        "livenessProbe": probe("/livez", 10),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    });
    if let Some(resources) = &tenant.hub.resources {
        container["resources"] = json!(resources);
    }
    let mut pod = json!({
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    });
    if !tenant.hub.node_selector.is_empty() {
        pod["nodeSelector"] = json!(tenant.hub.node_selector);
    }
    if !tenant.hub.tolerations.is_empty() {
        pod["tolerations"] = json!(tenant.hub.tolerations);
    }
    if let Some(affinity) = &tenant.hub.affinity {
        pod["affinity"] = affinity.clone();
    }
    // A hub reads its configuration once: a change rolls it.
    let config = hex::encode(&Sha256::digest(config_text(tenant, platform))[..8]);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": objects::HUB, "namespace": tenant.name.hub_namespace(), "labels": labels(tenant, "hub")},
        "spec": {
            "replicas": tenant.replicas,
            "selector": {"matchLabels": selector(tenant)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": labels(tenant, "hub"), "annotations": {"acb.dev/config": config}},
                "spec": pod,
            },
        },
    })
}
