//! The resources that people write, as an API server keeps them: with a UID, an age, finalizers, and a time of deletion while one holds them.

use std::collections::BTreeMap;

use acb_crds::{
    names::{
        FINALIZER, TenantId,
        annotations::{ADOPT, CONFIRM_DELETE, ROTATE},
    },
    schema::{self, Resource},
};
use acb_operator::{
    effect::kubernetes::ObjectKey,
    tenancy::{Tenancy, namespace},
};
use serde_json::{Value, json};

/// Kind, namespace, name.
pub(crate) type Name = (String, String, String);

#[derive(Clone, Debug, Default)]
pub(crate) struct Documents {
    all: BTreeMap<Name, Value>,
    made: u64,
    /// Every UID that ever was, with what had it.
    had: BTreeMap<String, Name>,
}

/// Of the ServiceAccounts that agents prove themselves with. They are people's own, too.
pub(crate) const ACCOUNT: &str = "ServiceAccount";

/// As an object of Kubernetes.
pub(crate) fn key((kind, namespace, name): &Name) -> ObjectKey {
    ObjectKey::new(if kind == ACCOUNT { "v1" } else { acb_crds::API_VERSION }, kind, namespace, name)
}

pub(crate) fn name(kind: &str, namespace: &str, name: &str) -> Name {
    (kind.to_owned(), namespace.to_owned(), name.to_owned())
}

/// Whether it is an account that the operator did not make.
fn is_account(key: &ObjectKey, object: &Value) -> bool {
    key.kind == ACCOUNT && object["metadata"]["labels"].is_null()
}

fn is_leaving(document: &Value) -> bool {
    !document["metadata"]["deletionTimestamp"].is_null()
}

impl Documents {
    /// Makes or edits one; whether the API server took it.
    pub(crate) fn put(&mut self, at: &Name, spec: &Value) -> bool {
        if self.all.get(at).is_some_and(is_leaving) {
            return false;
        }
        if at.0 == ACCOUNT {
            self.put_account(at);
            return true;
        }
        let age = format!("2026-01-01T{:02}:{:02}:{:02}Z", self.made / 3600 % 24, self.made / 60 % 60, self.made % 60);
        self.put_aged(at, spec, &age)
    }

    /// One that was deleted and is made again is another.
    fn put_account(&mut self, at: &Name) {
        if self.all.contains_key(at) {
            return;
        }
        let uid = self.mint(at);
        let (kind, namespace, name) = at;
        let metadata = json!({"name": name, "namespace": namespace, "uid": uid});
        self.all.insert(at.clone(), json!({"apiVersion": "v1", "kind": kind, "metadata": metadata}));
    }

    fn mint(&mut self, at: &Name) -> String {
        self.made += 1;
        let uid = format!("00000000-0000-4000-8000-{:012}", self.made);
        self.had.insert(uid.clone(), at.clone());
        uid
    }

    fn put_aged(&mut self, at: &Name, spec: &Value, age: &str) -> bool {
        let (kind, namespace, name) = at;
        // Whoever deletes here means it.
        let annotations = if kind == "Tenant" { json!({CONFIRM_DELETE: name}) } else { json!({}) };
        let mut document = json!({
            "apiVersion": acb_crds::API_VERSION, "kind": kind, "metadata": {"name": name, "annotations": annotations}, "spec": spec,
        });
        if !namespace.is_empty() {
            document["metadata"]["namespace"] = json!(namespace);
        }
        let old = self.all.get(at);
        if schema::check(&document, old).is_err() {
            return false;
        }
        match old {
            Some(old) => document["metadata"] = old["metadata"].clone(),
            None => {
                document["metadata"]["uid"] = json!(self.mint(at));
                document["metadata"]["creationTimestamp"] = json!(age);
            }
        }
        self.all.insert(at.clone(), document);
        true
    }

    /// What is asked of its credentials.
    pub(crate) fn rotate(&mut self, at: &Name, request: &str) {
        if self.all.get(at).is_some_and(|document| !is_leaving(document)) {
            self.annotate(at, ROTATE, request);
        }
    }

    pub(crate) fn delete(&mut self, at: &Name) {
        let Some(document) = self.all.get_mut(at) else { return };
        if document["metadata"]["finalizers"].is_null() {
            self.all.remove(at);
        } else {
            document["metadata"]["deletionTimestamp"] = json!("2026-02-01T00:00:00Z");
        }
    }

    pub(crate) fn hold(&mut self, at: &Name) {
        if let Some(document) = self.all.get_mut(at) {
            document["metadata"]["finalizers"] = json!([FINALIZER]);
        }
    }

    pub(crate) fn let_go(&mut self, at: &Name) {
        self.all.remove(at);
    }

    pub(crate) fn get(&self, at: &Name) -> Option<&Value> {
        self.all.get(at)
    }

    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = (&Name, &Value)> {
        self.all.iter().filter(move |((found, ..), _)| found == kind)
    }

    /// The id that follows from the UID of a Tenant.
    pub(crate) fn id(&self, tenant: &Value) -> TenantId {
        TenantId::from_uid(tenant["metadata"]["uid"].as_str().unwrap())
    }

    /// Asks for the data of an id.
    pub(crate) fn adopt(&mut self, at: &Name, id: TenantId) {
        self.ask(at, &id.hex());
    }

    /// Asks for the data of what may be no id.
    pub(crate) fn ask(&mut self, at: &Name, id: &str) {
        self.annotate(at, ADOPT, id);
    }

    /// Asks for nothing any more.
    pub(crate) fn forget_adoption(&mut self, at: &Name) {
        let annotations = self.all.get_mut(at).and_then(|document| document["metadata"]["annotations"].as_object_mut());
        annotations.into_iter().for_each(|annotations| drop(annotations.remove(ADOPT)));
    }

    /// The ids of every Tenant that ever was.
    pub(crate) fn every_id(&self) -> Vec<TenantId> {
        let tenants = self.had.iter().filter(|(_, (kind, ..))| kind == "Tenant");
        tenants.map(|(uid, _)| TenantId::from_uid(uid)).collect()
    }

    /// As an operator knows them.
    pub(crate) fn seen<'a>(objects: impl Iterator<Item = (&'a ObjectKey, &'a Value)>) -> Self {
        let documents = objects.filter(|(key, object)| key.api_version == acb_crds::API_VERSION || is_account(key, object));
        // What was let go is there until its deletion comes back through the watch.
        let held = documents.filter(|(_, document)| !is_leaving(document) || document["metadata"]["finalizers"].is_array());
        let all = held.map(|(key, document)| ((key.kind.clone(), key.namespace.clone(), key.name.clone()), document.clone()));
        Self { all: all.collect(), ..Self::default() }
    }

    /// As objects of Kubernetes.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (ObjectKey, &Value)> {
        self.all.iter().map(|(at, document)| (key(at), document))
    }

    fn annotate(&mut self, at: &Name, annotation: &str, value: &str) {
        if let Some(document) = self.all.get_mut(at) {
            document["metadata"]["annotations"][annotation] = json!(value);
        }
    }

    /// Of all that ACB is told by.
    pub(crate) fn uids(&self) -> Vec<Value> {
        let own = self.all.iter().filter(|((kind, ..), _)| kind != ACCOUNT);
        own.map(|(_, document)| document["metadata"]["uid"].clone()).collect()
    }

    /// The UID of a ServiceAccount that is there.
    pub(crate) fn account(&self, namespace: &str, account: &str) -> Option<&str> {
        self.get(&name(ACCOUNT, namespace, account))?["metadata"]["uid"].as_str()
    }

    pub(crate) fn names(&self) -> Vec<Name> {
        self.all.keys().cloned().collect()
    }

    /// The same documents in another cluster, made there in the order of their ages.
    pub(crate) fn fresh(&self) -> Self {
        let mut all: Vec<(&Name, &Value)> = self.all.iter().filter(|(_, document)| !is_leaving(document)).collect();
        all.sort_by_key(|(_, document)| document["metadata"]["creationTimestamp"].as_str().map(str::to_owned));
        // Other UIDs than any here: what is compared must not depend on them.
        let mut fresh = Self { made: 500_000, ..Self::default() };
        for (at, document) in all {
            if at.0 == ACCOUNT {
                fresh.put_account(at);
                continue;
            }
            let age = document["metadata"]["creationTimestamp"].as_str().unwrap();
            assert!(fresh.put_aged(at, &document["spec"], age), "{document}");
        }
        fresh
    }

    /// As the operator reads them for one namespace.
    pub(crate) fn tenancy(&self, of: &str) -> Tenancy {
        let mut tenancy = Tenancy::default();
        for document in self.all.iter().filter(|((kind, ..), _)| kind != ACCOUNT).map(|(_, document)| document) {
            match schema::check(document, None).expect("the API server took it") {
                Resource::Tenant(tenant) => tenancy.tenants.push(*tenant),
                Resource::Agent(agent) if agent.metadata.namespace.as_deref() == Some(of) => tenancy.agents.push(*agent),
                Resource::Quota(quota) if quota.metadata.namespace.as_deref() == Some(of) => tenancy.quotas.push(*quota),
                Resource::Agent(_) | Resource::Quota(_) => {}
            }
        }
        tenancy
    }

    /// Every namespace that some document is about.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let tenants = self.tenancy("").tenants;
        let own = self.all.keys().filter(|(kind, ..)| kind != ACCOUNT);
        let spaces = tenants.iter().filter_map(namespace).chain(own.map(|(_, namespace, _)| namespace.clone()));
        let mut spaces: Vec<String> = spaces.filter(|space| !space.is_empty()).collect();
        spaces.sort();
        spaces.dedup();
        spaces
    }

    /// A text without what depends on when something was made.
    pub(crate) fn neutral(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (uid, (kind, namespace, name)) in &self.had {
            text = text.replace(&TenantId::from_uid(uid).hex(), &format!("<id of {name}>"));
            text = text.replace(uid, &format!("<uid of {kind} {namespace}/{name}>"));
        }
        text
    }
}
