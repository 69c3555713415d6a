//! Whether a hub is to roll for the platform's sake: another image, other authorities, other names, a certificate that is to be renewed. A
//! change of the Tenant's own is held up by nobody. What is wanted is compared with what was applied last, and never with what is found: a
//! foreign hand's change is no roll, and is set right at once. Pure.

use acb_crds::names::{TenantName, objects};
use serde_json::{Value, json};

use super::{World, hub, hub_secrets::HubSecrets, newest, rotation, validate::ValidatedTenant};
use crate::{
    difference,
    effect::kubernetes::{AUTHORITY, ObjectKey},
    plan::SecretRef,
    platform::Platform,
};

/// What all annotations of ACB's begin with.
const OURS: &str = "acb.dev/";

/// The annotation of the Deployment with a digest of what of the Tenant's own it was made from.
const MADE_FROM: &str = "acb.dev/made-from";

/// The annotation of the Deployment with the pod template that was applied, or its digest where it is large.
const PODS: &str = "acb.dev/pods";

/// Annotations of an object have 256 KiB together: a template that takes more of it would keep the Deployment from being applied at all.
const MOST_KEPT: usize = 128 * 1024;

/// The annotation of the Deployment with whose change its newest revision is.
const ROLLED_BY: &str = "acb.dev/rolled-by";
const PLATFORM: &str = "platform";
const TENANT: &str = "tenant";
/// The platform's, and every replica had it once: what a replica lacks later is no roll.
const THROUGH: &str = "platform-through";

/// What of the Tenant's own may roll its hub: what reaches the pods, and the names in the certificate.
fn own(tenant: &ValidatedTenant) -> String {
    let hub = &tenant.hub;
    let fields = json!([
        hub.image,
        hub.image_pull_secrets,
        hub.pod_template,
        hub.resources,
        hub.node_selector,
        hub.tolerations,
        hub.affinity,
        hub.hostnames,
    ]);
    difference::digest(fields.to_string())
}

/// Whether the Tenant asked for credentials that its hub does not have yet.
fn is_rotating(tenant: &ValidatedTenant, world: &World) -> bool {
    let mounted = rotation::mounted(tenant, world);
    let names = [objects::HUB_TLS, objects::HUB_KEYS, objects::HUB_POSTGRES, objects::HUB_KAFKA];
    names.into_iter().any(|name| {
        let newest = newest(&world.secrets, &tenant.name.hub_namespace(), name);
        let asked = world.details.get(&newest).and_then(|details| details.asked.as_ref());
        let is_made = asked.is_some() && asked == tenant.rotate.as_ref() && !mounted.contains(&newest.object_name().as_str());
        is_made || rotation::is_asked(tenant, world, &newest)
    })
}

/// Whether a change of the Tenant's own rolls the hub, whatever else does.
fn is_own(tenant: &ValidatedTenant, world: &World, found: &Value) -> bool {
    annotation(found, MADE_FROM).is_some_and(|made_from| made_from != own(tenant)) || is_rotating(tenant, world)
}

fn planned<'a>(name: &TenantName, world: &'a World) -> Option<&'a Value> {
    world.objects.get(&ObjectKey::new("apps/v1", "Deployment", &name.hub_namespace(), objects::HUB))
}

fn annotation<'a>(found: &'a Value, name: &str) -> Option<&'a str> {
    found.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Whether a Secret that the hub can't be without is gone: its next replica would not start, and agents have the certificate of no authority.
fn lacks_secret(found: &Value, tenant: &ValidatedTenant, world: &World, platform: &Platform) -> bool {
    let volumes = found.pointer("/spec/template/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let needed = volumes.filter_map(|volume| volume.get("secret")).filter(|secret| secret["optional"] != true);
    let space = tenant.name.hub_namespace();
    let mounted = needed.filter_map(|secret| secret["secretName"].as_str()).map(|name| (space.as_str(), name));
    let authority = annotation(found, AUTHORITY).map(|name| (platform.operator_namespace.as_str(), name));
    let is_there = |namespace: &str, name: &str| {
        let parts = name.rsplit_once('-').and_then(|(name, generation)| Some((name, generation.parse::<u64>().ok()?)));
        parts.is_some_and(|(name, generation)| {
            world.secrets.contains(&SecretRef { namespace: namespace.to_owned(), name: name.to_owned(), generation })
        })
    };
    mounted.chain(authority).any(|(namespace, name)| !is_there(namespace, name))
}

/// Whether agents can't connect, or soon can't: the certificate is close to its end, or lacks an address that the Service has.
fn lacks_certificate(found: &Value, secrets: &HubSecrets, tenant: &ValidatedTenant, world: &World) -> bool {
    let newest = newest(&world.secrets, &tenant.name.hub_namespace(), objects::HUB_TLS);
    world.overdue.contains(&newest) || hub::lacks_address(found, secrets)
}

/// A pod template as it is written down.
fn kept(template: &Value) -> Value {
    let text = template.to_string();
    if text.len() > MOST_KEPT { json!(difference::digest(text)) } else { template.clone() }
}

/// The pod template that was applied last, as it was written down.
fn applied(found: &Value) -> Option<Value> {
    serde_json::from_str(annotation(found, PODS)?).ok()
}

/// Whether the pods that are wanted are others than those that were applied last.
fn is_other(wanted: &Value, found: &Value) -> bool {
    if let Some(applied) = applied(found) {
        return kept(&wanted["spec"]["template"]) != applied;
    }
    let pods = |object: &Value| json!({"kind": "Deployment", "spec": {"template": object["spec"]["template"]}});
    difference::differs(&pods(wanted), &pods(found))
}

/// Whether the hub is to roll, and neither the Tenant's own nor an agent's need asks for it.
#[must_use]
pub fn is_due(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> bool {
    // What starts for the first time takes nobody's agents away.
    let Some(found) = planned(&tenant.name, world) else { return false };
    if is_own(tenant, world, found) || lacks_secret(found, tenant, world, platform) {
        return false;
    }
    let secrets = hub::secrets(tenant, world, platform);
    !lacks_certificate(found, &secrets, tenant, world) && is_other(&hub::deployment(tenant, &secrets, platform), found)
}

/// Whether the newest revision of the hub came from the platform, and was not seen everywhere yet.
#[must_use]
pub fn is_of_platform(name: &TenantName, world: &World) -> bool {
    let found = planned(name, world);
    found.and_then(|found| annotation(found, ROLLED_BY)) == Some(PLATFORM)
}

/// What of a pod template does not follow from the Tenant's own alone.
fn platforms(template: &Value, tenant: &ValidatedTenant, is_rotating: bool) -> Value {
    let mut template = template.clone();
    template["metadata"] = json!(template.pointer("/metadata/annotations").and_then(|all| all.get(hub::CONFIG_DIGEST)));
    if let Some(pod) = template["spec"].as_object_mut() {
        for field in ["imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations", "affinity"] {
            pod.remove(field);
        }
        if is_rotating {
            pod.remove("volumes");
        }
    }
    if let Some(container) = template.pointer_mut("/spec/containers/0").and_then(Value::as_object_mut) {
        container.remove("resources");
        if tenant.hub.image.is_some() {
            container.remove("image");
        }
        if is_rotating {
            container.remove("volumeMounts");
        }
    }
    template
}

/// Whether more than the Tenant's own changes: such a roll says of the platform's change whether it comes up.
fn is_both(deployment: &Value, found: &Value, tenant: &ValidatedTenant, world: &World) -> bool {
    let Some(applied) = applied(found).filter(Value::is_object) else { return false };
    let part = |template: &Value| platforms(template, tenant, is_rotating(tenant, world));
    part(&applied) != part(&deployment["spec"]["template"])
}

/// Writes down what the Deployment was made from, and whose change it is.
pub(super) fn mark(deployment: &mut Value, tenant: &ValidatedTenant, world: &World) {
    let by = match planned(&tenant.name, world) {
        None => TENANT,
        Some(found) => {
            let before = annotation(found, ROLLED_BY).unwrap_or(TENANT);
            let is_under_way = before == PLATFORM && !world.rolled_out;
            if is_own(tenant, world, found) {
                // A change of the Tenant's own on top does not say that the platform's came up.
                if is_under_way || is_both(deployment, found, tenant, world) { PLATFORM } else { TENANT }
            } else if is_other(deployment, found) || is_under_way {
                PLATFORM
            } else if before == PLATFORM {
                THROUGH
            } else {
                before
            }
        }
    };
    let by = by.to_owned();
    let pods = kept(&deployment["spec"]["template"]).to_string();
    let annotations = &mut deployment["metadata"]["annotations"];
    (annotations[MADE_FROM], annotations[ROLLED_BY]) = (json!(own(tenant)), json!(by));
    annotations[PODS] = json!(pods);
}

/// The Deployment while its hub waits for its turn: pods as they were applied last, so that what a foreign hand changed in them goes, and all
/// else as it is wanted now. `None` where it was not written down how they were.
pub(super) fn as_applied(mut deployment: Value, tenant: &ValidatedTenant, world: &World) -> Option<Value> {
    let found = planned(&tenant.name, world)?;
    deployment["spec"]["template"] = applied(found).filter(Value::is_object)?;
    let annotations = found.pointer("/metadata/annotations").and_then(Value::as_object).into_iter().flatten();
    let ours = annotations.filter(|(name, _)| name.starts_with(OURS));
    deployment["metadata"]["annotations"] = ours.map(|(name, value)| (name.clone(), value.clone())).collect();
    Some(deployment)
}
