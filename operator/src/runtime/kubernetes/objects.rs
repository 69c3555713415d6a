//! The port for objects on the API: reads come from the cache, writes say which version they are about and under whose name, and each
//! asks the fence right before it is sent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use acb_crds::{Tenant, names::TenantId, schema::Kind};
use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_client::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    FIELD_MANAGER,
    cache::Cache,
    claims,
    conflicts::Conflicts,
    kinds::WatchedKind,
    requests::{Refusal, Requests, plain},
    secrets::{Listing, Secrets},
};
use crate::{
    difference,
    effect::{
        EffectError, SecretData, SecretReader,
        fence::Fence,
        kubernetes::{ObjectKey, Objects},
    },
    observed::ObservedIssuer,
    plan::SecretRef,
};

/// A write that met another's is tried again so often at once: what is there is read, and compared anew. It is nobody's news.
const CONFLICTS: usize = 3;

/// What of a resource, which is people's own, is the operator's.
enum Part<'a> {
    /// A finalizer, and whether it is to be there.
    Finalizer(&'a str, bool),
    /// All of it.
    Status(Value),
}

/// Objects of one leader's term.
pub(super) struct KubernetesObjects {
    requests: Requests,
    cache: Arc<Cache>,
    secrets: Secrets,
    fence: Arc<Fence>,
    conflicts: Conflicts,
    /// Its Secrets may always be read.
    own_namespace: String,
    issuer: watch::Receiver<Option<ObservedIssuer>>,
}

impl KubernetesObjects {
    pub(super) fn new(
        requests: Requests,
        cache: Arc<Cache>,
        fence: Arc<Fence>,
        own_namespace: &str,
        issuer: watch::Receiver<Option<ObservedIssuer>>,
    ) -> Self {
        let secrets = Secrets::new(requests.clone());
        Self { requests, cache, secrets, fence, conflicts: Conflicts::default(), own_namespace: own_namespace.to_owned(), issuer }
    }

    /// Sends a patch of an object, and remembers what came of it.
    async fn patch(
        &self,
        key: &ObjectKey,
        part: Option<&str>,
        options: &PatchParams,
        patch: &Patch<Value>,
    ) -> Result<(), Refusal> {
        let api = self.requests.api_of(key).map_err(Refusal::Other)?;
        self.fence.check(Duration::ZERO).map_err(Refusal::Other)?;
        let answer = match part {
            None => self.requests.send("patch", key, api.patch(&key.name, options, patch)).await?,
            Some(part) => self.requests.send("patch", key, api.patch_subresource(part, &key.name, options, patch)).await?,
        };
        if let Some(object) = plain(&key.api_version, &key.kind, &answer) {
            self.cache.put(object);
        }
        Ok(())
    }

    /// Adds a finalizer to the object with this UID or takes it away, where that changes anything. One that is gone can't be held: nothing may be
    /// made for it any more. And what comes under its name meanwhile is another, which is neither held nor let go for it.
    pub(super) async fn set_finalizer(
        &self,
        key: &ObjectKey,
        uid: &str,
        finalizer: &str,
        wanted: bool,
    ) -> Result<(), EffectError> {
        let gone = || match wanted {
            true => Err(EffectError::unavailable("the API server", format!("{key} is gone: nothing is made for it"))),
            false => Ok(()),
        };
        let Some(first) = self.same(key, uid) else { return gone() };
        // What is let go is what was decided about: not what another changed since.
        let decided = Some(first).filter(|_| !wanted);
        match self.write_same(key, uid, decided, &Part::Finalizer(finalizer, wanted)).await {
            Err(Refusal::Missing) => gone(),
            written => written.map_err(Into::into),
        }
    }

    async fn write_finalizer(&self, key: &ObjectKey, known: &Value, finalizer: &str, wanted: bool) -> Result<(), Refusal> {
        let listed = known.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
        if listed.iter().any(|listed| listed == finalizer) == wanted {
            return Ok(());
        }
        let mut finalizers: Vec<Value> = listed.into_iter().filter(|listed| listed != finalizer).collect();
        finalizers.extend(wanted.then(|| json!(finalizer)));
        let version = known.pointer("/metadata/resourceVersion");
        let patch = json!({"metadata": {"resourceVersion": version, "finalizers": finalizers}});
        let options = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        self.patch(key, None, &options, &Patch::Merge(patch)).await
    }

    /// Sets the status of the object with this UID, where it differs. One that is gone is no error; and what is said of it is not said of another
    /// that has its name by now.
    pub(super) async fn set_status(&self, key: &ObjectKey, uid: &str, status: Value) -> Result<(), EffectError> {
        gone_is_done(self.write_same(key, uid, None, &Part::Status(status)).await).map_err(Into::into)
    }

    async fn write_status(&self, key: &ObjectKey, known: &Value, status: &Value) -> Result<(), Refusal> {
        if known.get("status") == Some(status) {
            return Ok(());
        }
        let object = json!({
            "apiVersion": key.api_version, "kind": key.kind,
            "metadata": {
                "name": key.name, "namespace": known.pointer("/metadata/namespace"),
                "uid": known.pointer("/metadata/uid"), "resourceVersion": known.pointer("/metadata/resourceVersion"),
            },
            "status": status,
        });
        let options = PatchParams::apply(FIELD_MANAGER).force();
        self.patch(key, Some("status"), &options, &Patch::Apply(object)).await
    }

    /// Writes an object, where it differs from what is known. `is_first`: a return of what others changed counts once for each step.
    async fn write(&self, key: &ObjectKey, object: &Value, known: Option<&Value>, is_first: bool) -> Result<(), Refusal> {
        if known.is_some_and(|known| !difference::differs(object, known)) {
            return Ok(());
        }
        // One that is gone is made again at once: nobody's hub is rolled by that.
        if known.is_some() && self.conflicts.rests(key, object) {
            return Ok(());
        }
        // Whose a namespace is it says itself: one that came meanwhile is another's, and a forced apply would make it this one's.
        if known.is_none() && key.kind == "Namespace" {
            return self.create(key, object).await;
        }
        let writers = self.cache.writers(key);
        let mut sent = object.clone();
        // An object that is known is changed as it was seen, or not at all: a leader that was asleep has seen an older one.
        if let Some(version) = known.and_then(|known| known.pointer("/metadata/resourceVersion")) {
            sent["metadata"]["resourceVersion"] = version.clone();
        }
        let options = PatchParams::apply(FIELD_MANAGER).force();
        self.patch(key, None, &options, &Patch::Apply(sent.clone())).await?;
        match known {
            Some(_) if is_first => self.conflicts.applied(key, object, writers),
            Some(_) => {}
            // Nobody has changed what was not there.
            None => self.conflicts.made(key, object),
        }
        // What someone else put into an object of ours is theirs, and so it stays through an apply: lists are written whole then, and what
        // is to go is taken away by name.
        let now = self.cache.get(key);
        if let Some(now) = now.filter(|now| difference::differs(object, now)) {
            let mut sent = difference::without_foreign(object, &now).unwrap_or(sent);
            sent["metadata"]["resourceVersion"] = now.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
            let options = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
            self.patch(key, None, &options, &Patch::Merge(sent)).await?;
        }
        Ok(())
    }

    /// Makes an object that is not there.
    async fn create(&self, key: &ObjectKey, object: &Value) -> Result<(), Refusal> {
        let api = self.requests.api_of(key).map_err(Refusal::Other)?;
        let object = serde_json::from_value(object.clone())
            .map_err(|error| Refusal::Other(EffectError::refused("the operator", format!("{key} is no object: {error}"))))?;
        let options = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        self.fence.check(Duration::ZERO).map_err(Refusal::Other)?;
        let sent = self.requests.send("create", key, api.create(&options, &object)).await;
        if let Err(Refusal::Exists) = sent {
            // What is decided next is decided about that one.
            self.read_again(key).await?;
        }
        let made = sent?;
        if let Some(object) = plain(&key.api_version, &key.kind, &made) {
            self.cache.put(object);
        }
        Ok(())
    }

    /// The object with this UID as it is known now; `None` where it is gone, or another was made under its name.
    fn same(&self, key: &ObjectKey, uid: &str) -> Option<Arc<Value>> {
        self.cache.get(key).filter(|known| known.pointer("/metadata/uid").and_then(Value::as_str) == Some(uid))
    }

    /// Writes to the object with this UID. Where another wrote first, it is written of what is there by then; where something was decided about it,
    /// as long as that is still so.
    async fn write_same(&self, key: &ObjectKey, uid: &str, decided: Option<Arc<Value>>, part: &Part<'_>) -> Result<(), Refusal> {
        let mut attempt = 0;
        loop {
            let Some(known) = self.same(key, uid) else { return Err(Refusal::Missing) };
            let written = match part {
                Part::Finalizer(name, wanted) => self.write_finalizer(key, &known, name, *wanted).await,
                Part::Status(status) => self.write_status(key, &known, status).await,
            };
            let is_late = self.is_late(key, &written, attempt).await;
            let is_another = |now: &Value| decided.as_deref().is_some_and(|decided| !is_aside(Some(decided), now));
            if !is_late || self.same(key, uid).is_some_and(|now| is_another(&now)) {
                return written;
            }
            attempt += 1;
        }
    }

    /// Whether a write met another's, and is to be made again of what is there now. The fence is asked before each.
    async fn is_late(&self, key: &ObjectKey, written: &Result<(), Refusal>, attempt: usize) -> bool {
        matches!(written, Err(Refusal::Conflict(_))) && attempt < CONFLICTS && self.read_again(key).await.is_ok()
    }

    /// Has the cache know what the API server has of an object now: the watch may be behind.
    async fn read_again(&self, key: &ObjectKey) -> Result<(), Refusal> {
        let api = self.requests.api_of(key).map_err(Refusal::Other)?;
        // Of most kinds the operator may only list.
        let named = ListParams::default().fields(&format!("metadata.name={}", key.name));
        let listed = self.requests.send("list", key, api.list(&named)).await?;
        for found in &listed.items {
            if let Some(object) = plain(&key.api_version, &key.kind, found) {
                self.cache.put(object);
            }
        }
        Ok(())
    }

    /// The Tenants that the API server has now: not asked from a cache, neither its own nor this one.
    pub(super) async fn tenants(&self) -> Result<Vec<ObjectMeta>, EffectError> {
        let api = self.requests.api_of(&ObjectKey::new(acb_crds::API_VERSION, Kind::Tenant.as_str(), "", ""))?;
        let listed = self.requests.send("list", &"Tenants", api.list_metadata(&ListParams::default())).await?;
        Ok(listed.items.into_iter().map(|found| found.metadata).collect())
    }

    /// Keeps nothing of what was read of the Secrets of a Tenant that is let go. Nobody looks into its namespaces again, and they may stay.
    pub(super) fn forget_secrets(&self, tenant: &Tenant) {
        for namespace in claims::spaces(tenant) {
            self.secrets.forget_all(&namespace);
        }
        for id in claims::ids(tenant).iter().filter_map(|id| TenantId::from_hex(id)) {
            self.secrets.forget_generations(&self.own_namespace, &id.authority_secret());
        }
    }

    /// What others change again and again in these namespaces.
    pub(super) fn conflicts(&self, namespaces: &[&str]) -> Vec<String> {
        self.conflicts.of(namespaces)
    }

    /// Whether a namespace is there for things to be in.
    fn has_namespace(&self, namespace: &str) -> bool {
        namespace == self.own_namespace || self.namespace(namespace).is_some()
    }

    /// Whether a namespace is on its way out, with everything in it: our right to it may be gone already, and does not come back.
    fn is_leaving(&self, namespace: &str) -> bool {
        let found = self.namespace(namespace);
        found.is_some_and(|found| found.pointer("/metadata/deletionTimestamp").is_some())
    }

    fn namespace(&self, name: &str) -> Option<Arc<Value>> {
        self.cache.get(&ObjectKey::new("v1", "Namespace", "", name))
    }
}

/// One that is gone is no error.
fn gone_is_done(written: Result<(), Refusal>) -> Result<(), Refusal> {
    match written {
        Err(Refusal::Missing) => Ok(()),
        written => written,
    }
}

/// A plan that leaves the replicas as they were when it was made leaves them as they are now: an autoscaler may have been the other writer.
fn follow_replicas(object: &mut Value, before: Option<&Value>, now: Option<&Value>) {
    let replicas = |object: &Value| object.pointer("/spec/replicas").cloned();
    let (planned, before, now) = (replicas(object), before.and_then(replicas), now.and_then(replicas));
    if let (true, Some(now)) = (object["kind"] == "Deployment" && planned.is_some() && planned == before, now) {
        object["spec"]["replicas"] = now;
    }
}

#[async_trait]
impl SecretReader for KubernetesObjects {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        self.secrets.read(secret).await
    }
}

#[async_trait]
impl Objects for KubernetesObjects {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Value>, EffectError> {
        if key.kind == "Secret" {
            return self.secrets.find(key).await;
        }
        Ok(self.cache.get(key).map(|object| Value::clone(&object)))
    }

    fn issuer(&self) -> Option<ObservedIssuer> {
        self.issuer.borrow().clone()
    }

    async fn list(&self, namespace: &str) -> Result<BTreeMap<ObjectKey, Value>, EffectError> {
        let mut objects = self.cache.list(namespace);
        if namespace.is_empty() {
            return Ok(objects);
        }
        if !self.has_namespace(namespace) {
            self.secrets.forget_all(namespace);
            return Ok(objects);
        }
        let secrets = match self.secrets.list(namespace).await {
            // They go with it. Agents in it that wait for us would keep it for as long as we waited for our right.
            Err(Refusal::Forbidden(_)) if self.is_leaving(namespace) => return Ok(objects),
            listed => listed.map_err(|refusal| refusal.within(namespace))?,
        };
        for (name, listing) in secrets {
            objects.insert(ObjectKey::new("v1", "Secret", namespace, &name), listing.object(namespace, &name));
        }
        Ok(objects)
    }

    async fn generations(&self, namespace: &str, names: &[&str]) -> Result<BTreeMap<ObjectKey, Value>, EffectError> {
        if !self.has_namespace(namespace) {
            return Ok(BTreeMap::new());
        }
        let listed = self.secrets.generations(namespace, names).await.map_err(|refusal| refusal.within(namespace))?;
        let of = |(name, listing): (String, Listing)| {
            (ObjectKey::new("v1", "Secret", namespace, &name), listing.object(namespace, &name))
        };
        Ok(listed.into_iter().map(of).collect())
    }

    async fn apply(&self, object: &Value) -> Result<(), EffectError> {
        let key = ObjectKey::of(object)
            .ok_or_else(|| EffectError::refused("the operator", "an object without apiVersion, kind or metadata.name"))?;
        let refused = |refusal| match refusal {
            Refusal::Missing if WatchedKind::find(&key.api_version, &key.kind).is_some_and(|kind| kind.is_optional) => {
                let what = format!(
                    "{} of {} is not known to this cluster: install its CRDs, or ask for none",
                    key.kind, key.api_version
                );
                EffectError::refused("the API server", what)
            }
            other => other.within(&key.namespace),
        };
        let (mut object, mut attempt) = (object.clone(), 0);
        loop {
            let known = self.cache.get(&key);
            let written = self.write(&key, &object, known.as_deref(), attempt == 0).await;
            // What another wrote may be a newer leader's: this plan knows nothing of it, and is made again of what is there now.
            let is_another = || {
                self.cache.get(&key).is_some_and(|now| !is_aside(known.as_deref(), &now) && difference::differs(&object, &now))
            };
            if !self.is_late(&key, &written, attempt).await || is_another() {
                return written.map_err(refused);
            }
            follow_replicas(&mut object, known.as_deref(), self.cache.get(&key).as_deref());
            attempt += 1;
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), EffectError> {
        let found = if key.kind == "Secret" {
            self.secrets.find(key).await?
        } else {
            self.cache.get(key).map(|known| Value::clone(&known))
        };
        let Some(found) = found else { return Ok(()) };
        let uid = found.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned);
        let options = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            // One that was made anew since is another's to decide about.
            preconditions: Some(Preconditions { uid, resource_version: None }),
            ..DeleteParams::default()
        };
        let api = self.requests.api_of(key)?;
        self.fence.check(Duration::ZERO)?;
        let sent = self.requests.send("delete", key, api.delete(&key.name, &options)).await;
        if key.kind == "Secret" {
            self.secrets.forget(key);
        }
        match sent {
            Ok(_) | Err(Refusal::Missing) => Ok(()),
            Err(other) => Err(other.within(&key.namespace)),
        }
    }

    async fn create_secret(&self, secret: &SecretRef, data: SecretData, asked: Option<&str>) -> Result<(), EffectError> {
        self.fence.check(Duration::ZERO)?;
        self.secrets.create(secret, &data, asked).await
    }
}

/// Whether an object changed only in what no decision is about: its status, and the replicas that an autoscaler sets.
fn is_aside(before: Option<&Value>, now: &Value) -> bool {
    let decided = |object: &Value| {
        let mut object = object.clone();
        let Some(fields) = object.as_object_mut() else { return object };
        fields.remove("status");
        let metadata = fields.remove("metadata").unwrap_or_default();
        let own = |annotations: &Value| {
            let own = annotations.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("acb.dev/"));
            own.map(|(name, value)| (name.clone(), value.clone())).collect::<serde_json::Map<_, _>>()
        };
        fields.insert("labels".to_owned(), metadata["labels"].clone());
        fields.insert("annotations".to_owned(), Value::Object(own(&metadata["annotations"])));
        if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("replicas");
        }
        object
    };
    before.is_some_and(|before| decided(before) == decided(now))
}
