//! Secrets: which there are by a list of their metadata, what is in one by its name, when it is needed. They are immutable, so what was
//! read of one holds for as long as it has the same UID.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use acb_crds::names::annotations::ROTATE;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_client::api::{DynamicObject, ListParams, PostParams};
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
        seal::MANAGED_BY,
    },
    plan::SecretRef,
};

/// A pass over a tenancy asks for the same namespaces more than once, and all ask for the operator's, which has Secrets of all. A list serves
/// for so many times as long as it took, at least and at most for so long.
const FRESH_TIMES: u32 = 20;
const FRESH: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

#[derive(Debug)]
struct Listed {
    until: Instant,
    /// By name.
    secrets: BTreeMap<String, Listing>,
}

/// What a list says of a Secret.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    uid: String,
    made: String,
    asked: Option<String>,
    /// Whether it says that the operator made it.
    is_labelled: bool,
}

impl Listing {
    /// As an object without what is in it.
    pub(super) fn object(&self, namespace: &str, name: &str) -> Value {
        let annotations: BTreeMap<&str, &String> = self.asked.iter().map(|asked| (ROTATE, asked)).collect();
        let labels: BTreeMap<&str, &str> = self.is_labelled.then_some(MANAGED_BY).into_iter().collect();
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {
                "name": name, "namespace": namespace, "uid": self.uid, "creationTimestamp": self.made, "annotations": annotations,
                "labels": labels,
            },
        })
    }
}

/// What nobody has read for so long is not kept: whose it was may be gone without a word.
const UNREAD_FOR: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Known {
    uid: String,
    data: SecretData,
    read: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    listed: BTreeMap<String, Listed>,
    known: BTreeMap<ObjectKey, Known>,
}

impl Inner {
    /// Puts in what a namespace has now, and takes out what it has no more, with what nobody reads.
    fn list(&mut self, namespace: &str, listed: Listed, now: Instant) {
        self.known.retain(|key, known| {
            let is_there = || listed.secrets.get(&key.name).is_some_and(|secret| secret.uid == known.uid);
            now.saturating_duration_since(known.read) < UNREAD_FOR && (key.namespace != namespace || is_there())
        });
        self.listed.retain(|_, listed| now.saturating_duration_since(listed.until) < UNREAD_FOR);
        self.listed.insert(namespace.to_owned(), listed);
    }
}

/// The Secrets that are the operator's own.
pub(super) struct Secrets {
    requests: Requests,
    inner: Mutex<Inner>,
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new("v1", "Secret", namespace, name)
}

fn listing(metadata: &ObjectMeta) -> Listing {
    Listing {
        uid: metadata.uid.clone().unwrap_or_default(),
        made: metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
        asked: metadata.annotations.as_ref().and_then(|annotations| annotations.get(ROTATE).cloned()),
        is_labelled: metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0)).is_some_and(|by| by == MANAGED_BY.1),
    }
}

/// What is in a Secret, with its seal, which is in the metadata.
fn content(object: &DynamicObject) -> Option<SecretData> {
    secret_data(&serde_json::to_value(object).ok()?)
}

impl Secrets {
    pub(super) fn new(requests: Requests) -> Self {
        Self { requests, inner: Mutex::default() }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn api(&self, namespace: &str) -> Result<kube_client::Api<DynamicObject>, EffectError> {
        self.requests.api_of(&key(namespace, ""))
    }

    /// The Secrets of a namespace, by name.
    pub(super) async fn list(&self, namespace: &str) -> Result<BTreeMap<String, Listing>, Refusal> {
        self.look(namespace, Clone::clone).await
    }

    /// Of the Secrets of a namespace every generation of these, by name.
    pub(super) async fn generations(&self, namespace: &str, names: &[&str]) -> Result<BTreeMap<String, Listing>, Refusal> {
        self.look(namespace, |secrets| {
            let of = |name: &&str| {
                let start = format!("{name}-");
                let found = secrets.range(start.clone()..).take_while(move |(name, _)| name.starts_with(&start));
                found.map(|(name, listing)| (name.clone(), listing.clone())).collect::<Vec<_>>()
            };
            names.iter().flat_map(of).collect()
        })
        .await
    }

    /// Takes of the Secrets of a namespace what is needed: there may be many.
    async fn look<T>(&self, namespace: &str, take: impl Fn(&BTreeMap<String, Listing>) -> T) -> Result<T, Refusal> {
        if let Some(listed) = self.inner().listed.get(namespace).filter(|listed| Instant::now() < listed.until) {
            return Ok(take(&listed.secrets));
        }
        let api = self.api(namespace).map_err(Refusal::Other)?;
        let (begun, what) = (Instant::now(), format!("Secrets of {namespace}"));
        let listed = self.requests.send("list", &what, api.list_metadata(&ListParams::default().labels(OWNED))).await?;
        let secrets: BTreeMap<String, Listing> =
            listed.items.iter().filter_map(|secret| Some((secret.metadata.name.clone()?, listing(&secret.metadata)))).collect();
        let taken = take(&secrets);
        let until = begun + (begun.elapsed() * FRESH_TIMES).clamp(FRESH.0, FRESH.1);
        self.inner().list(namespace, Listed { until, secrets }, Instant::now());
        Ok(taken)
    }

    /// What is in a Secret.
    pub(super) async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        let key = ObjectKey::secret(secret);
        {
            let inner = &mut *self.inner();
            let listing = inner.listed.get(&key.namespace).and_then(|listed| listed.secrets.get(&key.name));
            let known = inner.known.get_mut(&key).filter(|known| listing.is_some_and(|listing| listing.uid == known.uid));
            if let Some(known) = known {
                known.read = Instant::now();
                return Ok(known.data.clone());
            }
        }
        let api = self.api(&key.namespace)?;
        let object = match self.requests.send("get", &key, api.get(&key.name)).await {
            Ok(object) => object,
            Err(Refusal::Missing) => return Err(EffectError::MissingSecret(secret.clone())),
            Err(other) => return Err(other.within(&key.namespace)),
        };
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let data = content(&object).ok_or_else(|| EffectError::BadSecret {
            secret: secret.clone(),
            key: "data".into(),
            detail: "it is not base64 by key".into(),
        })?;
        self.inner().known.insert(key, Known { uid, data: data.clone(), read: Instant::now() });
        Ok(data)
    }

    /// Whether there is such a Secret.
    pub(super) async fn find(&self, key: &ObjectKey) -> Result<Option<Value>, EffectError> {
        let api = self.api(&key.namespace)?;
        match self.requests.send("get", key, api.get_metadata(&key.name)).await {
            Ok(found) => Ok(Some(listing(&found.metadata).object(&key.namespace, &key.name))),
            Err(Refusal::Missing) => Ok(None),
            Err(other) => Err(other.within(&key.namespace)),
        }
    }

    /// Makes a Secret. Where there is one, it stays as it is.
    pub(super) async fn create(&self, secret: &SecretRef, data: &SecretData, asked: Option<&str>) -> Result<(), EffectError> {
        let key = ObjectKey::secret(secret);
        let object = serde_json::from_value(encoded(secret, data, asked))
            .map_err(|error| EffectError::refused("the operator", format!("{key} is no object: {error}")))?;
        let api = self.api(&key.namespace)?;
        let options = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.requests.send("create", &key, api.create(&options, &object)).await {
            Ok(made) => {
                let listing = listing(&made.metadata);
                if let Some(listed) = self.inner().listed.get_mut(&key.namespace) {
                    listed.secrets.insert(key.name.clone(), listing);
                }
                Ok(())
            }
            Err(Refusal::Exists) => Ok(()),
            Err(other) => Err(other.within(&key.namespace)),
        }
    }

    /// A namespace is not there any more: what was read of its Secrets is kept for nobody.
    pub(super) fn forget_all(&self, namespace: &str) {
        let mut inner = self.inner();
        inner.known.retain(|key, _| key.namespace != namespace);
        inner.listed.remove(namespace);
    }

    /// What was read of every generation of a Secret is kept for nobody.
    pub(super) fn forget_generations(&self, namespace: &str, name: &str) {
        let start = format!("{name}-");
        self.inner().known.retain(|key, _| key.namespace != namespace || !key.name.starts_with(&start));
    }

    /// It was removed, or is about to be.
    pub(super) fn forget(&self, key: &ObjectKey) {
        let mut inner = self.inner();
        inner.known.remove(key);
        inner.listed.remove(&key.namespace);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_an_api_server_answers_is_read_with_its_seal() {
        let secret = SecretRef { namespace: "acb-acme".into(), name: "a-api-key".into(), generation: 1 };
        let made = SecretData::new().with("api-key", "acb_x_y").with_seal("5ea1");
        let object: DynamicObject = serde_json::from_value(encoded(&secret, &made, None)).unwrap();
        let read = content(&object).unwrap();
        assert_eq!((read.get("api-key"), read.seal()), (made.get("api-key"), Some("5ea1")));
    }

    #[test]
    fn what_nobody_reads_any_more_is_not_kept() {
        let (mut inner, begun) = (Inner::default(), Instant::now());
        let listed = |at: Instant| {
            let names = ["ca-read-1", "ca-unread-1"];
            let listing = |name: &str| (name.to_owned(), Listing { uid: name.to_owned(), ..Listing::default() });
            Listed { until: at, secrets: names.map(listing).into() }
        };
        inner.list("acb-acme", listed(begun), begun);
        for (name, read) in [("ca-read-1", begun + UNREAD_FOR / 2), ("ca-unread-1", begun)] {
            inner.known.insert(key("acb-system", name), Known { uid: name.to_owned(), data: SecretData::new(), read });
        }
        let soon = begun + UNREAD_FOR / 2;
        inner.list("acb-system", listed(soon), soon);
        assert_eq!((inner.known.len(), inner.listed.len()), (2, 2), "all is read now and then");
        let later = begun + UNREAD_FOR;
        inner.list("acb-system", listed(later), later);
        assert_eq!(inner.known.keys().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["ca-read-1"]);
        assert_eq!(inner.listed.keys().collect::<Vec<_>>(), ["acb-system"]);
    }
}
