//! What reconciling takes on a cluster, for one leader's term.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use acb_crds::{
    names::{TenantName, objects::HUB},
    schema::{Kind, ObjectRef},
    tenant::{Endpoint, IsolationStatus},
};
use async_trait::async_trait;
use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube_runtime::events::{Event, EventType};
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    FINALIZER, cache::Cache, config::Config, database::Claim, events::Events, hub, lease::KAFKA_SPARE,
    objects::KubernetesObjects, watch::Woken,
};
use crate::{
    effect::{
        EffectError,
        fence::Fence,
        kafka::KafkaEffect,
        kafka_access::KafkaAccess,
        kafka_shared::SharedSnapshot,
        kubernetes::{ObjectKey, Objects},
    },
    observed::ObservedHub,
    orphans::OrphanReport,
    platform::Platform,
    reconcile::{
        deletion::Ending,
        news::News,
        runtime::{Database, Runtime},
    },
    tenancy::Tenancy,
    tenant::{fetch::Hubs, validate::ValidatedTenant},
};

/// A deletion that kept failing for so long is let go, and says what is left behind.
const DELETION_BOUND: Duration = Duration::from_secs(300);

/// A cluster, as its leader may change it.
pub(super) struct Cluster {
    pub(super) config: Arc<Config>,
    pub(super) cache: Arc<Cache>,
    pub(super) woken: Arc<Woken>,
    pub(super) objects: Arc<KubernetesObjects>,
    pub(super) claim: Claim,
    pub(super) fence: Arc<Fence>,
    /// What Kafka holds of all tenants.
    pub(super) kafka: Arc<SharedSnapshot>,
    pub(super) events: Events,
    /// Given when no further step may begin.
    pub(super) closing: CancellationToken,
    /// Told when a deletion was let go with something left behind.
    pub(super) left_behind: Notify,
    /// What the last sweep found and left.
    pub(super) orphans: Mutex<OrphanReport>,
    /// What attacks on walls found in this term, by the UIDs of the Tenants.
    pub(super) isolation: Mutex<BTreeMap<String, IsolationStatus>>,
}

/// The key of a resource.
pub(super) fn key(object: &ObjectRef) -> ObjectKey {
    ObjectKey::new(acb_crds::API_VERSION, object.kind.as_str(), &object.namespace, &object.name)
}

/// On its way out, and taken down: no longer this operator's affair.
pub(super) fn is_let_go(metadata: &ObjectMeta) -> bool {
    let is_held = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    metadata.deletion_timestamp.is_some() && !is_held
}

impl Cluster {
    /// PostgreSQL, where this cluster has a use for it: whoever claims it fences who claimed it before, and an operator without a Tenant may be
    /// a new cluster's that was given the addresses of another's. `None`: there is none.
    pub(super) async fn database_in_use(&self) -> Result<Option<Database>, EffectError> {
        let tenancy = self.tenancy("")?;
        let has_tenants = !tenancy.tenants.is_empty() || tenancy.has_unreadable(Kind::Tenant);
        if !has_tenants && !self.claim.is_claimed() {
            return Ok(None);
        }
        self.database().await.map(Some)
    }

    fn hub_object(&self, tenant: &TenantName, api_version: &str, kind: &str) -> Option<Arc<Value>> {
        self.cache.get(&ObjectKey::new(api_version, kind, &tenant.hub_namespace(), HUB))
    }

    fn reference(&self, object: &ObjectRef) -> ObjectReference {
        let known = self.cache.get(&key(object));
        let text = |pointer: &str| known.as_ref()?.pointer(pointer)?.as_str().map(str::to_owned);
        ObjectReference {
            api_version: Some(acb_crds::API_VERSION.to_owned()),
            kind: Some(object.kind.to_string()),
            name: Some(object.name.clone()),
            namespace: Some(object.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: text("/metadata/uid"),
            resource_version: text("/metadata/resourceVersion"),
            field_path: None,
        }
    }
}

impl Hubs for Cluster {
    fn is_rolled_out(&self, tenant: &TenantName) -> bool {
        hub::observed(self.hub_object(tenant, "apps/v1", "Deployment").as_deref()).rolled_out
    }
}

#[async_trait]
impl Runtime for Cluster {
    fn platform(&self) -> &Platform {
        &self.config.platform
    }

    fn tenancy(&self, namespace: &str) -> Result<Tenancy, EffectError> {
        let mut tenancy = self.cache.tenancy(namespace);
        // What was let go is there until its deletion comes back through the watch, or for as long as others hold it.
        tenancy.tenants.retain(|tenant| !is_let_go(&tenant.metadata));
        tenancy.agents.retain(|agent| !is_let_go(&agent.metadata));
        Ok(tenancy)
    }

    fn objects(&self) -> &dyn Objects {
        self.objects.as_ref()
    }

    async fn database(&self) -> Result<Database, EffectError> {
        self.may_act()?;
        self.claim.database().await
    }

    fn kafka(&self) -> Result<Option<KafkaEffect>, EffectError> {
        let effect = self.config.kafka.as_ref().map(KafkaAccess::effect).transpose()?;
        Ok(effect.map(|effect| effect.fenced(Arc::clone(&self.fence), KAFKA_SPARE).sharing(Arc::clone(&self.kafka))))
    }

    fn may_act(&self) -> Result<(), EffectError> {
        if self.closing.is_cancelled() {
            return Err(EffectError::unavailable("the operator", "it is ending: another replica goes on"));
        }
        self.fence.check(Duration::ZERO)
    }

    async fn hold(&self, object: &ObjectRef, uid: &str) -> Result<(), EffectError> {
        self.may_act()?;
        // A Quota has nothing that would have to be taken down.
        if object.kind == Kind::Quota {
            return Ok(());
        }
        self.objects.set_finalizer(&key(object), uid, FINALIZER, true).await
    }

    async fn let_go(&self, object: &ObjectRef, uid: &str, ending: &Ending) -> Result<(), EffectError> {
        self.may_act()?;
        let known = self.cache.get(&key(object)).filter(|_| object.kind == Kind::Tenant);
        self.objects.set_finalizer(&key(object), uid, FINALIZER, false).await?;
        if let Some(tenant) = known.and_then(|known| serde_json::from_value(Value::clone(&known)).ok()) {
            self.objects.forget_secrets(&tenant);
        }
        if matches!(ending, Ending::LeftBehind(_)) {
            self.left_behind.notify_one();
        }
        Ok(())
    }

    async fn set_status(&self, object: &ObjectRef, uid: &str, status: Value) -> Result<(), EffectError> {
        // What a process that no longer leads failed to do is not the resource's affair.
        self.may_act()?;
        self.objects.set_status(&key(object), uid, status).await
    }

    async fn tell(&self, object: &ObjectRef, news: News) {
        let event = Event {
            type_: if news.warning { EventType::Warning } else { EventType::Normal },
            reason: news.reason,
            note: Some(news.note),
            action: news.action.to_owned(),
            secondary: None,
        };
        self.events.put(event, self.reference(object));
    }

    /// The API server has checked every document.
    fn is_refused(&self, _: &ObjectRef) -> bool {
        false
    }

    fn hub(&self, tenant: &ValidatedTenant) -> ObservedHub {
        hub::observed(self.hub_object(&tenant.name, "apps/v1", "Deployment").as_deref())
    }

    fn endpoints(&self, tenant: &ValidatedTenant) -> Vec<Endpoint> {
        let service = self.hub_object(&tenant.name, "v1", "Service");
        hub::endpoints(service.as_deref(), &tenant.hub, &self.platform().extra_tls_names)
    }

    fn conflicts(&self, tenant: &ValidatedTenant) -> Vec<String> {
        self.objects.conflicts(&[&tenant.namespace, &tenant.name.hub_namespace()])
    }

    fn isolation(&self, uid: &str) -> Option<IsolationStatus> {
        self.isolation.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    fn wake(&self, namespaces: BTreeSet<String>) {
        self.woken.add(namespaces);
    }

    fn deletion_bound(&self) -> Option<Duration> {
        Some(DELETION_BOUND)
    }
}
