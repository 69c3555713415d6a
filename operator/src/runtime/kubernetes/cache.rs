//! What the watches last said, and what this process wrote since: reads cost no request. An older version never takes the place of a
//! newer one, so that a watch that is behind does not undo what was just written. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use acb_crds::{
    Agent, Quota, Tenant,
    schema::{Kind, ObjectRef},
};
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    FIELD_MANAGER,
    claims::Claims,
    kinds::{OWNED, WatchedKind},
    tally::Tally,
};
use crate::{
    effect::kubernetes::ObjectKey,
    tenancy::{Listed, Tenancy, Tenants, Unreadable},
};

/// An object that is otherwise than before.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) key: ObjectKey,
    pub(super) before: Option<Arc<Value>>,
    pub(super) now: Option<Arc<Value>>,
}

#[derive(Debug)]
struct Entry {
    /// As text: as a tree an object takes ten times the memory, and few of them are looked at at a time.
    text: Arc<str>,
    version: u64,
    /// When it came, counted in changes.
    at: u64,
    /// Who else than this operator wrote it.
    writers: Vec<String>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By namespace; the empty one: cluster-scoped.
    objects: BTreeMap<String, BTreeMap<ObjectKey, Entry>>,
    tenants: BTreeMap<String, Arc<Listed>>,
    /// All of them, once somebody has asked since one changed.
    listed: OnceLock<Tenants>,
    claims: Claims,
    /// The names of those that can be read, by namespace. Typed only when they are asked for: there are many.
    agents: BTreeMap<String, BTreeSet<String>>,
    quotas: BTreeMap<String, BTreeMap<String, Quota>>,
    /// Resources that this operator can't read, and why.
    unreadable: BTreeMap<ObjectRef, String>,
    tally: Tally,
    count: u64,
}

impl Entry {
    fn object(&self) -> Arc<Value> {
        // It was written from an object.
        Arc::new(serde_json::from_str(&self.text).unwrap_or_default())
    }
}

/// Every object that is watched.
#[derive(Debug, Default)]
pub(super) struct Cache {
    inner: RwLock<Inner>,
}

/// What orders two versions of one object.
fn version(object: &Value) -> u64 {
    let text = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The managers of an object's fields, but for this operator and for those who only write its status.
fn writers(fields: Option<&Value>) -> Vec<String> {
    let text = |entry: &Value, name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let entries = fields.and_then(Value::as_array).into_iter().flatten();
    let of_fields = entries.filter(|entry| text(entry, "subresource").is_empty()).map(|entry| text(entry, "manager"));
    let others: BTreeSet<String> = of_fields.filter(|manager| !manager.is_empty() && manager != FIELD_MANAGER).collect();
    others.into_iter().collect()
}

/// The kind that people write, of an object of that.
pub(super) fn resource_of(key: &ObjectKey) -> Option<ObjectRef> {
    let kind = Kind::ALL.into_iter().find(|kind| key.api_version == acb_crds::API_VERSION && key.kind == kind.as_str())?;
    Some(ObjectRef { kind, namespace: key.namespace.clone(), name: key.name.clone() })
}

/// Whether it is a ServiceAccount that others made: of those there are many, and they are in nobody's plan.
fn is_foreign_account(key: &ObjectKey, object: &Value) -> bool {
    let owned = OWNED.split_once('=').is_some_and(|(name, value)| {
        object.pointer("/metadata/labels").and_then(|labels| labels.get(name)?.as_str()) == Some(value)
    });
    key.api_version == "v1" && key.kind == "ServiceAccount" && !owned
}

/// Of such an account: that it is there, and which one it is.
fn identity_of(object: &Value) -> Value {
    let metadata = object.get("metadata").and_then(Value::as_object).into_iter().flatten();
    let kept = ["name", "namespace", "uid", "resourceVersion", "deletionTimestamp"];
    let metadata: serde_json::Map<String, Value> =
        metadata.filter(|(name, _)| kept.contains(&name.as_str())).map(|(name, value)| (name.clone(), value.clone())).collect();
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata})
}

impl Cache {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the cache is now; see [`forget_others`](Self::forget_others).
    pub(super) fn mark(&self) -> u64 {
        self.read().count
    }

    /// An object as it is now. `None` where that was known, or is older than what is known.
    pub(super) fn put(&self, mut object: Value) -> Option<Change> {
        // Of these only the names are ever looked at, and they are long.
        let fields = object.get_mut("metadata").and_then(Value::as_object_mut).and_then(|found| found.remove("managedFields"));
        let writers = writers(fields.as_ref());
        let key = ObjectKey::of(&object)?;
        let version = version(&object);
        if is_foreign_account(&key, &object) {
            object = identity_of(&object);
        }
        let mut inner = self.write();
        inner.count += 1;
        let at = inner.count;
        let known = inner.objects.entry(key.namespace.clone()).or_default();
        if let Some(known) = known.get_mut(&key).filter(|known| known.version >= version) {
            known.at = at;
            return None;
        }
        let object = Arc::new(object);
        let text = Arc::from(object.to_string());
        let before = known.insert(key.clone(), Entry { text, version, at, writers }).map(|entry| entry.object());
        inner.parse(&key, Some(&object));
        inner.tally.change(&key, before.as_deref(), Some(&object));
        Some(Change { key, before, now: Some(object) })
    }

    /// The object is gone, as of a version. `None` where it was not known, or was made anew since.
    pub(super) fn remove(&self, object: &Value) -> Option<Change> {
        let key = ObjectKey::of(object)?;
        self.write().remove(&key, version(object))
    }

    /// What a whole list did not name is gone, unless it came after the list was begun, at `mark`.
    pub(super) fn forget_others(&self, kind: &WatchedKind, named: &BTreeSet<ObjectKey>, mark: u64) -> Vec<Change> {
        let mut inner = self.write();
        let gone: Vec<ObjectKey> = inner
            .objects
            .values()
            .flatten()
            .filter(|(key, entry)| key.api_version == kind.api_version && key.kind == kind.kind && entry.at <= mark)
            .filter(|(key, _)| !named.contains(*key))
            .map(|(key, _)| key.clone())
            .collect();
        gone.iter().filter_map(|key| inner.remove(key, u64::MAX)).collect()
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<Value>> {
        self.read().objects.get(&key.namespace)?.get(key).map(Entry::object)
    }

    /// Who else than this operator wrote an object.
    pub(super) fn writers(&self, key: &ObjectKey) -> Vec<String> {
        let inner = self.read();
        inner
            .objects
            .get(&key.namespace)
            .and_then(|objects| objects.get(key))
            .map(|entry| entry.writers.clone())
            .unwrap_or_default()
    }

    /// What is in a namespace, without what people write.
    pub(super) fn list(&self, namespace: &str) -> BTreeMap<ObjectKey, Value> {
        let inner = self.read();
        let objects = inner.objects.get(namespace).into_iter().flatten();
        let owned = objects.filter(|(key, _)| key.api_version != acb_crds::API_VERSION);
        let owned = owned.map(|(key, entry)| (key.clone(), Arc::unwrap_or_clone(entry.object())));
        owned.filter(|(key, object)| !is_foreign_account(key, object)).collect()
    }

    /// Every Tenant, and the Agents and Quotas of a namespace.
    pub(super) fn tenancy(&self, namespace: &str) -> Tenancy {
        let (mut tenancy, agents) = {
            let inner = self.read();
            let tenancy = Tenancy {
                tenants: inner.listed.get_or_init(|| inner.tenants.values().cloned().collect()).clone(),
                agents: Vec::new(),
                quotas: inner.quotas.get(namespace).into_iter().flatten().map(|(_, quota)| quota.clone()).collect(),
                unreadable: inner.unreadable_of(namespace),
            };
            (tenancy, inner.agents_of(namespace))
        };
        // There may be thousands: the watches go on meanwhile.
        tenancy.agents = agents.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        tenancy
    }

    /// The namespaces whose Agents prove themselves with a ServiceAccount.
    pub(super) fn account_namespaces(&self) -> BTreeSet<String> {
        let namespaces: Vec<String> = self.read().agents.keys().cloned().collect();
        let has_account = |namespace: &String| {
            let agents = self.read().agents_of(namespace);
            let parse = |text: &Arc<str>| serde_json::from_str::<Value>(text).unwrap_or_default();
            agents.iter().any(|text| parse(text).pointer("/spec/credentials/serviceAccount").is_some())
        };
        namespaces.into_iter().filter(has_account).collect()
    }

    /// Reads who claims which namespaces.
    pub(super) fn claims<T>(&self, read: impl FnOnce(&Claims) -> T) -> T {
        read(&self.read().claims)
    }

    /// Whether there is something to do for a namespace.
    pub(super) fn is_tenancy(&self, namespace: &str) -> bool {
        let inner = self.read();
        inner.claims.has(namespace)
            || inner.agents.get(namespace).is_some_and(|agents| !agents.is_empty())
            || inner.quotas.get(namespace).is_some_and(|quotas| !quotas.is_empty())
    }

    /// Resources that this operator can't read, and why.
    pub(super) fn unreadable(&self) -> BTreeMap<ObjectRef, String> {
        self.read().unreadable.clone()
    }

    /// How many resources say what of themselves.
    pub(super) fn tally(&self) -> Tally {
        self.read().tally.clone()
    }

    /// The namespaces that there is something to do for.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        let inner = self.read();
        let filled = |namespace: &String, count: usize| (count > 0).then(|| namespace.clone());
        let of_agents = inner.agents.iter().filter_map(|(namespace, agents)| filled(namespace, agents.len()));
        let of_quotas = inner.quotas.iter().filter_map(|(namespace, quotas)| filled(namespace, quotas.len()));
        inner.tenants.values().filter_map(|listed| listed.space().map(str::to_owned)).chain(of_agents).chain(of_quotas).collect()
    }
}

fn typed<T: DeserializeOwned>(
    map: &mut BTreeMap<String, T>,
    name: &str,
    object: Option<&Value>,
) -> Result<(), serde_json::Error> {
    typed_as(map, name, object, |object: T| object)
}

fn typed_as<T: DeserializeOwned, K>(
    map: &mut BTreeMap<String, K>,
    name: &str,
    object: Option<&Value>,
    kept: impl FnOnce(T) -> K,
) -> Result<(), serde_json::Error> {
    // What can't be read is not as it was; that it is there is kept with why (`unreadable_of`).
    map.remove(name);
    if let Some(object) = object {
        map.insert(name.to_owned(), kept(T::deserialize(object)?));
    }
    Ok(())
}

impl Inner {
    /// Every Tenant, and the Agents and Quotas of a namespace, that can't be read, with what of them can.
    fn unreadable_of(&self, namespace: &str) -> Vec<Unreadable> {
        let known = |resource: &ObjectRef| {
            let key = ObjectKey::new(acb_crds::API_VERSION, resource.kind.as_str(), &resource.namespace, &resource.name);
            Unreadable::of(resource.kind, &self.objects.get(&resource.namespace)?.get(&key)?.object())
        };
        let here = self.unreadable.keys().filter(|resource| resource.kind == Kind::Tenant || resource.namespace == namespace);
        here.filter_map(known).collect()
    }

    /// The Agents of a namespace that can be read.
    fn agents_of(&self, namespace: &str) -> Vec<Arc<str>> {
        let Some(objects) = self.objects.get(namespace) else { return Vec::new() };
        let key = |name: &String| ObjectKey::new(acb_crds::API_VERSION, Kind::Agent.as_str(), namespace, name);
        let agents = self.agents.get(namespace).into_iter().flatten();
        agents.filter_map(|name| Some(Arc::clone(&objects.get(&key(name))?.text))).collect()
    }

    fn remove(&mut self, key: &ObjectKey, version: u64) -> Option<Change> {
        let objects = self.objects.get_mut(&key.namespace)?;
        if objects.get(key).is_none_or(|known| known.version > version) {
            return None;
        }
        let before = objects.remove(key).map(|entry| entry.object());
        if objects.is_empty() {
            self.objects.remove(&key.namespace);
        }
        self.parse(key, None);
        self.tally.change(key, before.as_deref(), None);
        Some(Change { key: key.clone(), before, now: None })
    }

    /// Keeps what people write typed, too.
    fn parse(&mut self, key: &ObjectKey, object: Option<&Value>) {
        let Some(resource) = resource_of(key) else { return };
        let (namespace, name) = (key.namespace.clone(), key.name.as_str());
        let parsed = match resource.kind {
            Kind::Tenant => typed_as(&mut self.tenants, name, object, |tenant: Tenant| Arc::new(Listed::from(tenant))),
            Kind::Agent => {
                let agents = self.agents.entry(namespace.clone()).or_default();
                agents.remove(name);
                let parsed = object.map(Agent::deserialize).transpose();
                if let Ok(Some(_)) = parsed {
                    agents.insert(name.to_owned());
                }
                if agents.is_empty() {
                    self.agents.remove(&namespace);
                }
                parsed.map(drop)
            }
            Kind::Quota => typed(self.quotas.entry(namespace).or_default(), name, object),
        };
        if resource.kind == Kind::Tenant {
            self.claims.set(name, self.tenants.get(name).map(|listed| listed.tenant()));
            self.listed = OnceLock::new();
        }
        match parsed {
            Ok(()) => drop(self.unreadable.remove(&resource)),
            Err(error) => drop(self.unreadable.insert(resource, error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn of_an_account_that_others_made_its_uid_is_kept() {
        let cache = Cache::default();
        let account = |version: &str, uid: &str, labels: Value| {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"name": "x"}],
                   "metadata": {"name": "worker", "namespace": "acb-acme", "uid": uid, "resourceVersion": version, "labels": labels}})
        };
        let key = ObjectKey::new("v1", "ServiceAccount", "acb-acme", "worker");
        cache.put(account("1", "one", json!({"team": "blue"})));
        let known = cache.get(&key).unwrap();
        assert_eq!((known.pointer("/metadata/uid"), known.get("secrets")), (Some(&json!("one")), None));
        assert!(cache.list("acb-acme").is_empty(), "no plan has it");
        cache.put(account("2", "one", json!({"app.kubernetes.io/managed-by": "acb-operator"})));
        assert_eq!(cache.list("acb-acme").len(), 1);
        cache.put(account("3", "one", json!({})));
        assert!(cache.list("acb-acme").is_empty());
        assert!(cache.remove(&account("4", "one", json!({}))).is_some() && cache.get(&key).is_none());
    }

    #[test]
    fn namespaces_with_accounts_are_known() {
        let cache = Cache::default();
        let agent = |namespace: &str, credentials: Value| {
            json!({"apiVersion": acb_crds::API_VERSION, "kind": "Agent", "metadata": {"name": "a", "namespace": namespace, "resourceVersion": "1"},
                   "spec": {"role": "AgentFull", "credentials": credentials}})
        };
        cache.put(agent("acb-acme", json!({"serviceAccount": {"name": "worker"}})));
        cache.put(agent("acb-globex", json!({"apiKey": {}})));
        assert_eq!(cache.account_namespaces(), BTreeSet::from(["acb-acme".to_owned()]));
    }

    fn map(name: &str, version: u64) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
               "metadata": {"name": name, "namespace": "n", "resourceVersion": version.to_string(), "managedFields": []}})
    }

    #[test]
    fn the_newer_stays() {
        let cache = Cache::default();
        assert!(cache.put(map("a", 10)).is_some());
        assert!(cache.put(map("a", 12)).is_some(), "what was just written");
        assert!(cache.put(map("a", 11)).is_none(), "a watch that is behind");
        assert!(cache.remove(&map("a", 11)).is_none());
        let known = cache.get(&ObjectKey::new("v1", "ConfigMap", "n", "a")).unwrap();
        assert_eq!(known.pointer("/metadata/resourceVersion").unwrap(), "12");
        assert!(known.pointer("/metadata/managedFields").is_none());
        assert!(cache.remove(&map("a", 13)).unwrap().now.is_none());
        assert!(cache.list("n").is_empty());
    }

    #[test]
    fn who_else_wrote_an_object_is_known_and_what_they_wrote_is_not_kept() {
        let cache = Cache::default();
        let mut object = map("a", 1);
        object["metadata"]["managedFields"] = json!([
            {"manager": "acb-operator", "operation": "Apply", "fieldsV1": {}}, {"manager": "kubectl-edit", "operation": "Update"},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status"},
        ]);
        cache.put(object);
        assert_eq!(cache.writers(&ObjectKey::new("v1", "ConfigMap", "n", "a")), ["kubectl-edit"]);
    }

    #[test]
    fn a_list_forgets_what_it_does_not_name() {
        let cache = Cache::default();
        cache.put(map("gone", 1));
        cache.put(map("there", 2));
        let mark = cache.mark();
        cache.put(map("new", 9));
        let named = BTreeSet::from([ObjectKey::new("v1", "ConfigMap", "n", "there")]);
        let kind = WatchedKind::find("v1", "ConfigMap").unwrap();
        let gone = cache.forget_others(kind, &named, mark);
        assert_eq!(gone.iter().map(|change| change.key.name.as_str()).collect::<Vec<_>>(), ["gone"]);
        assert_eq!(cache.list("n").len(), 2, "what was made while the list was read is not taken for gone");
    }

    #[test]
    fn a_resource_that_can_not_be_read_is_known_as_such() {
        let cache = Cache::default();
        let tenant = |tier: &str, version: u64| {
            json!({"apiVersion": acb_crds::API_VERSION, "kind": "Tenant",
                   "metadata": {"name": "acme", "resourceVersion": version.to_string()}, "spec": {"tier": tier}})
        };
        cache.put(tenant("Free", 1));
        assert_eq!(cache.namespaces(), BTreeSet::from(["acb-acme".to_owned()]));
        cache.put(tenant("Golden", 2));
        assert!(cache.namespaces().is_empty() && cache.unreadable().len() == 1);
        let known = cache.tenancy("elsewhere").unreadable;
        assert_eq!((known[0].kind, known[0].space.as_deref()), (Kind::Tenant, Some("acb-acme")), "it is there all the same");
        cache.put(tenant("Free", 3));
        assert!(cache.unreadable().is_empty());
    }
}
