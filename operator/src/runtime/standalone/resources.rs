//! The folder of YAML as the user's side of an API server: what is written there becomes Tenant, Agent and Quota objects of the
//! state folder, with UID, generation and creation time. A document that its schema refuses changes nothing: what was there
//! before stays as it was, and the reason goes to the status.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use acb_crds::{
    document::{self, LoadError, Loaded},
    schema::{self, Kind, ObjectRef, Violation},
};
use serde_json::{Value, json};

use super::{
    objects::ObjectStore,
    state::{self, StateError},
};
use crate::{effect::kubernetes::ObjectKey, reconcile::now};

/// A document has to be missing for so long before its object is deleted: who writes a file may empty it first.
const MISSING: Duration = Duration::from_secs(3);
/// Says from which file an object is.
const SOURCE: &str = "acb.dev/source";

/// The resources of a folder.
#[derive(Debug)]
pub struct Resources {
    folder: PathBuf,
    store: Arc<ObjectStore>,
    /// Objects whose documents the last look did not find, and since when.
    missing: Mutex<BTreeMap<ObjectRef, Instant>>,
}

/// What a look at the folder found.
#[derive(Debug, Default)]
pub struct Found {
    /// Objects that are new, changed, on their way out, or in another way refused than before.
    pub changed: BTreeSet<ObjectRef>,
    /// Objects whose documents are refused, and why.
    pub refused: BTreeMap<ObjectRef, Vec<Violation>>,
    /// Documents that name no object.
    pub nameless: Vec<LoadError>,
    /// When to look again, whatever happens: something is missing, and it may not be for long.
    pub again: Option<Instant>,
}

/// The key of a resource's object.
#[must_use]
pub fn key(object: &ObjectRef) -> ObjectKey {
    ObjectKey::new(acb_crds::API_VERSION, object.kind.as_str(), &object.namespace, &object.name)
}

impl Resources {
    /// Those of a folder, or of one file.
    #[must_use]
    pub fn new(folder: &Path, store: Arc<ObjectStore>) -> Self {
        Self { folder: folder.to_owned(), store, missing: Mutex::default() }
    }

    /// What is in the files of a folder and its subfolders, or in one file: `*.yaml`, `*.yml` and `*.json`, not hidden, by name.
    pub fn load(folder: &Path) -> Result<Loaded, StateError> {
        let files = read_each(folder)?.into_iter();
        let files: Result<Vec<_>, _> = files.map(|(name, path, text)| Ok((name, text.map_err(StateError::io(&path))?))).collect();
        Ok(document::collect(&files?))
    }

    /// Brings the objects up to date with the folder.
    pub fn sync(&self) -> Result<Found, StateError> {
        self.sync_at(Instant::now())
    }

    fn sync_at(&self, now: Instant) -> Result<Found, StateError> {
        let mut files = Vec::new();
        let mut failed = Vec::new();
        for (source, _, text) in read_each(&self.folder)? {
            match text {
                Ok(text) => files.push((source, text)),
                Err(error) => {
                    let violations = vec![Violation { path: String::new(), message: error.to_string() }];
                    failed.push(LoadError { source, object: None, violations });
                }
            }
        }
        let loaded = document::collect(&files);
        let mut found = Found::default();
        let mut unreadable = BTreeMap::new();
        for error in loaded.errors.into_iter().chain(failed) {
            match &error.object {
                Some(object) => found.refused.entry(object.clone()).or_default().extend(error.violations),
                None => {
                    unreadable.insert(error.source.clone(), error.violations.clone());
                    found.nameless.push(error);
                }
            }
        }
        let mut written = BTreeSet::new();
        for (source, resource) in loaded.resources {
            let object = resource.object();
            written.insert(object.clone());
            if !found.refused.contains_key(&object) {
                let value = resource
                    .to_value()
                    .map_err(|error| StateError::Damaged { path: self.folder.join(&source), detail: error.to_string() })?;
                self.write(&object, &source, value, &mut found)?;
            }
        }
        for (source, other) in loaded.others {
            // A slip in `apiVersion` takes nothing away: who wants it gone takes the document out.
            if let Some(object) = other.object.filter(|object| !written.contains(object))
                && self.store.read_object(&key(&object))?.is_some()
            {
                let message = format!("{source} has it as {}, which is not of {}", other.name, acb_crds::API_VERSION);
                let violation = Violation { path: "apiVersion".to_owned(), message };
                found.refused.entry(object).or_default().push(violation);
            }
        }
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *missing);
        for (object, stored) in stored(&self.store)? {
            if written.contains(&object) || found.refused.contains_key(&object) {
                continue;
            }
            let source = stored.pointer("/metadata/annotations").and_then(|all| all.get(SOURCE)).and_then(Value::as_str);
            // A file that can't be read, or not as YAML, takes nothing away: it is being edited, or broken by a slip.
            if let Some(violations) = source.and_then(|source| unread(&unreadable, source)) {
                found.refused.insert(object, violations.clone());
            } else if stored.get("spec").is_none() {
                // Nothing of it was ever good, so there is nothing to take down.
                self.finish_deletion(&object, true)?;
            } else if !is_deleted(&stored) {
                let since = *before.get(&object).unwrap_or(&now);
                if now.duration_since(since) >= MISSING {
                    self.mark_deleted(&object, stored)?;
                    found.changed.insert(object);
                } else {
                    found.again = Some(found.again.map_or(since + MISSING, |again| again.min(since + MISSING)));
                    missing.insert(object, since);
                }
            }
        }
        drop(missing);
        for object in found.refused.keys() {
            if self.store.read_object(&key(object))?.is_none() {
                // Nothing of it was ever good: the object is there to carry its status.
                let metadata = self.metadata(object, None, 1)?;
                self.put(
                    object,
                    &json!({"apiVersion": acb_crds::API_VERSION, "kind": object.kind.as_str(), "metadata": metadata}),
                )?;
            }
            found.changed.insert(object.clone());
        }
        Ok(found)
    }

    /// Every resource that there is, those on their way out too.
    pub fn stored(&self) -> Result<Vec<(ObjectRef, Value)>, StateError> {
        stored(&self.store)
    }

    /// Sets the status of the object with this UID, where it differs; nothing else of it.
    pub fn set_status(&self, object: &ObjectRef, uid: &str, status: Value) -> Result<(), StateError> {
        let Some(mut stored) = self.store.read_object(&key(object))? else { return Ok(()) };
        let is_it = stored.pointer("/metadata/uid").and_then(Value::as_str) == Some(uid);
        if is_it && stored.get("status") != Some(&status) {
            stored["status"] = status;
            self.put(object, &stored)?;
        }
        Ok(())
    }

    /// The object is gone for good. With `forget`, the next of that name is another: nothing of this one was kept.
    pub fn finish_deletion(&self, object: &ObjectRef, forget: bool) -> Result<(), StateError> {
        state::remove(&self.store.path(&key(object)))?;
        if forget {
            self.store.forget_uid(object.kind.as_str(), &object.namespace, &object.name)?;
        }
        self.store.announce();
        Ok(())
    }

    fn write(&self, object: &ObjectRef, source: &str, mut value: Value, found: &mut Found) -> Result<(), StateError> {
        let stored = self.store.read_object(&key(object))?;
        // One on its way out is made anew: its old rules no longer bind.
        let old = stored.as_ref().filter(|old| old.get("spec").is_some() && !is_deleted(old));
        if let Some(old) = old
            && let Err(violations) = schema::check(&value, Some(old))
        {
            found.refused.insert(object.clone(), violations);
            return Ok(());
        }
        let generation = |object: &Value| object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
        let same_spec = stored.as_ref().is_some_and(|stored| stored.get("spec") == value.get("spec"));
        let next = stored.as_ref().map_or(1, |stored| generation(stored) + i64::from(!same_spec));
        let mut metadata = self.metadata(object, stored.as_ref(), next.max(1))?;
        for part in ["labels", "annotations"] {
            if let Some(entries) = value.pointer(&format!("/metadata/{part}")) {
                metadata[part] = entries.clone();
            }
        }
        metadata["annotations"][SOURCE] = json!(source);
        value["metadata"] = metadata;
        if let Some(status) = stored.as_ref().and_then(|stored| stored.get("status")) {
            value["status"] = status.clone();
        }
        if stored.as_ref() != Some(&value) {
            self.put(object, &value)?;
            found.changed.insert(object.clone());
        }
        Ok(())
    }

    fn metadata(&self, object: &ObjectRef, stored: Option<&Value>, generation: i64) -> Result<Value, StateError> {
        let created = stored.and_then(|stored| stored.pointer("/metadata/creationTimestamp")).cloned();
        let mut metadata = json!({
            "name": object.name,
            "uid": self.store.uid(object.kind.as_str(), &object.namespace, &object.name)?,
            "generation": generation,
            "creationTimestamp": created.unwrap_or_else(|| json!(now())),
        });
        if !object.namespace.is_empty() {
            metadata["namespace"] = json!(object.namespace);
        }
        Ok(metadata)
    }

    fn mark_deleted(&self, object: &ObjectRef, mut stored: Value) -> Result<(), StateError> {
        stored["metadata"]["deletionTimestamp"] = json!(now());
        self.put(object, &stored)
    }

    fn put(&self, object: &ObjectRef, value: &Value) -> Result<(), StateError> {
        state::write_json(&self.store.path(&key(object)), value)?;
        self.store.announce();
        Ok(())
    }
}

/// Why a file could not be read: itself, or a folder that it is in, whose name ends with a slash.
fn unread<'a>(unreadable: &'a BTreeMap<String, Vec<Violation>>, source: &str) -> Option<&'a Vec<Violation>> {
    let above = |name: &&String| name.ends_with('/') && source.starts_with(name.as_str());
    unreadable.get(source).or_else(|| unreadable.iter().find(|(name, _)| above(name)).map(|(_, violations)| violations))
}

/// How deep a folder may be: a link may lead back to where it is.
const DEEPEST: usize = 16;

/// Each file, by its path from the folder on, with what became of reading it.
type Read = (String, PathBuf, io::Result<String>);

fn read_each(folder: &Path) -> Result<Vec<Read>, StateError> {
    let mut files = Vec::new();
    if folder.is_file() {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.extend(read_file(name, folder));
    } else {
        // A folder that is not there is said; one below it that can't be read holds up no other.
        let entries = entries(folder).map_err(StateError::io(folder))?;
        read_entries(entries, "", DEEPEST, &mut files);
    }
    files.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Ok(files)
}

fn entries(folder: &Path) -> io::Result<Vec<fs::DirEntry>> {
    fs::read_dir(folder)?.collect()
}

fn read_entries(entries_of_it: Vec<fs::DirEntry>, prefix: &str, deeper: usize, files: &mut Vec<Read>) {
    for entry in entries_of_it {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') {
            continue;
        }
        let inner = format!("{prefix}{name}");
        let inside = match fs::metadata(&path) {
            Ok(facts) if facts.is_dir() && deeper == 0 => {
                Err(io::Error::other("folders are read to a depth of 16: does a link lead back?"))
            }
            Ok(facts) if facts.is_dir() => entries(&path),
            // A name that would hold resources is a file that can't be read; any other may be a folder whose link leads nowhere for now.
            Err(error) if !holds_resources(&path) => Err(error),
            _ if holds_resources(&path) => {
                files.extend(read_file(inner, &path));
                continue;
            }
            _ => continue,
        };
        match inside {
            Ok(inside) => read_entries(inside, &format!("{inner}/"), deeper - 1, files),
            Err(_) if is_removed(&path) => {}
            Err(error) => files.push((format!("{inner}/"), path, Err(error))),
        }
    }
}

fn holds_resources(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    matches!(extension.as_deref(), Some("yaml" | "yml" | "json"))
}

/// `None` where the file was removed since it was listed.
fn read_file(name: String, path: &Path) -> Option<Read> {
    let text = match fs::metadata(path) {
        // A pipe, say: reading it could wait for ever.
        Ok(facts) if !facts.is_file() => return None,
        Ok(_) => fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => Err(error),
    };
    (text.is_ok() || !is_removed(path)).then(|| (name, path.to_owned(), text))
}

/// A link whose target is away for a while is not: it takes nothing away.
fn is_removed(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Every resource of a store, those on their way out too.
pub fn stored(store: &ObjectStore) -> Result<Vec<(ObjectRef, Value)>, StateError> {
    let mut stored = Vec::new();
    for kind in Kind::ALL {
        for object in store.of_kind(kind.as_str())? {
            stored.extend(schema::identify(&object).map(|reference| (reference, object)));
        }
    }
    Ok(stored)
}

/// Whether an object is on its way out.
#[must_use]
pub fn is_deleted(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::runtime::standalone::state::StateDir;

    const ACME: &str = "apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata:\n  name: acme\nspec:\n  tier: Free\n";

    struct Bench {
        _folder: tempfile::TempDir,
        yaml: PathBuf,
        resources: Resources,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::new(ObjectStore::open(&StateDir::open(&folder.path().join("state")).unwrap()).unwrap());
            let yaml = folder.path().join("yaml");
            fs::create_dir(&yaml).unwrap();
            Self { resources: Resources::new(&yaml, store), yaml, _folder: folder }
        }

        fn sync(&self, text: &str) -> Found {
            fs::write(self.yaml.join("a.yaml"), text).unwrap();
            self.resources.sync().unwrap()
        }

        /// Long after.
        fn sync_later(&self) -> Found {
            self.resources.sync_at(Instant::now() + MISSING).unwrap()
        }

        fn acme(&self) -> Option<Value> {
            self.resources.store.read_object(&key(&acme())).unwrap()
        }
    }

    fn acme() -> ObjectRef {
        ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: "acme".into() }
    }

    #[test]
    fn a_document_becomes_an_object() {
        let bench = Bench::new();
        assert!(bench.sync(ACME).changed.contains(&acme()));
        assert!(bench.sync(ACME).changed.is_empty(), "the same again is no change");
        let first = bench.acme().unwrap();
        bench.sync(&ACME.replace("Free", "Starter"));
        let second = bench.acme().unwrap();
        assert_eq!((&first["metadata"]["generation"], &second["metadata"]["generation"]), (&json!(1), &json!(2)));
        assert_eq!(first["metadata"]["uid"], second["metadata"]["uid"]);
    }

    #[test]
    fn a_refused_document_changes_nothing() {
        let bench = Bench::new();
        bench.sync(ACME);
        let good = bench.acme().unwrap();
        for bad in [ACME.replace("Free", "Golden"), format!("{ACME}  color: red\n"), ACME.replace("spec:", "spec: [")] {
            let found = bench.sync(&bad);
            assert!(found.refused.contains_key(&acme()), "{bad}");
            assert_eq!(bench.acme().unwrap(), good, "{bad}");
        }
        assert!(bench.sync(ACME).refused.is_empty());
    }

    #[test]
    fn a_duplicate_is_refused() {
        let bench = Bench::new();
        let found = bench.sync(&format!("{ACME}---\n{ACME}"));
        assert!(found.refused.contains_key(&acme()));
        assert!(bench.acme().unwrap().get("spec").is_none(), "nothing half applied");
        bench.sync("");
        assert!(bench.acme().is_none(), "and nothing is left of it");
    }

    #[test]
    fn a_removed_document_is_a_deletion() {
        let bench = Bench::new();
        bench.sync(ACME);
        let found = bench.sync("");
        assert!(found.changed.is_empty() && found.again.is_some(), "{found:?}");
        assert!(bench.sync_later().changed.contains(&acme()));
        assert!(is_deleted(&bench.acme().unwrap()));
        bench.sync(ACME);
        assert!(!is_deleted(&bench.acme().unwrap()), "written again, it stays");
    }

    #[test]
    fn a_status_is_that_of_the_one_it_was_decided_about() {
        let bench = Bench::new();
        bench.sync(ACME);
        let status = || bench.acme().unwrap()["status"].clone();
        bench.resources.set_status(&acme(), "another", json!({"agentCount": 7})).unwrap();
        assert_eq!(status(), Value::Null);
        let uid = bench.acme().unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
        bench.resources.set_status(&acme(), &uid, json!({"agentCount": 7})).unwrap();
        assert_eq!(status()["agentCount"], 7);
    }

    #[test]
    fn what_is_missing_for_a_moment_stays() {
        let bench = Bench::new();
        bench.sync(ACME);
        bench.sync("");
        bench.sync(ACME);
        fs::remove_file(bench.yaml.join("a.yaml")).unwrap();
        assert!(bench.sync_later().changed.is_empty(), "it was there in between, and is missed for the first time");
        assert!(!is_deleted(&bench.acme().unwrap()));
    }

    #[test]
    fn subfolders_lists_and_json_are_read() {
        let bench = Bench::new();
        let sub = bench.yaml.join("teams/acme");
        fs::create_dir_all(&sub).unwrap();
        fs::create_dir(bench.yaml.join(".git")).unwrap();
        fs::write(bench.yaml.join(".git/x.yaml"), "a: [").unwrap();
        let list = r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}},
            {"apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {"tier": "Free"}}]}"#;
        fs::write(sub.join("list.JSON"), list).unwrap();
        assert!(bench.resources.sync().unwrap().changed.contains(&acme()));
        assert_eq!(bench.acme().unwrap()["metadata"]["annotations"][SOURCE], "teams/acme/list.JSON");
        let loaded = Resources::load(&bench.yaml).unwrap();
        assert_eq!(loaded.notes(), ["teams/acme/list.JSON: passed over: Namespace x of v1"]);
        fs::remove_file(sub.join("list.JSON")).unwrap();
        bench.resources.sync().unwrap();
        assert!(bench.sync_later().changed.contains(&acme()));
        // A link that leads back is an error, and not for ever.
        fs::create_dir(bench.yaml.join("loop")).unwrap();
        std::os::unix::fs::symlink(".", bench.yaml.join("loop/back")).unwrap();
        assert!(Resources::load(&bench.yaml).is_err());
    }

    #[test]
    fn a_slip_in_the_version_takes_nothing_away() {
        let bench = Bench::new();
        bench.sync(ACME);
        let good = bench.acme().unwrap();
        for slip in [
            ACME.replace("acb.dev/v1alpha1", "acbdev/v1alpha1"),
            format!("apiVersion: v1\nkind: List\nitems:\n  a: {{{}}}\n", "x: y"),
        ] {
            for found in [bench.sync(&slip), bench.sync_later()] {
                assert!(found.refused.contains_key(&acme()), "{slip}: {found:?}");
                assert_eq!(bench.acme().unwrap(), good, "{slip}");
            }
        }
        // What is somebody else's, and was never ours, is nothing to us.
        let other = ACME.replace("acb.dev/v1alpha1", "capsule.clastix.io/v1beta2").replace("acme", "globex");
        assert!(bench.sync(&other).refused.is_empty());
    }

    #[test]
    fn a_folder_that_is_away_takes_nothing_away_and_holds_up_no_other() {
        let bench = Bench::new();
        let target = bench.yaml.with_file_name("teams");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("acme.yaml"), ACME).unwrap();
        std::os::unix::fs::symlink(&target, bench.yaml.join("teams")).unwrap();
        bench.resources.sync().unwrap();
        let good = bench.acme().unwrap();
        fs::rename(&target, target.with_file_name("elsewhere")).unwrap();
        fs::write(bench.yaml.join("b.yaml"), ACME.replace("acme", "globex")).unwrap();
        for found in [bench.resources.sync().unwrap(), bench.sync_later()] {
            assert!(found.refused.contains_key(&acme()), "{found:?}");
            assert_eq!(bench.acme().unwrap(), good);
        }
        let other = ObjectRef { name: "globex".into(), ..acme() };
        assert!(bench.resources.store.read_object(&key(&other)).unwrap().is_some());
        fs::remove_file(bench.yaml.join("teams")).unwrap();
        bench.resources.sync().unwrap();
        assert!(bench.sync_later().changed.contains(&acme()), "taken out, it goes");
    }

    #[test]
    fn a_link_whose_target_is_away_takes_nothing_away() {
        let bench = Bench::new();
        let target = bench.yaml.with_file_name("target.yaml");
        fs::write(&target, ACME).unwrap();
        std::os::unix::fs::symlink(&target, bench.yaml.join("a.yaml")).unwrap();
        bench.resources.sync().unwrap();
        let good = bench.acme().unwrap();
        fs::remove_file(&target).unwrap();
        for found in [bench.resources.sync().unwrap(), bench.sync_later()] {
            assert!(found.refused.contains_key(&acme()), "{found:?}");
            assert_eq!(bench.acme().unwrap(), good);
        }
    }

    #[test]
    fn a_file_that_can_not_be_read_takes_nothing_away() {
        let bench = Bench::new();
        bench.sync(ACME);
        let (file, good) = (bench.yaml.join("a.yaml"), bench.acme().unwrap());
        fs::remove_file(&file).unwrap();
        // A link to itself: what fails for everybody, root too.
        std::os::unix::fs::symlink("a.yaml", &file).unwrap();
        fs::write(bench.yaml.join("b.yaml"), ACME.replace("acme", "globex")).unwrap();
        for found in [bench.resources.sync().unwrap(), bench.sync_later()] {
            assert!(found.refused.contains_key(&acme()) && found.nameless.len() == 1, "{found:?}");
            assert_eq!(bench.acme().unwrap(), good);
        }
        let other = ObjectRef { name: "globex".into(), ..acme() };
        assert!(bench.resources.store.read_object(&key(&other)).unwrap().is_some(), "and holds up no other");
        assert!(Resources::load(&bench.yaml).is_err());
    }
}
