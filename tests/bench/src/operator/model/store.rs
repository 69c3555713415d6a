//! The objects, by version, and what became of them since.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::path::Kind;

/// Events that are kept of each kind: who watches and is further behind lists anew.
const KEPT: usize = 50_000;

/// What happened to one object.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) version: u64,
    pub(super) labels: Value,
    /// As a watch has it, with its end of line.
    pub(super) line: bytes::Bytes,
}

#[derive(Debug, Default)]
struct Objects {
    /// By namespace and name.
    all: BTreeMap<(String, String), Arc<Value>>,
    events: VecDeque<Event>,
    /// The version of the newest event that was dropped.
    dropped: u64,
}

#[derive(Debug, Default)]
struct Inner {
    version: u64,
    kinds: HashMap<Kind, Objects>,
}

/// Why a request is refused: the code and the reason of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::operator) struct Refused(pub(super) u16, pub(super) &'static str);

pub(super) const MISSING: Refused = Refused(404, "NotFound");
pub(super) const EXISTS: Refused = Refused(409, "AlreadyExists");
pub(super) const CONFLICT: Refused = Refused(409, "Conflict");
/// A watch that begins before what is kept.
pub(super) const GONE: Refused = Refused(410, "Expired");

/// All objects.
#[derive(Debug)]
pub(in crate::operator) struct Store {
    inner: Mutex<Inner>,
    /// The newest version.
    changed: watch::Sender<u64>,
    now: String,
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn version(object: &Value) -> &str {
    text(object, "/metadata/resourceVersion")
}

fn generation(object: &Value) -> u64 {
    object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or_default()
}

fn is_leaving(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

fn is_held(object: &Value) -> bool {
    object.pointer("/metadata/finalizers").and_then(Value::as_array).is_some_and(|finalizers| !finalizers.is_empty())
}

/// A merge patch, RFC 7386.
pub(super) fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let Some(fields) = into.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// What the controller of Deployments would say once every replica is there.
fn rolled_out(deployment: &Value) -> Value {
    let replicas = deployment.pointer("/spec/replicas").cloned().unwrap_or(json!(1));
    json!({
        "observedGeneration": deployment.pointer("/metadata/generation"), "replicas": replicas, "updatedReplicas": replicas,
        "readyReplicas": replicas, "availableReplicas": replicas,
        "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable", "message": "it is there"}],
    })
}

impl Default for Store {
    fn default() -> Self {
        let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output();
        let now = date.map(|date| String::from_utf8_lossy(&date.stdout).trim().to_owned()).unwrap_or_default();
        Self { inner: Mutex::default(), changed: watch::Sender::new(0), now }
    }
}

impl Store {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::operator) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.inner().kinds.get(kind)?.all.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The objects of a kind, in this namespace or in all, and the version of the list.
    pub(in crate::operator) fn list(&self, kind: &Kind, namespace: &str) -> (Vec<Arc<Value>>, u64) {
        let inner = self.inner();
        let all = inner.kinds.get(kind).into_iter().flat_map(|objects| &objects.all);
        let here = all.filter(|((space, _), _)| namespace.is_empty() || space == namespace);
        (here.map(|(_, object)| Arc::clone(object)).collect(), inner.version)
    }

    /// How many objects there are.
    pub(in crate::operator) fn len(&self) -> usize {
        self.inner().kinds.values().map(|objects| objects.all.len()).sum()
    }

    /// Makes an object.
    pub(in crate::operator) fn create(&self, kind: &Kind, mut object: Value) -> Result<Arc<Value>, Refused> {
        let key = (text(&object, "/metadata/namespace").to_owned(), text(&object, "/metadata/name").to_owned());
        let mut inner = self.inner();
        if inner.kinds.get(kind).is_some_and(|objects| objects.all.contains_key(&key)) {
            return Err(EXISTS);
        }
        object["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
        object["metadata"]["creationTimestamp"] = json!(self.now);
        object["metadata"]["generation"] = json!(1);
        Ok(self.put(&mut inner, kind, key, "ADDED", object))
    }

    /// Changes an object. `edit` gets it as it is; where it is none, nothing.
    pub(in crate::operator) fn change(
        &self,
        kind: &Kind,
        (namespace, name): (&str, &str),
        edit: impl FnOnce(&mut Value) -> Result<(), Refused>,
    ) -> Result<Arc<Value>, Refused> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut inner = self.inner();
        let before = inner.kinds.get(kind).and_then(|objects| objects.all.get(&key)).cloned().ok_or(MISSING)?;
        let mut object = Value::clone(&before);
        edit(&mut object)?;
        object["metadata"]["resourceVersion"] = json!(version(&before));
        if object == *before {
            return Ok(before);
        }
        if object.get("spec") != before.get("spec") {
            object["metadata"]["generation"] = json!(generation(&before) + 1);
        }
        if is_leaving(&object) && !is_held(&object) {
            return Ok(self.remove(&mut inner, kind, key, object));
        }
        Ok(self.put(&mut inner, kind, key, "MODIFIED", object))
    }

    /// Takes an object away, or says that it is to go where something holds it.
    pub(in crate::operator) fn delete(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Value>, Refused> {
        if self.get(kind, namespace, name).is_some_and(|object| is_held(&object)) {
            return self.change(kind, (namespace, name), |object| {
                object["metadata"]["deletionTimestamp"] = json!(self.now);
                Ok(())
            });
        }
        let key = (namespace.to_owned(), name.to_owned());
        let mut inner = self.inner();
        let object = inner.kinds.get(kind).and_then(|objects| objects.all.get(&key)).cloned().ok_or(MISSING)?;
        Ok(self.remove(&mut inner, kind, key, Value::clone(&object)))
    }

    fn put(&self, inner: &mut Inner, kind: &Kind, key: (String, String), what: &str, mut object: Value) -> Arc<Value> {
        inner.version += 1;
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        let object = Arc::new(object);
        let objects = inner.kinds.entry(kind.clone()).or_default();
        objects.all.insert(key.clone(), Arc::clone(&object));
        objects.tell(inner.version, what, &object);
        self.changed.send_replace(inner.version);
        let seen = object.pointer("/status/observedGeneration").and_then(Value::as_u64).unwrap_or_default();
        if kind.plural == "deployments" && seen < generation(&object) {
            let mut seen = Value::clone(&object);
            seen["status"] = rolled_out(&object);
            return self.put(inner, kind, key, "MODIFIED", seen);
        }
        object
    }

    fn remove(&self, inner: &mut Inner, kind: &Kind, key: (String, String), mut object: Value) -> Arc<Value> {
        inner.version += 1;
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        let objects = inner.kinds.entry(kind.clone()).or_default();
        objects.all.remove(&key);
        objects.tell(inner.version, "DELETED", &object);
        if kind.plural == "namespaces" {
            for objects in inner.kinds.values_mut() {
                let gone = objects.all.extract_if(.., |(space, _), _| *space == key.1).collect::<Vec<_>>();
                for (_, object) in gone {
                    inner.version += 1;
                    let mut object = Value::clone(&object);
                    object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
                    objects.tell(inner.version, "DELETED", &object);
                }
            }
        }
        self.changed.send_replace(inner.version);
        Arc::new(object)
    }

    /// What happened to a kind after a version, and the version up to which that is all.
    pub(super) fn events(&self, kind: &Kind, after: u64) -> Result<(Vec<Event>, u64), Refused> {
        let inner = self.inner();
        let Some(objects) = inner.kinds.get(kind) else { return Ok((Vec::new(), inner.version)) };
        if after < objects.dropped {
            return Err(GONE);
        }
        let from = objects.events.partition_point(|event| event.version <= after);
        Ok((objects.events.range(from..).cloned().collect(), inner.version))
    }

    /// Tells of each change.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Objects {
    fn tell(&mut self, version: u64, what: &str, object: &Value) {
        let line = bytes::Bytes::from(format!("{}\n", json!({"type": what, "object": object})));
        let labels = object.pointer("/metadata/labels").cloned().unwrap_or_default();
        self.events.push_back(Event { version, labels, line });
        if self.events.len() > KEPT
            && let Some(event) = self.events.pop_front()
        {
            self.dropped = event.version;
        }
    }
}
