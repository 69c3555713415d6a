//! How a hub's credentials are replaced without dropping an agent. PostgreSQL and Kafka hold one password of a user, so there is a moment
//! from which the old one opens nothing more. Before it every replica has both: the Deployment rolls to the new Secret, with the one before
//! it beside it, and only then the store takes the new password (docs/adr/0006). Pure.

use acb_crds::{common::CredentialStatus, names::objects};
use serde_json::Value;

use super::{World, hub_secrets::HubSecrets, validate::ValidatedTenant};
use crate::{
    effect::kubernetes::ObjectKey,
    observed::LoginState,
    plan::{KubernetesStep, SecretRef, Step},
};

/// The Secrets that the hub's Deployment mounts.
pub(super) fn mounted<'a>(tenant: &ValidatedTenant, world: &'a World) -> Vec<&'a str> {
    let key = ObjectKey::new("apps/v1", "Deployment", &tenant.name.hub_namespace(), objects::HUB);
    let volumes =
        world.objects.get(&key).and_then(|found| found.pointer("/spec/template/spec/volumes")).and_then(Value::as_array);
    volumes.into_iter().flatten().filter_map(|volume| volume["secret"]["secretName"].as_str()).collect()
}

/// Whether a request for a rotation was made that this Secret does not answer.
pub(super) fn is_asked(tenant: &ValidatedTenant, world: &World, secret: &SecretRef) -> bool {
    let Some(asked) = &tenant.rotate else { return false };
    let answered = world.details.get(secret).and_then(|details| details.asked.as_ref()) == Some(asked);
    // One at a time: as long as the Secret before is there, some replica or some store may still need it.
    let under_way = secret.before().is_some_and(|before| world.secrets.contains(&before));
    world.secrets.contains(secret) && !answered && !under_way
}

/// Whether every replica has this Secret, and none of an earlier revision is left.
fn is_everywhere(tenant: &ValidatedTenant, world: &World, secret: &SecretRef) -> bool {
    world.rolled_out && mounted(tenant, world).contains(&secret.object_name().as_str())
}

/// Whether a store should take the password in `secret` now. `newest` and `previous` say what became of logging in with the newest Secret
/// that is there, and with the one before. While the password before still works, it has to until every replica has the new one; where it
/// works no more, as when its Secret was deleted, nobody is served by waiting.
pub(super) fn is_due(
    tenant: &ValidatedTenant,
    world: &World,
    secret: &SecretRef,
    newest: LoginState,
    previous: LoginState,
) -> bool {
    let (own, before) = if world.secrets.contains(secret) {
        (newest, previous)
    } else if secret.before() == Some(super::newest(&world.secrets, &secret.namespace, &secret.name)) {
        (LoginState::Refused, newest)
    } else {
        // What is there is not what the replicas would have beside it.
        (LoginState::Refused, LoginState::Refused)
    };
    // A store that did not say may have either.
    if own == LoginState::Unknown || before == LoginState::Unknown {
        return false;
    }
    own != LoginState::Works && (before != LoginState::Works || is_everywhere(tenant, world, secret))
}

/// Removes the Secrets that were replaced, once nothing needs them: what opens nothing more should not lie around.
pub(super) fn remove_replaced(tenant: &ValidatedTenant, world: &World, secrets: &HubSecrets) -> Vec<Step> {
    let of_hub = secrets.of_hub();
    if !of_hub.iter().all(|secret| is_everywhere(tenant, world, secret)) {
        return Vec::new();
    }
    let replaced = world.secrets.iter().filter(|known| {
        of_hub.iter().any(|current| {
            (&current.namespace, &current.name) == (&known.namespace, &known.name) && known.generation < current.generation
        })
    });
    replaced
        .map(|secret| {
            Step::Kubernetes(KubernetesStep::Delete {
                api_version: "v1".to_owned(),
                kind: "Secret".to_owned(),
                namespace: secret.namespace.clone(),
                name: secret.object_name(),
            })
        })
        .collect()
}

/// What is in use, for the status. The time of a Secret that was made just now is `now`, and stays.
#[must_use]
pub fn credentials(secrets: &HubSecrets, world: &World, before: &[CredentialStatus], now: &str) -> Vec<CredentialStatus> {
    let credential = |secret: &&SecretRef| {
        let name = secret.object_name();
        let said = before.iter().find(|said| said.secret == name).map(|said| said.since.clone());
        let made = world.details.get(*secret).map(|details| details.made.clone()).filter(|made| !made.is_empty());
        CredentialStatus { secret: name, since: said.or(made).unwrap_or_else(|| now.to_owned()) }
    };
    secrets.of_hub().iter().map(credential).collect()
}
