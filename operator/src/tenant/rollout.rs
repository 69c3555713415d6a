//! Whether a hub is to roll for the platform's sake: another image, other authorities, other names, a certificate that is to be renewed. A
//! change of the Tenant's own is held up by nobody. Pure.

use acb_crds::names::objects;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{World, hub, newest, rotation, validate::ValidatedTenant};
use crate::{difference, effect::kubernetes::ObjectKey, plan::SecretRef, platform::Platform};

/// The annotation of the Deployment with a digest of what of the Tenant's own it was made from.
const MADE_FROM: &str = "acb.dev/made-from";

/// The annotation of the Deployment with whose change its newest revision is.
const ROLLED_BY: &str = "acb.dev/rolled-by";
const PLATFORM: &str = "platform";
const TENANT: &str = "tenant";

/// What of the Tenant's own may roll its hub.
fn own(tenant: &ValidatedTenant) -> String {
    hex::encode(&Sha256::digest(json!(tenant.hub).to_string())[..8])
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

fn planned<'a>(tenant: &ValidatedTenant, world: &'a World) -> Option<&'a Value> {
    world.objects.get(&ObjectKey::new("apps/v1", "Deployment", &tenant.name.hub_namespace(), objects::HUB))
}

fn annotation<'a>(found: &'a Value, name: &str) -> Option<&'a str> {
    found.pointer("/metadata/annotations")?.get(name)?.as_str()
}

/// Whether a Secret that the hub can't be without is gone: its next replica would not start.
fn lacks_secret(found: &Value, tenant: &ValidatedTenant, world: &World) -> bool {
    let volumes = found.pointer("/spec/template/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let needed = volumes.filter_map(|volume| volume.get("secret")).filter(|secret| secret["optional"] != true);
    let names = needed.filter_map(|secret| secret["secretName"].as_str());
    let namespace = tenant.name.hub_namespace();
    let is_there = |name: &str| {
        let parts = name.rsplit_once('-').and_then(|(name, generation)| Some((name, generation.parse::<u64>().ok()?)));
        parts.is_some_and(|(name, generation)| {
            world.secrets.contains(&SecretRef { namespace: namespace.clone(), name: name.to_owned(), generation })
        })
    };
    names.into_iter().any(|name| !is_there(name))
}

/// Whether the pods that are wanted are others than those that are planned now.
fn is_other(wanted: &Value, found: &Value) -> bool {
    let pods = |object: &Value| json!({"kind": "Deployment", "spec": {"template": object["spec"]["template"]}});
    difference::differs(&pods(wanted), &pods(found))
}

/// Whether the hub is to roll, and nothing of the Tenant's own asks for it.
#[must_use]
pub fn is_due(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> bool {
    // What starts for the first time takes nobody's agents away.
    let Some(found) = planned(tenant, world) else { return false };
    if is_own(tenant, world, found) || lacks_secret(found, tenant, world) {
        return false;
    }
    is_other(&hub::deployment(tenant, &hub::secrets(tenant, world, platform), platform), found)
}

/// Whether the newest revision of the hub came from the platform.
#[must_use]
pub fn is_of_platform(tenant: &ValidatedTenant, world: &World) -> bool {
    let found = planned(tenant, world);
    found.and_then(|found| annotation(found, ROLLED_BY)) == Some(PLATFORM)
}

/// Writes down what the Deployment was made from, and whose change it is.
pub(super) fn mark(deployment: &mut Value, tenant: &ValidatedTenant, world: &World) {
    let by = match planned(tenant, world) {
        None => TENANT,
        Some(found) if is_own(tenant, world, found) => TENANT,
        Some(found) if is_other(deployment, found) => PLATFORM,
        Some(found) => annotation(found, ROLLED_BY).unwrap_or(TENANT),
    };
    let by = by.to_owned();
    let annotations = &mut deployment["metadata"]["annotations"];
    (annotations[MADE_FROM], annotations[ROLLED_BY]) = (json!(own(tenant)), json!(by));
}
