//! What becomes of a write to Kubernetes by an operator whose cache may be behind: each says which version, or which object, it is about. The order
//! of `operator/src/runtime/kubernetes/objects.rs`.

use acb_operator::{
    effect::{EffectError, kubernetes::ObjectKey},
    plan::KubernetesStep,
};
use serde_json::{Value, json};

use crate::cache::Cache;

/// What becomes of one.
pub(crate) enum Write {
    /// It is carried out.
    Sent,
    /// Nothing is there to be done, as far as the operator knows.
    Needless,
    /// The API server says no.
    Refused(EffectError),
}

/// The object that a step writes, where it is answered with.
pub(crate) fn written(step: &KubernetesStep) -> Option<ObjectKey> {
    match step {
        KubernetesStep::Apply { object } => ObjectKey::of(object),
        KubernetesStep::PublishCertificate { namespace, name, .. } => Some(ObjectKey::new("v1", "ConfigMap", namespace, name)),
        KubernetesStep::EnsureSecret { .. } | KubernetesStep::Delete { .. } => None,
    }
}

/// The object that a step writes or removes.
pub(crate) fn target(step: &KubernetesStep) -> Option<ObjectKey> {
    match step {
        KubernetesStep::Delete { api_version, kind, namespace, name } => Some(ObjectKey::new(api_version, kind, namespace, name)),
        other => written(other),
    }
}

fn conflict(key: &ObjectKey) -> EffectError {
    EffectError::unavailable("the Kubernetes API", format!("{key} is another one by now"))
}

/// What of an object decides anything: not its status, its version, or the replicas that an autoscaler sets.
pub(crate) fn decided(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    if let Some(spec) = object.pointer_mut("/spec").and_then(Value::as_object_mut) {
        spec.remove("replicas");
    }
    object
}

/// Decides about a step, before it is carried out.
pub(crate) fn write(step: &KubernetesStep, cache: &mut Cache) -> Write {
    match step {
        KubernetesStep::Apply { object } => match ObjectKey::of(object) {
            Some(key) => apply(&key, Some(object), cache),
            None => Write::Sent,
        },
        KubernetesStep::PublishCertificate { namespace, name, .. } => {
            apply(&ObjectKey::new("v1", "ConfigMap", namespace, name), None, cache)
        }
        // Secrets are asked for by their names.
        KubernetesStep::EnsureSecret { .. } => Write::Sent,
        KubernetesStep::Delete { kind, .. } if kind == "Secret" => Write::Sent,
        KubernetesStep::Delete { api_version, kind, namespace, name } => {
            let key = ObjectKey::new(api_version, kind, namespace, name);
            match (cache.known(&key), cache.there(&key)) {
                (None, _) | (_, None) => Write::Needless,
                (Some(known), Some(there)) if known.made == there.made => Write::Sent,
                _ => Write::Refused(conflict(&key)),
            }
        }
    }
}

fn apply(key: &ObjectKey, object: Option<&Value>, cache: &mut Cache) -> Write {
    let Some(known) = cache.known(key).cloned() else {
        // One that came meanwhile is another's.
        if key.kind == "Namespace" && cache.there(key).is_some() {
            cache.answered(key);
            return Write::Refused(conflict(key));
        }
        return Write::Sent;
    };
    let Some(there) = cache.there(key).cloned() else { return Write::Refused(conflict(key)) };
    if known.version == there.version {
        return Write::Sent;
    }
    // It is read again: a change that is nobody's decision is written over, any other is decided about anew.
    cache.answered(key);
    match object {
        Some(object) if decided(object) == decided(&there.object) => Write::Needless,
        _ if decided(&known.object) == decided(&there.object) => Write::Sent,
        _ => Write::Refused(conflict(key)),
    }
}

/// Whether a finalizer is added or taken away.
///
/// # Errors
/// What was meant is gone, or is another one by now.
pub(crate) fn finalizer(key: &ObjectKey, cache: &mut Cache, wanted: bool) -> Result<bool, EffectError> {
    let has = |object: &Value| object["metadata"]["finalizers"].is_array();
    let Some(known) = cache.known(key).cloned() else { return if wanted { Err(conflict(key)) } else { Ok(false) } };
    if has(&known.object) == wanted {
        return Ok(false);
    }
    let Some(there) = cache.there(key).cloned().filter(|there| there.made == known.made) else {
        return if wanted { Err(conflict(key)) } else { Ok(false) };
    };
    if known.version == there.version {
        return Ok(true);
    }
    cache.answered(key);
    // What is let go was decided about as it was seen.
    let own = |object: &Value| {
        let mut object = decided(object);
        object["metadata"]["finalizers"] = json!(null);
        object
    };
    if !wanted && own(&known.object) != own(&there.object) {
        return Err(conflict(key));
    }
    Ok(has(&there.object) != wanted)
}
