//! A tenant's hub as objects: what it is given is the contract in `docs/architecture.md`.

use std::collections::BTreeSet;

use acb_crds::{names::objects, quantity::Quantity, resources::ResourceRequirements};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{World, hub_names, hub_secrets::HubSecrets, rotation, space::labels, validate::ValidatedTenant};
use crate::{
    difference::digest,
    effect::kubernetes::{AUTHORITY, ObjectKey},
    plan::SecretRef,
    platform::{Platform, PlatformBus, PlatformPostgres, PlatformTracing, PlatformWitness},
};

/// The hub's port for agents.
pub const GRPC_PORT: u16 = 8443;
/// The hub's port for probes and metrics.
pub const OPS_PORT: u16 = 8080;

/// The annotation of the Deployment with a digest of what that certificate was made for: names and authority.
const TLS_FOR: &str = "acb.dev/tls-for";

/// The annotation of the Deployment with the addresses of a load balancer that the certificate was made for.
const TLS_ADDRESSES: &str = "acb.dev/tls-addresses";

/// The annotation of the pods with a digest of `hub.json`.
pub(super) const CONFIG_DIGEST: &str = "acb.dev/config";

/// `hub.json`. A struct rather than JSON, so that its text is always the same.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HubConfig<'a> {
    tenant: &'a str,
    tenant_id: String,
    bus: &'a PlatformBus,
    postgres: &'a PlatformPostgres,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracing: Option<&'a PlatformTracing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    witness: Option<&'a PlatformWitness>,
}

/// The text of `hub.json`.
#[must_use]
pub fn config_text(tenant: &ValidatedTenant, platform: &Platform) -> String {
    let config = HubConfig {
        tenant: tenant.name.as_str(),
        tenant_id: tenant.id.hex(),
        bus: &platform.bus,
        postgres: &platform.postgres,
        tracing: platform.tracing.as_ref(),
        witness: platform.witness.as_ref(),
    };
    serde_json::to_string_pretty(&config).unwrap_or_default()
}

fn tls_digest(authority: &SecretRef, names: &[String]) -> String {
    let text = format!("{} {}", authority.object_name(), names.join(","));
    digest(text)
}

fn annotation<'a>(found: &'a Value, name: &str) -> Option<&'a str> {
    found.pointer("/metadata/annotations").and_then(|annotations| annotations.get(name)).and_then(Value::as_str)
}

/// Whether the certificate in use was made for fewer addresses than the hub is to be reached by.
pub(super) fn lacks_address(found: &Value, secrets: &HubSecrets) -> bool {
    let known = annotation(found, TLS_ADDRESSES).unwrap_or_default();
    secrets.tls_addresses.iter().any(|address| !known.split(',').any(|known| known == address))
}

/// The newest generation of each Secret; the next where that no longer serves, where a rotation was asked for, or where the one that the Deployment was made with is gone:
/// another of the same name would change what is in it without the hub's knowing.
#[must_use]
pub fn secrets(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> HubSecrets {
    let space = tenant.name.hub_namespace();
    let found = world.objects.get(&ObjectKey::new("apps/v1", "Deployment", &space, objects::HUB));
    let mounted = rotation::mounted(tenant, world);
    let next = |namespace: &str, name: &str, in_use: &[&str]| {
        let mut secret = world.secret(namespace, name);
        // The authority is none of these: agents hold its certificate.
        if namespace == space && rotation::is_asked(tenant, world, &secret) {
            secret.generation += 1;
        }
        let generation = |used: &&str| used.strip_prefix(name)?.strip_prefix('-')?.parse::<u64>().ok();
        let used = in_use.iter().filter_map(generation).max().unwrap_or_default();
        if used >= secret.generation && !world.secrets.contains(&SecretRef { generation: used, ..secret.clone() }) {
            secret.generation = used + 1;
        }
        secret
    };
    let made_with: Vec<&str> = found.and_then(|found| annotation(found, AUTHORITY)).into_iter().collect();
    let authority = next(&platform.operator_namespace, &tenant.id.authority_secret(), &made_with);
    let mut tls = next(&space, objects::HUB_TLS, &mounted);
    // What a certificate holds can't be seen from here; what it was made for is written on what mounts it.
    let made_for = found.and_then(|found| annotation(found, TLS_FOR));
    let is_in_use = mounted.contains(&tls.object_name().as_str());
    let known = found.and_then(|found| annotation(found, TLS_ADDRESSES)).unwrap_or_default();
    let known = known.split(',').filter(|address| !address.is_empty()).map(str::to_owned).collect();
    let tls_addresses: Vec<String> = hub_names::addresses(tenant, world, &known, !is_in_use).into_iter().collect();
    let tls_names = [hub_names::written(tenant, platform), tls_addresses.clone()].concat();
    let other = made_for.is_some_and(|made_for| made_for != tls_digest(&authority, &tls_names));
    if other && is_in_use && !world.held {
        tls.generation += 1;
    }
    HubSecrets {
        authority,
        tls,
        keys: next(&space, objects::HUB_KEYS, &mounted),
        postgres: next(&space, objects::HUB_POSTGRES, &mounted),
        kafka: platform.has_kafka().then(|| next(&space, objects::HUB_KAFKA, &mounted)),
        tls_names,
        tls_addresses,
    }
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

/// By which the hub's pods are found.
#[must_use]
pub fn selector(tenant: &ValidatedTenant) -> Value {
    json!({
        "app.kubernetes.io/name": "acb",
        "app.kubernetes.io/component": "hub",
        "app.kubernetes.io/instance": tenant.name.as_str(),
    })
}

/// What everything of ACB's carries, and by which the pods are found.
fn pod_labels(tenant: &ValidatedTenant) -> Value {
    let mut labels = labels(tenant, "hub");
    labels["app.kubernetes.io/instance"] = json!(tenant.name.as_str());
    labels
}

fn probe(path: &str, period: u32) -> Value {
    json!({"httpGet": {"path": path, "port": "ops"}, "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": 3})
}

/// An empty list is left out, as an API server leaves it out.
fn resources(resources: &ResourceRequirements) -> Value {
    let mut wanted = Map::new();
    for (name, list) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        let stored = |quantity: &Quantity| quantity.canonical().map_or_else(|| json!(quantity), |stored| json!(stored));
        let set: Map<_, _> = list.iter().map(|(name, quantity)| (name.clone(), stored(quantity))).collect();
        if !set.is_empty() {
            wanted.insert(name.to_owned(), Value::Object(set));
        }
    }
    Value::Object(wanted)
}

/// One replica beside another only where there is no other node or zone left.
fn spread(tenant: &ValidatedTenant) -> Value {
    let over = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"];
    json!(over.map(|key| {
        json!({
            "topologyKey": key, "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(tenant)},
        })
    }))
}

/// The Deployment `hub`, but for the number of its replicas. A new generation of a Secret changes a volume's name, and so rolls it.
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
    // For as long as a store has not taken the new password. Afterwards they are empty, and nothing rolls for that.
    for (name, secret) in [("postgres-previous", Some(&secrets.postgres)), ("kafka-previous", secrets.kafka.as_ref())] {
        if let Some(before) = secret.and_then(SecretRef::before) {
            let secret = json!({"secretName": before.object_name(), "defaultMode": 0o440, "optional": true});
            volumes.push(json!({"name": name, "secret": secret}));
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
        "image": tenant.hub.image.as_ref().unwrap_or(&platform.hub_image),
        "command": ["/acb-hub"],
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
    // An autoscaler measures against what is requested: there is always something. The limit is more than a hub's queues hold when all
    // of them are full, and keeps one tenant's hub from taking the memory of the node's others.
    container["resources"] = match &tenant.hub.resources {
        Some(given) => resources(given),
        None => json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}),
    };
    // Without a request an autoscaler has nothing to measure against, and never scales.
    let has_cpu = |list: &str| container["resources"].pointer(&format!("/{list}/cpu")).is_some();
    if tenant.range.is_some() && !has_cpu("requests") && !has_cpu("limits") {
        container["resources"]["requests"]["cpu"] = json!("100m");
    }
    let mut pod = json!({
        "serviceAccountName": objects::HUB,
        "automountServiceAccountToken": false,
        "topologySpreadConstraints": spread(tenant),
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": volumes,
    });
    if let Some(user) = platform.run_as_user {
        for field in ["runAsUser", "runAsGroup", "fsGroup"] {
            pod["securityContext"][field] = json!(user);
        }
    }
    if !tenant.hub.node_selector.is_empty() {
        pod["nodeSelector"] = json!(tenant.hub.node_selector);
    }
    if !tenant.hub.tolerations.is_empty() {
        pod["tolerations"] = json!(tenant.hub.tolerations);
    }
    if let Some(affinity) = &tenant.hub.affinity {
        pod["affinity"] = json!(affinity);
    }
    let template = tenant.hub.pod_template.clone().unwrap_or_default();
    let pull_secrets: BTreeSet<_> = platform.hub_image_pull_secrets.iter().chain(&tenant.hub.image_pull_secrets).collect();
    if !pull_secrets.is_empty() {
        pod["imagePullSecrets"] = json!(pull_secrets);
    }
    if let Some(class) = &template.priority_class_name {
        pod["priorityClassName"] = json!(class);
    }
    // What is ACB's own comes last: the pods are found by it.
    let own = pod_labels(tenant);
    let mut pod_labels = json!(template.labels);
    if let (Some(pod_labels), Value::Object(own)) = (pod_labels.as_object_mut(), own) {
        pod_labels.extend(own);
    }
    let mut pod_annotations = json!(template.annotations);
    // A hub reads its configuration once: a change rolls it.
    pod_annotations[CONFIG_DIGEST] = json!(digest(config_text(tenant, platform)));
    let mut annotations = json!({
        AUTHORITY: secrets.authority.object_name(),
        TLS_FOR: tls_digest(&secrets.authority, &secrets.tls_names),
    });
    if !secrets.tls_addresses.is_empty() {
        annotations[TLS_ADDRESSES] = json!(secrets.tls_addresses.join(","));
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": objects::HUB, "namespace": tenant.name.hub_namespace(), "labels": labels(tenant, "hub"),
            "annotations": annotations,
        },
        "spec": {
            "selector": {"matchLabels": selector(tenant)},
            // Nothing is ever rolled back by a ReplicaSet: the plan is what there is to be. Two show what was changed last.
            "revisionHistoryLimit": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {
                "metadata": {"labels": pod_labels, "annotations": pod_annotations},
                "spec": pod,
            },
        },
    })
}
