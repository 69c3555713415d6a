//! Secrets: which there are by a list of their metadata, what is in one by its name, when it is needed. They are immutable, so what was
//! read of one holds for as long as it has the same UID.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube_client::api::{ListParams, PostParams};
use serde_json::{Value, json};

use super::{
    FIELD_MANAGER,
    kinds::OWNED,
    requests::{Refusal, Requests},
};
use crate::{
    effect::{
        EffectError, SecretData,
        kubernetes::{ObjectKey, encoded, secret_data},
    },
    plan::SecretRef,
};

/// A pass over a tenancy asks for the same namespaces more than once.
const FRESH: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Listed {
    at: Instant,
    /// UIDs by name.
    uids: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Known {
    uid: String,
    data: SecretData,
}

#[derive(Debug, Default)]
struct Inner {
    listed: BTreeMap<String, Listed>,
    known: BTreeMap<ObjectKey, Known>,
}

/// The Secrets that are the operator's own.
pub(super) struct Secrets {
    requests: Requests,
    inner: Mutex<Inner>,
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new("v1", "Secret", namespace, name)
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

impl Secrets {
    pub(super) fn new(requests: Requests) -> Self {
        Self { requests, inner: Mutex::default() }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, namespace: &str) -> Result<kube_client::Api<kube_client::api::DynamicObject>, EffectError> {
        self.requests.api_of(&key(namespace, ""))
    }

    /// The UIDs of a namespace's Secrets, by name.
    pub(super) async fn list(&self, namespace: &str) -> Result<BTreeMap<String, String>, Refusal> {
        if let Some(listed) = self.inner().listed.get(namespace).filter(|listed| listed.at.elapsed() < FRESH) {
            return Ok(listed.uids.clone());
        }
        let api = self.api(namespace).map_err(Refusal::Other)?;
        let (at, what) = (Instant::now(), format!("Secrets of {namespace}"));
        let listed = self.requests.send("list", &what, api.list_metadata(&ListParams::default().labels(OWNED))).await?;
        let uids: BTreeMap<String, String> = listed
            .items
            .into_iter()
            .filter_map(|secret| Some((secret.metadata.name?, secret.metadata.uid.unwrap_or_default())))
            .collect();
        let mut inner = self.inner();
        inner.known.retain(|key, known| key.namespace != namespace || uids.get(&key.name) == Some(&known.uid));
        inner.listed.insert(namespace.to_owned(), Listed { at, uids: uids.clone() });
        Ok(uids)
    }

    /// What is in a Secret.
    pub(super) async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        let key = ObjectKey::secret(secret);
        {
            let inner = self.inner();
            let uid = inner.listed.get(&key.namespace).and_then(|listed| listed.uids.get(&key.name));
            if let Some(known) = inner.known.get(&key).filter(|known| Some(&known.uid) == uid) {
                return Ok(known.data.clone());
            }
        }
        let api = self.api(&key.namespace)?;
        let object = match self.requests.send("get", &key, api.get(&key.name)).await {
            Ok(object) => object,
            Err(Refusal::Missing) => return Err(EffectError::MissingSecret(secret.clone())),
            Err(other) => return Err(other.within(&key.namespace)),
        };
        let data = secret_data(&object.data).ok_or_else(|| EffectError::BadSecret {
            secret: secret.clone(),
            key: "data".into(),
            detail: "it is not base64 by key".into(),
        })?;
        let uid = object.metadata.uid.unwrap_or_default();
        self.inner().known.insert(key, Known { uid, data: data.clone() });
        Ok(data)
    }

    /// Whether there is such a Secret.
    pub(super) async fn find(&self, key: &ObjectKey) -> Result<Option<Value>, EffectError> {
        let api = self.api(&key.namespace)?;
        match self.requests.send("get", key, api.get_metadata(&key.name)).await {
            Ok(found) => Ok(Some(json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": key.name, "namespace": key.namespace, "uid": found.metadata.uid},
            }))),
            Err(Refusal::Missing) => Ok(None),
            Err(other) => Err(other.within(&key.namespace)),
        }
    }

    /// Makes a Secret. Where there is one, it stays as it is.
    pub(super) async fn create(&self, secret: &SecretRef, data: &SecretData) -> Result<(), EffectError> {
        let key = ObjectKey::secret(secret);
        let object = serde_json::from_value(encoded(secret, data))
            .map_err(|error| EffectError::refused("the operator", format!("{key} is no object: {error}")))?;
        let api = self.api(&key.namespace)?;
        let options = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.requests.send("create", &key, api.create(&options, &object)).await {
            Ok(made) => {
                let made = serde_json::to_value(&made).unwrap_or_default();
                let mut inner = self.inner();
                if let Some(listed) = inner.listed.get_mut(&key.namespace) {
                    listed.uids.insert(key.name.clone(), text(&made, "/metadata/uid"));
                }
                Ok(())
            }
            Err(Refusal::Exists) => Ok(()),
            Err(other) => Err(other.within(&key.namespace)),
        }
    }

    /// It was removed, or is about to be.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let mut inner = self.inner();
        inner.known.remove(key);
        inner.listed.remove(&key.namespace);
    }
}
