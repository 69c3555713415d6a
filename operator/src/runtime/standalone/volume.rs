//! Secret and ConfigMap volumes as folders that a process reads. Laid out as a kubelet does (`..data` is a link that is moved in
//! one step), so that a hub sees the old files or the new ones, never a mixture.

use std::{collections::BTreeMap, fs, io, os::unix::fs::symlink, path::Path};

use serde_json::Value;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    objects::ObjectStore,
    pod::{Mount, VolumeSource},
    state::{self, StateError},
};
use crate::effect::kubernetes::{ObjectKey, secret_data};

/// Why a volume is not there yet, or no longer current.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// What it shows is not there.
    #[error("waiting for {0}")]
    Missing(ObjectKey),
    /// It can't be shown as files.
    #[error("{object}: {detail}")]
    Unusable {
        /// The Secret or ConfigMap.
        object: ObjectKey,
        /// What is wrong with it.
        detail: String,
    },
    /// The file system said no.
    #[error(transparent)]
    State(#[from] StateError),
}

type Files = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Brings the folder of a mount below `root` up to date.
pub fn sync(store: &ObjectStore, namespace: &str, mount: &Mount, root: &Path) -> Result<(), VolumeError> {
    let folder = root.join(mount.path.trim_start_matches('/'));
    let (key, files) = match &mount.source {
        VolumeSource::Empty => return Ok(state::make_private(&folder)?),
        VolumeSource::Secret(name) | VolumeSource::OptionalSecret(name) => {
            let key = ObjectKey::new("v1", "Secret", namespace, name);
            let object = match store.read_object(&key)? {
                Some(object) => object,
                None if matches!(mount.source, VolumeSource::OptionalSecret(_)) => return Ok(publish(&folder, &Files::new())?),
                None => return Err(VolumeError::Missing(key)),
            };
            let files = secret_data(&object).map(|data| {
                data.iter().map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_vec()))).collect::<Files>()
            });
            (key, files)
        }
        VolumeSource::ConfigMap(name) => {
            let key = ObjectKey::new("v1", "ConfigMap", namespace, name);
            let object = store.read_object(&key)?.ok_or_else(|| VolumeError::Missing(key.clone()))?;
            let text =
                |(name, value): (&String, &Value)| Some((name.clone(), Zeroizing::new(value.as_str()?.as_bytes().to_vec())));
            let files = object.get("data").and_then(Value::as_object).and_then(|data| data.iter().map(text).collect());
            (key, files)
        }
    };
    let files: Files =
        files.ok_or_else(|| VolumeError::Unusable { object: key.clone(), detail: "its data can't be read".to_owned() })?;
    if let Some(name) = files.keys().find(|name| !is_file_name(name)) {
        return Err(VolumeError::Unusable { object: key, detail: format!("{name:?} is not a file name") });
    }
    Ok(publish(&folder, &files)?)
}

fn is_file_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with("..")
        && name != "."
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn publish(folder: &Path, files: &Files) -> Result<(), StateError> {
    let mut digest = Sha256::new();
    for (name, bytes) in files {
        for part in [name.as_bytes(), bytes.as_slice()] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    let version = format!("..{}", hex::encode(&digest.finalize()[..12]));
    let data = folder.join("..data");
    let before = fs::read_link(&data).ok();
    // The names are checked too: someone may have removed a file by hand.
    let complete = files.iter().all(|(name, bytes)| fs::read(folder.join(name)).is_ok_and(|found| found == **bytes));
    if complete && before.as_deref() == Some(Path::new(&version)) {
        return Ok(());
    }
    state::make_private(folder)?;
    for (name, bytes) in files {
        state::write(&folder.join(&version).join(name), bytes)?;
    }
    link(&version, &data)?;
    for name in files.keys() {
        link(&format!("..data/{name}"), &folder.join(name))?;
    }
    for entry in fs::read_dir(folder).map_err(StateError::io(folder))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "..data" || name == version || files.contains_key(&name) {
            continue;
        }
        // What is left over is an older version, or a key that is gone; one that resists is only in the way.
        let _ = if entry.path().is_symlink() { fs::remove_file(entry.path()) } else { fs::remove_dir_all(entry.path()) };
    }
    Ok(())
}

/// Puts a link in place of whatever file or link was there, in one step.
fn link(target: &str, at: &Path) -> Result<(), StateError> {
    if fs::read_link(at).is_ok_and(|found| found == Path::new(target)) {
        return Ok(());
    }
    let mut aside = at.as_os_str().to_owned();
    aside.push(".link");
    let aside = Path::new(&aside);
    match fs::remove_file(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StateError::io(aside)(error)),
        _ => {}
    }
    symlink(target, aside).and_then(|()| fs::rename(aside, at)).map_err(StateError::io(at))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;
    use crate::{effect::kubernetes::Objects, runtime::standalone::state::StateDir};

    fn config(data: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hub-config", "namespace": "n"}, "data": data})
    }

    #[tokio::test]
    async fn a_volume_follows_its_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let mount = Mount { path: "/etc/acb/config".into(), source: VolumeSource::ConfigMap("hub-config".into()) };
        let root = folder.path().join("pod");
        let shown = |name: &str| fs::read_to_string(root.join("etc/acb/config").join(name)).ok();

        assert!(matches!(sync(&store, "n", &mount, &root), Err(VolumeError::Missing(_))));
        store.apply(&config(&json!({"a": "1", "b": "2"}))).await.unwrap();
        sync(&store, "n", &mount, &root).unwrap();
        assert_eq!((shown("a"), shown("b")), (Some("1".into()), Some("2".into())));

        store.apply(&config(&json!({"a": "3"}))).await.unwrap();
        sync(&store, "n", &mount, &root).unwrap();
        assert_eq!((shown("a"), shown("b")), (Some("3".into()), None));
        let left: Vec<_> = fs::read_dir(root.join("etc/acb/config")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "{left:?}");

        fs::remove_file(root.join("etc/acb/config/a")).unwrap();
        sync(&store, "n", &mount, &root).unwrap();
        assert_eq!(shown("a"), Some("3".into()));
    }

    #[tokio::test]
    async fn a_key_can_not_climb() {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let mount = Mount { path: "/c".into(), source: VolumeSource::ConfigMap("hub-config".into()) };
        store.apply(&config(&json!({"../x": "1"}))).await.unwrap();
        let error = sync(&store, "n", &mount, &folder.path().join("pod")).unwrap_err();
        assert!(matches!(error, VolumeError::Unusable { .. }), "{error}");
    }
}
