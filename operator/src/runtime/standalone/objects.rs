//! The objects of the plan as files of the state folder: one JSON document each, Secrets among them, readable by their owner
//! alone. Also the UIDs, minted at the first sight of a name and kept.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use super::state::{self, StateDir, StateError, file_name};
use crate::{
    effect::{
        EffectError, SecretData, SecretReader,
        kubernetes::{ObjectKey, Objects, encoded, secret_data},
    },
    plan::SecretRef,
    reconcile::now,
};

/// Objects in a state folder.
#[derive(Debug)]
pub struct ObjectStore {
    folder: PathBuf,
    uids: PathBuf,
    /// Serialises what reads and then writes.
    writing: Mutex<()>,
    changes: watch::Sender<u64>,
}

impl ObjectStore {
    /// The objects of a state folder.
    pub fn open(state: &StateDir) -> Result<Self, StateError> {
        Ok(Self {
            folder: state.folder("objects")?,
            uids: state.root().join("uids.json"),
            writing: Mutex::new(()),
            changes: watch::Sender::new(0),
        })
    }

    /// Wakes with every change that was made through this store.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The file of an object.
    #[must_use]
    pub fn path(&self, key: &ObjectKey) -> PathBuf {
        self.folder.join(file_name(&key.kind)).join(file_name(&key.namespace)).join(format!("{}.json", file_name(&key.name)))
    }

    /// An object as it is now.
    pub fn read_object(&self, key: &ObjectKey) -> Result<Option<Value>, StateError> {
        state::read_json(&self.path(key))
    }

    /// Every object of a kind, in the order of their file names.
    pub fn of_kind(&self, kind: &str) -> Result<Vec<Value>, StateError> {
        let mut objects = Vec::new();
        for namespace in entries(&self.folder.join(file_name(kind)))? {
            for file in object_files(&namespace)? {
                objects.extend(state::read_json::<Value>(&file)?);
            }
        }
        Ok(objects)
    }

    /// The UID of a resource, minted at the first sight of its name.
    pub fn uid(&self, kind: &str, namespace: &str, name: &str) -> Result<Uuid, StateError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut uids: BTreeMap<String, Uuid> = state::read_json(&self.uids)?.unwrap_or_default();
        let key = format!("{kind}/{namespace}/{name}");
        if let Some(uid) = uids.get(&key) {
            return Ok(*uid);
        }
        let uid = Uuid::new_v4();
        uids.insert(key, uid);
        state::write_json(&self.uids, &uids)?;
        Ok(uid)
    }

    /// Forgets a UID: the next resource of that name is another.
    pub fn forget_uid(&self, kind: &str, namespace: &str, name: &str) -> Result<(), StateError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut uids: BTreeMap<String, Uuid> = state::read_json(&self.uids)?.unwrap_or_default();
        if uids.remove(&format!("{kind}/{namespace}/{name}")).is_some() {
            state::write_json(&self.uids, &uids)?;
        }
        Ok(())
    }

    /// Wakes those who wait for [`changes`](Self::changes).
    pub(crate) fn announce(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// Only what is whole: beside it may be what is being written, or what a run that was killed left of that.
fn object_files(folder: &Path) -> Result<Vec<PathBuf>, StateError> {
    let mut files = entries(folder)?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StateError> {
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StateError::Io { path: folder.to_owned(), source }),
    };
    let mut paths =
        listing.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(StateError::io(folder))?;
    paths.sort();
    Ok(paths)
}

impl From<StateError> for EffectError {
    fn from(error: StateError) -> Self {
        Self::unavailable("the state folder", error)
    }
}

#[async_trait]
impl SecretReader for ObjectStore {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        let object = self.read_object(&ObjectKey::secret(secret))?.ok_or_else(|| EffectError::MissingSecret(secret.clone()))?;
        secret_data(&object).ok_or_else(|| EffectError::BadSecret {
            secret: secret.clone(),
            key: "data".into(),
            detail: "it is not base64 by key".into(),
        })
    }
}

#[async_trait]
impl Objects for ObjectStore {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, EffectError> {
        Ok(self.read_object(key)?)
    }

    async fn list(&self, namespace: &str) -> Result<BTreeMap<ObjectKey, Value>, EffectError> {
        let mut objects = BTreeMap::new();
        for kind in entries(&self.folder)? {
            for file in object_files(&kind.join(file_name(namespace)))? {
                let Some(mut object) = state::read_json::<Value>(&file)? else { continue };
                let Some(key) = ObjectKey::of(&object) else { continue };
                if key.kind == "Secret"
                    && let Some(object) = object.as_object_mut()
                {
                    object.remove("data");
                }
                objects.insert(key, object);
            }
        }
        Ok(objects)
    }

    async fn apply(&self, object: &Value) -> Result<(), EffectError> {
        let key = ObjectKey::of(object)
            .ok_or_else(|| EffectError::refused("the state folder", "an object without apiVersion, kind or metadata.name"))?;
        {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            if self.read_object(&key).ok().flatten().as_ref() == Some(object) {
                return Ok(());
            }
            state::write_json(&self.path(&key), object)?;
        }
        self.announce();
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), EffectError> {
        if key.kind == "Namespace" {
            // As in a cluster, what is in it goes with it; but not what the folder of resources says.
            for inner in self.list(&key.name).await?.into_keys().filter(|inner| inner.api_version != acb_crds::API_VERSION) {
                state::remove(&self.path(&inner))?;
            }
        }
        state::remove(&self.path(key))?;
        self.announce();
        Ok(())
    }

    async fn create_secret(&self, secret: &SecretRef, data: SecretData, asked: Option<&str>) -> Result<(), EffectError> {
        let mut object = encoded(secret, &data, asked);
        object["metadata"]["creationTimestamp"] = now().into();
        {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let path = self.path(&ObjectKey::secret(secret));
            if path.exists() {
                return Ok(());
            }
            state::write_json(&path, &object)?;
        }
        self.announce();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;
    use crate::{
        effect::kubernetes,
        plan::{KubernetesStep, SecretContent},
    };

    fn store() -> (tempfile::TempDir, ObjectStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        (folder, store)
    }

    #[tokio::test]
    async fn conforms() {
        let (_folder, store) = store();
        crate::effect::conformance::objects(&store, "acbhub-acme", || async {}).await;
    }

    #[tokio::test]
    async fn a_secret_is_made_once_and_is_private() {
        let (_folder, store) = store();
        let secret = SecretRef { namespace: "acbhub-acme".into(), name: "hub-keys".into(), generation: 1 };
        let step = KubernetesStep::EnsureSecret { secret: secret.clone(), content: SecretContent::HubKeys, asked: None };
        kubernetes::apply(&store, &step).await.unwrap();
        let first = store.read(&secret).await.unwrap();
        kubernetes::apply(&store, &step).await.unwrap();
        store.create_secret(&secret, SecretData::new().with("pepper", "other"), None).await.unwrap();
        assert_eq!(store.read(&secret).await.unwrap().get("pepper"), first.get("pepper"));
        let path = store.path(&ObjectKey::secret(&secret));
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_leaf_without_its_authority_waits() {
        let (_folder, store) = store();
        let secret = |name: &str| SecretRef { namespace: "acb-system".into(), name: name.into(), generation: 1 };
        let content = SecretContent::TlsLeaf { authority: secret("ca-acme"), names: vec![] };
        let step = KubernetesStep::EnsureSecret { secret: secret("leaf"), content, asked: None };
        let error = kubernetes::apply(&store, &step).await.unwrap_err();
        assert!(error.is_transient() && matches!(error, EffectError::MissingSecret(_)), "{error}");
    }

    #[tokio::test]
    async fn objects_come_back_as_they_were_applied() {
        let (_folder, store) = store();
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": {}});
        let mut changes = store.changes();
        store.apply(&object).await.unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        store.apply(&object).await.unwrap();
        assert!(!changes.has_changed().unwrap(), "the same again is no change");
        assert_eq!(store.of_kind("ConfigMap").unwrap(), vec![object.clone()]);
        store.delete(&ObjectKey::of(&object).unwrap()).await.unwrap();
        store.delete(&ObjectKey::of(&object).unwrap()).await.unwrap();
        assert_eq!(store.of_kind("ConfigMap").unwrap(), Vec::<Value>::new());
    }

    #[tokio::test]
    async fn what_a_killed_run_left_half_written_is_no_object() {
        let (folder, store) = store();
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}});
        store.apply(&object).await.unwrap();
        let key = ObjectKey::of(&object).unwrap();
        let mut ghost = object.clone();
        ghost["metadata"]["name"] = json!("ghost");
        let left = [store.path(&key).with_extension("1.0.tmp"), store.path(&key).with_file_name("ghost.1.1.tmp")];
        std::fs::write(&left[0], "{").unwrap();
        std::fs::write(&left[1], ghost.to_string()).unwrap();
        assert_eq!(store.list("n").await.unwrap().into_keys().collect::<Vec<_>>(), std::slice::from_ref(&key));
        assert_eq!(store.of_kind("ConfigMap").unwrap(), [object]);

        // Whoever only looks may look while they are written.
        let state = StateDir::open(folder.path()).unwrap();
        assert!(left.iter().all(|file| file.exists()));
        let _lock = state.lock().unwrap();
        assert!(!left.iter().any(|file| file.exists()));
        assert!(store.path(&key).exists());
    }

    #[test]
    fn uids_stay() {
        let (_folder, store) = store();
        let uid = store.uid("Tenant", "", "acme").unwrap();
        assert_eq!(store.uid("Tenant", "", "acme").unwrap(), uid);
        assert_ne!(store.uid("Tenant", "", "globex").unwrap(), uid);
        store.forget_uid("Tenant", "", "acme").unwrap();
        assert_ne!(store.uid("Tenant", "", "acme").unwrap(), uid);
    }
}
