//! What reconciling takes on one machine: resources from the folder, objects in the state folder, hubs as processes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use acb_crds::{
    names::{TenantName, objects::HUB},
    schema::{ObjectRef, Violation},
    tenant::{Endpoint, EndpointType},
};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    deployments::Running,
    everything::Everything,
    objects::ObjectStore,
    pod::Workload,
    resources::{self, Resources},
    state::StateError,
};
use crate::{
    condition::{Outcome, Problem, Reason},
    effect::{
        EffectError,
        kafka::KafkaEffect,
        kafka_access::KafkaAccess,
        kubernetes::{ObjectKey, Objects},
        postgres::PostgresEffect,
    },
    observed::ObservedHub,
    platform::Platform,
    reconcile::{
        deletion::Ending,
        news::News,
        runtime::{Database, Runtime},
        tenancies::with_conditions,
    },
    tenancy::Tenancy,
    tenant::{
        fetch::{Hubs, PostgresReader},
        validate::ValidatedTenant,
    },
};

/// One machine.
pub(super) struct Machine {
    pub(super) store: Arc<ObjectStore>,
    pub(super) resources: Resources,
    pub(super) reader: PostgresReader,
    pub(super) postgres: PostgresEffect,
    /// Where the log is on Kafka.
    pub(super) kafka: Option<KafkaAccess>,
    pub(super) platform: Platform,
    pub(super) running: watch::Receiver<Running>,
    /// Documents that were refused; kept up to date by the loop.
    pub(super) refused: watch::Receiver<Arc<BTreeMap<ObjectRef, Vec<Violation>>>>,
}

impl Machine {
    /// What became of a refused document is said at its object, whether it was ever good or not.
    pub(super) fn report_refused(&self) -> Result<(), StateError> {
        let refused = Arc::clone(&self.refused.borrow());
        for (object, violations) in refused.iter() {
            let problems = violations
                .iter()
                .map(|violation| Problem::new(Reason::InvalidSpec, violation.path.clone(), violation.message.clone()));
            let outcome = Outcome::Stalled(problems.collect());
            let Some(stored) = self.store.read_object(&resources::key(object))? else { continue };
            let status = stored.get("status").cloned().unwrap_or_else(|| json!({}));
            let generation = stored.pointer("/metadata/generation").and_then(Value::as_i64);
            let uid = stored.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
            self.resources.set_status(object, uid, with_conditions(status, generation, &outcome))?;
        }
        Ok(())
    }
}

impl Hubs for Machine {
    fn is_rolled_out(&self, tenant: &TenantName) -> bool {
        is_rolled_out(&self.store, &self.running.borrow(), tenant)
    }
}

/// Whether every replica of a hub runs as its Deployment says now, by what is written down of both.
pub(super) fn is_rolled_out(store: &ObjectStore, running: &Running, tenant: &TenantName) -> bool {
    let space = tenant.hub_namespace();
    let found = store.read_object(&ObjectKey::new("apps/v1", "Deployment", &space, HUB)).ok().flatten();
    let Some(planned) = found.and_then(|found| Workload::from_deployment(&found).ok()) else { return false };
    // What runs is written down a moment after what was planned.
    let hub = running.deployments.get(&format!("{space}/{HUB}")).filter(|hub| hub.revision == planned.revision);
    hub.is_some_and(|hub| hub.is_ready() && hub.outdated == 0)
}

#[async_trait]
impl Runtime for Machine {
    fn platform(&self) -> &Platform {
        &self.platform
    }

    fn tenancy(&self, namespace: &str) -> Result<Tenancy, EffectError> {
        Ok(Everything::read(&self.store)?.tenancy(namespace))
    }

    fn objects(&self) -> &dyn Objects {
        self.store.as_ref()
    }

    async fn database(&self) -> Result<Database, EffectError> {
        Ok(Database { reader: self.reader.clone(), effect: self.postgres.clone() })
    }

    fn kafka(&self) -> Result<Option<KafkaEffect>, EffectError> {
        Ok(self.kafka.as_ref().map(KafkaAccess::effect).transpose()?)
    }

    /// The state folder's lock is held as long as this lives.
    fn may_act(&self) -> Result<(), EffectError> {
        Ok(())
    }

    /// The folder takes nothing away by itself.
    async fn hold(&self, _: &ObjectRef, _: &str) -> Result<(), EffectError> {
        Ok(())
    }

    async fn let_go(&self, object: &ObjectRef, _: &str, ending: &Ending) -> Result<(), EffectError> {
        Ok(self.resources.finish_deletion(object, *ending != Ending::Retained)?)
    }

    async fn set_status(&self, object: &ObjectRef, uid: &str, status: Value) -> Result<(), EffectError> {
        Ok(self.resources.set_status(object, uid, status)?)
    }

    /// `acb dev` prints each status.
    async fn tell(&self, _: &ObjectRef, _: News) {}

    fn is_refused(&self, object: &ObjectRef) -> bool {
        self.refused.borrow().contains_key(object)
    }

    fn hub(&self, tenant: &ValidatedTenant) -> ObservedHub {
        let running = self.running.borrow();
        let key = format!("{}/{HUB}", tenant.name.hub_namespace());
        let Some(hub) = running.deployments.get(&key) else {
            let lacks = "the hub is about to start".to_owned();
            return ObservedHub { replicas: tenant.replicas, rolling: true, lacks, ..ObservedHub::default() };
        };
        let rolled_out = hub.error.is_empty() && hub.ready >= tenant.replicas && hub.outdated == 0;
        let why = hub.pods.iter().find(|(_, pod)| !pod.ready && !pod.message.is_empty());
        let why = why.map(|(name, pod)| format!("; {name}: {}", pod.message)).unwrap_or_default();
        let lacks = format!("the hub has {} of {} replicas ready{why}", hub.ready.min(tenant.replicas), tenant.replicas);
        let ready = hub.pods.values().filter(|pod| pod.ready).count();
        ObservedHub {
            replicas: tenant.replicas,
            ready: u32::try_from(ready).unwrap_or(u32::MAX),
            rolled_out,
            rolling: !rolled_out && hub.error.is_empty(),
            image: tenant.hub.image.as_ref().unwrap_or(&self.platform.hub_image).clone(),
            lacks: if rolled_out { String::new() } else { lacks },
            fault: Some(hub.error.clone()).filter(|fault| !fault.is_empty()),
        }
    }

    fn endpoints(&self, tenant: &ValidatedTenant) -> Vec<Endpoint> {
        let running = self.running.borrow();
        let addresses = running.endpoints.of(&tenant.name.hub_namespace(), HUB, "grpc").iter();
        addresses.map(|address| Endpoint { r#type: EndpointType::Local, address: address.clone() }).collect()
    }

    fn deletion_bound(&self) -> Option<Duration> {
        None
    }
}
