//! The port for objects and Secrets, and the effect that applies a step through it. Standalone it is the state folder.

use std::{collections::BTreeMap, fmt};

use acb_crds::names::annotations::ROTATE;
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    EffectError, SecretData, SecretReader,
    seal::{self, MANAGED_BY, SEAL},
    secret,
};
use crate::{
    observed::ObservedIssuer,
    plan::{KubernetesStep, SecretContent, SecretRef},
};

/// The annotation with the Secret of the authority that something was made with.
pub const AUTHORITY: &str = "acb.dev/authority";

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// A key from its parts.
    #[must_use]
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        Self { api_version: api_version.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// The key of a Secret.
    #[must_use]
    pub fn secret(secret: &SecretRef) -> Self {
        Self::new("v1", "Secret", &secret.namespace, &secret.object_name())
    }

    /// The Secret that this is the key of; `None` for what is no Secret, or none of a generation.
    #[must_use]
    pub fn secret_ref(&self) -> Option<SecretRef> {
        let (name, generation) = self.name.rsplit_once('-')?;
        let generation = generation.parse().ok()?;
        (self.kind == "Secret").then(|| SecretRef { namespace: self.namespace.clone(), name: name.to_owned(), generation })
    }

    /// The key that an object says of itself; `None` where `apiVersion`, `kind` or `metadata.name` is missing.
    #[must_use]
    pub fn of(object: &Value) -> Option<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").unwrap_or_default();
        Some(Self::new(text("/apiVersion")?, text("/kind")?, namespace, text("/metadata/name")?))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// Objects and Secrets, wherever they are kept.
#[async_trait]
pub trait Objects: SecretReader {
    /// An object as it is now.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, EffectError>;
    /// Everything that is in a namespace, without what is in Secrets; the empty namespace: what is cluster-scoped.
    async fn list(&self, namespace: &str) -> Result<BTreeMap<ObjectKey, Value>, EffectError>;
    /// The generations of some Secrets in a namespace that may hold many others, as [`list`](Self::list) has them.
    async fn generations(&self, namespace: &str, names: &[&str]) -> Result<BTreeMap<ObjectKey, Value>, EffectError> {
        let mut found = self.list(namespace).await?;
        found.retain(|key, _| key.secret_ref().is_some_and(|secret| names.contains(&secret.name.as_str())));
        Ok(found)
    }
    /// Who issues the tokens of ServiceAccounts, as far as that is known. A single machine has none.
    fn issuer(&self) -> Option<ObservedIssuer> {
        None
    }
    /// Makes the object, or sets what ACB owns of it.
    async fn apply(&self, object: &Value) -> Result<(), EffectError>;
    /// Removes an object; one that is not there is no error.
    async fn delete(&self, key: &ObjectKey) -> Result<(), EffectError>;
    /// Makes a Secret, with the request for a rotation that it answers. Never overwrites: where there is one, it stays as it is.
    async fn create_secret(&self, secret: &SecretRef, data: SecretData, asked: Option<&str>) -> Result<(), EffectError>;
}

/// What is in a Secret object.
pub(crate) fn secret_data(object: &Value) -> Option<SecretData> {
    let mut data = SecretData::new();
    for (key, value) in object.get("data").and_then(Value::as_object)? {
        data = data.with(key, BASE64_STANDARD.decode(value.as_str()?).ok()?);
    }
    let seal = object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(SEAL)?.as_str());
    Some(match seal {
        Some(seal) => data.with_seal(seal),
        None => data,
    })
}

/// The object of a Secret that is about to be made.
pub(crate) fn encoded(secret: &SecretRef, data: &SecretData, asked: Option<&str>) -> Value {
    let seal = data.seal();
    let data: BTreeMap<&str, String> = data.iter().map(|(key, value)| (key, BASE64_STANDARD.encode(value))).collect();
    let mut object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "immutable": true,
        "metadata": {
            "name": secret.object_name(), "namespace": secret.namespace,
            "labels": {MANAGED_BY.0: MANAGED_BY.1},
        },
        "data": data,
    });
    let annotations = [(ROTATE, asked), (SEAL, seal)].into_iter().filter_map(|(name, value)| Some((name, value?)));
    let annotations: BTreeMap<&str, &str> = annotations.collect();
    if !annotations.is_empty() {
        object["metadata"]["annotations"] = json!(annotations);
    }
    object
}

/// What the list of a namespace says of a Secret, beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretDetails {
    /// When it was made, in RFC 3339; empty where that is not known.
    pub made: String,
    /// The request for a rotation that it answers.
    pub asked: Option<String>,
}

impl SecretDetails {
    /// Of an object of a list.
    #[must_use]
    pub fn of(object: &Value) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        Self {
            made: text(object.pointer("/metadata/creationTimestamp")).unwrap_or_default(),
            asked: text(object.pointer("/metadata/annotations").and_then(|annotations| annotations.get(ROTATE))),
        }
    }
}

/// Fails where a Secret is in the way of one that the operator would make: what others made is never used, and never overwritten.
async fn check(secret: &SecretRef, content: &SecretContent, found: &Value, objects: &dyn Objects) -> Result<(), EffectError> {
    if !seal::is_labelled(found) {
        return Err(EffectError::ForeignSecret(secret.clone()));
    }
    // Nobody of the tenant's may write where the others are.
    let SecretContent::ApiKey { authority } = content else { return Ok(()) };
    seal::check(secret, &objects.read(secret).await?, authority, objects).await
}

/// Applies one step.
pub async fn apply(objects: &dyn Objects, step: &KubernetesStep) -> Result<(), EffectError> {
    match step {
        KubernetesStep::Apply { object } => objects.apply(object).await,
        KubernetesStep::EnsureSecret { secret, content, asked } => {
            if let Some(found) = objects.get(&ObjectKey::secret(secret)).await? {
                return check(secret, content, &found, objects).await;
            }
            let mut data = secret::generate(content, objects).await?;
            if let SecretContent::ApiKey { authority } = content {
                data = seal::sealed(secret, data, authority, objects).await?;
            }
            objects.create_secret(secret, data, asked.as_deref()).await
        }
        KubernetesStep::PublishCertificate { namespace, name, authority } => {
            let ca = objects.read(authority).await?;
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {
                    "name": name, "namespace": namespace,
                    "labels": {MANAGED_BY.0: MANAGED_BY.1},
                    "annotations": {AUTHORITY: authority.object_name()},
                },
                "data": {"ca.crt": ca.text(authority, "ca.crt")?},
            });
            objects.apply(&object).await
        }
        KubernetesStep::Delete { api_version, kind, namespace, name } => {
            objects.delete(&ObjectKey::new(api_version, kind, namespace, name)).await
        }
    }
}
