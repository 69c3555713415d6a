//! One tenancy at a time: a namespace, the Tenant that it belongs to, its Quotas and its Agents go through the pipeline together, so
//! that the world is read once and an agent never comes before its tenant. One that fails holds up none of the others.

use std::{collections::BTreeMap, sync::Arc};

use acb_crds::{
    Agent, Quota, Tenant,
    names::TenantName,
    schema::{Kind, ObjectRef, Violation},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::{
    deployments::Running,
    kafka::KafkaAccess,
    objects::ObjectStore,
    resources::{self, Resources},
    schedule::Outcome as Turn,
    state::StateError,
};
use crate::{
    agent,
    condition::{Outcome, Problem, Reason},
    effect::{EffectError, kubernetes, postgres::PostgresEffect},
    plan::{KafkaStep, Plan, Step},
    platform::Platform,
    quota,
    tenancy::{self, Tenancy},
    tenant::{self, fetch::PostgresReader},
};

/// What reconciling takes.
pub(crate) struct Tenancies {
    pub(crate) store: Arc<ObjectStore>,
    pub(crate) resources: Arc<Resources>,
    pub(crate) reader: PostgresReader,
    pub(crate) postgres: PostgresEffect,
    /// Where the log is on Kafka.
    pub(crate) kafka: Option<KafkaAccess>,
    pub(crate) platform: Platform,
    pub(crate) running: watch::Receiver<Running>,
    /// Documents that were refused; kept up to date by the loop.
    pub(crate) refused: watch::Receiver<Arc<BTreeMap<ObjectRef, Vec<Violation>>>>,
}

/// Every resource, typed; what was never good is not among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Everything {
    tenants: Vec<Tenant>,
    agents: Vec<Agent>,
    quotas: Vec<Quota>,
}

fn typed<T: DeserializeOwned>(store: &ObjectStore, kind: Kind) -> Result<Vec<T>, StateError> {
    let objects = store.of_kind(kind.as_str())?;
    // Whatever has a spec was checked before it was written.
    Ok(objects.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect())
}

impl Everything {
    pub(crate) fn read(store: &ObjectStore) -> Result<Self, StateError> {
        Ok(Self { tenants: typed(store, Kind::Tenant)?, agents: typed(store, Kind::Agent)?, quotas: typed(store, Kind::Quota)? })
    }

    /// The namespaces that there is something to do for.
    pub(crate) fn namespaces(&self) -> std::collections::BTreeSet<String> {
        let of_tenants = self.tenants.iter().filter_map(tenancy::namespace);
        let of_agents = self.agents.iter().filter_map(|agent| agent.metadata.namespace.clone());
        let of_quotas = self.quotas.iter().filter_map(|quota| quota.metadata.namespace.clone());
        of_tenants.chain(of_agents).chain(of_quotas).collect()
    }

    /// The namespace of the tenant whose hub is in `hub_namespace`.
    pub(crate) fn namespace_of_hub(&self, hub_namespace: &str) -> Option<String> {
        let name = |tenant: &Tenant| TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).ok();
        let owner = self.tenants.iter().find(|tenant| name(tenant).is_some_and(|name| name.hub_namespace() == hub_namespace));
        owner.and_then(tenancy::namespace)
    }

    fn quotas_of(&self, namespace: &str) -> impl Iterator<Item = &Quota> {
        self.quotas.iter().filter(move |quota| quota.metadata.namespace.as_deref() == Some(namespace))
    }

    fn tenancy(&self, namespace: &str) -> Tenancy {
        let here = |found: &Option<String>| found.as_deref() == Some(namespace);
        Tenancy {
            tenants: self.tenants.clone(),
            agents: self.agents.iter().filter(|agent| here(&agent.metadata.namespace)).cloned().collect(),
            quotas: self.quotas_of(namespace).filter(|quota| quota.metadata.deletion_timestamp.is_none()).cloned().collect(),
        }
    }
}

fn reference(kind: Kind, metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ObjectRef {
    let namespace = metadata.namespace.clone().filter(|_| kind != Kind::Tenant).unwrap_or_default();
    ObjectRef { kind, namespace, name: metadata.name.clone().unwrap_or_default() }
}

impl Tenancies {
    /// Brings one namespace's tenancy to where it should be, as far as it goes now.
    pub(crate) async fn reconcile(&self, namespace: &str) -> Turn {
        match self.try_reconcile(namespace).await {
            Ok(turn) => turn,
            Err(error) => {
                warn!(namespace, %error, "not reconciled");
                Turn::Failed
            }
        }
    }

    async fn try_reconcile(&self, namespace: &str) -> Result<Turn, StateError> {
        let everything = Everything::read(&self.store)?;
        let tenancy = everything.tenancy(namespace);
        let mut turns = Vec::new();
        // On the way out agents go first, while their tenant is still known.
        let (leaving, staying): (Vec<_>, Vec<_>) =
            tenancy.agents.iter().partition(|agent| agent.metadata.deletion_timestamp.is_some());
        turns.extend(self.agents(namespace, &leaving, &tenancy).await?);
        for tenant in everything.tenants.iter().filter(|tenant| tenancy::namespace(tenant).as_deref() == Some(namespace)) {
            turns.push(self.tenant(tenant, &tenancy).await?);
        }
        for quota in everything.quotas_of(namespace) {
            turns.push(self.quota(quota, &tenancy)?);
        }
        turns.extend(self.agents(namespace, &staying, &tenancy).await?);
        let worst = [Turn::Failed, Turn::Waiting].into_iter().find(|turn| turns.contains(turn));
        Ok(worst.unwrap_or(Turn::Settled))
    }

    /// What became of a refused document is said at its object, whether it was ever good or not.
    pub(crate) fn report_refused(&self) -> Result<(), StateError> {
        let refused = Arc::clone(&self.refused.borrow());
        for (object, violations) in refused.iter() {
            let problems: Vec<Problem> = violations
                .iter()
                .map(|violation| Problem::new(Reason::InvalidSpec, violation.path.clone(), violation.message.clone()))
                .collect();
            self.write_status(object, &Outcome::Stalled(problems))?;
        }
        Ok(())
    }

    /// A status with conditions alone beside what was there.
    fn write_status(&self, object: &ObjectRef, outcome: &Outcome) -> Result<(), StateError> {
        let Some(stored) = self.store.read_object(&resources::key(object))? else { return Ok(()) };
        let mut status = stored.get("status").cloned().unwrap_or_else(|| serde_json::json!({}));
        let generation = stored.pointer("/metadata/generation").and_then(Value::as_i64);
        let previous = status.get("conditions").cloned().and_then(|found| serde_json::from_value(found).ok()).unwrap_or_default();
        let previous: Vec<acb_crds::Condition> = previous;
        let wanted = crate::condition::conditions(outcome, false, &[]);
        status["conditions"] = serde_json::json!(crate::condition::merge(&previous, wanted, generation, &resources::now()));
        status["observedGeneration"] = serde_json::json!(generation);
        self.resources.set_status(object, status)
    }

    fn is_refused(&self, object: &ObjectRef) -> bool {
        self.refused.borrow().contains_key(object)
    }

    async fn tenant(&self, tenant: &Tenant, tenancy: &Tenancy) -> Result<Turn, StateError> {
        let object = reference(Kind::Tenant, &tenant.metadata);
        if self.is_refused(&object) {
            return Ok(Turn::Settled);
        }
        let deleting = tenant.metadata.deletion_timestamp.is_some();
        let fetched = self.fetch(tenant, tenancy).await;
        let (validated, outcome) = match fetched {
            Err(error) => (None, failure(&error)),
            Ok(world) => match tenant::validate::validate(tenant, &world, &self.platform) {
                Err(problems) => (None, Outcome::Stalled(problems)),
                Ok(validated) => {
                    let plan = tenant::plan::plan(&validated, &world, &self.platform);
                    let outcome = match self.apply(&object, &plan).await {
                        Err(error) => failure(&error),
                        Ok(()) if deleting => Outcome::Deleting("taken down".to_owned()),
                        Ok(()) => self.hub(&validated),
                    };
                    (Some(validated), outcome)
                }
            },
        };
        if let (true, Outcome::Deleting(_), Some(validated)) = (deleting, &outcome, &validated) {
            let all = validated.deletion_policy == acb_crds::tenant::DeletionPolicy::Delete;
            info!(tenant = %validated.name, kept_data = !all, "removed");
            self.resources.finish_deletion(&object, all)?;
            return Ok(Turn::Settled);
        }
        let endpoints = match &validated {
            Some(validated) => self.endpoints(&validated.name),
            None => {
                tenant.status.as_ref().and_then(|status| status.endpoints.clone()).map(|known| known.grpc).unwrap_or_default()
            }
        };
        let seen = tenant::status::Seen { endpoints, agents: i64::try_from(tenancy.agents.len()).unwrap_or(i64::MAX) };
        let status = tenant::status::status(tenant, validated.as_ref(), &outcome, &seen, &self.platform, &resources::now());
        self.save_status(&object, &status)?;
        Ok(turn(&outcome))
    }

    async fn fetch(&self, tenant: &Tenant, tenancy: &Tenancy) -> Result<tenant::World, EffectError> {
        let kafka = self.kafka.as_ref().map(KafkaAccess::effect).transpose()?;
        tenant::fetch::fetch(tenant, tenancy.clone(), self.store.as_ref(), &self.reader, kafka.as_ref(), &self.platform).await
    }

    fn quota(&self, quota: &Quota, tenancy: &Tenancy) -> Result<Turn, StateError> {
        let object = reference(Kind::Quota, &quota.metadata);
        if quota.metadata.deletion_timestamp.is_some() {
            self.resources.finish_deletion(&object, true)?;
        } else if !self.is_refused(&object) {
            let validated = quota::validate::validate(quota, tenancy, &self.platform);
            self.save_status(&object, &quota::status::status(quota, &validated, &resources::now()))?;
        }
        Ok(Turn::Settled)
    }

    async fn agents(&self, namespace: &str, agents: &[&Agent], tenancy: &Tenancy) -> Result<Vec<Turn>, StateError> {
        if agents.is_empty() {
            return Ok(Vec::new());
        }
        let shared = agent::fetch::fetch_shared(namespace, tenancy.clone(), self.store.as_ref(), &self.reader.pool).await;
        let mut turns = Vec::new();
        for agent in agents {
            let object = reference(Kind::Agent, &agent.metadata);
            if !self.is_refused(&object) {
                turns.push(self.agent(agent, &object, shared.as_ref()).await?);
            }
        }
        Ok(turns)
    }

    async fn agent(
        &self,
        agent: &Agent,
        object: &ObjectRef,
        shared: Result<&agent::fetch::Shared, &EffectError>,
    ) -> Result<Turn, StateError> {
        let deleting = agent.metadata.deletion_timestamp.is_some();
        let fetched = match shared {
            Ok(shared) => agent::fetch::fetch(agent, shared, self.store.as_ref()).await.map(|world| (world, shared.tenant_id())),
            Err(error) => {
                let outcome = failure(error);
                self.write_status(object, &outcome)?;
                return Ok(turn(&outcome));
            }
        };
        let (world, tenant_id) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                let outcome = failure(&error);
                self.write_status(object, &outcome)?;
                return Ok(turn(&outcome));
            }
        };
        let (validated, outcome) = match agent::validate::validate(agent, &world, &self.platform) {
            Err(problems) => {
                // What was let in before, and may no longer be, is shut out.
                let plan = tenant_id.map(|id| agent::plan::suspension(&id.hex(), &world)).unwrap_or_default();
                let outcome =
                    self.apply(object, &plan).await.map_or_else(|error| failure(&error), |()| Outcome::Stalled(problems));
                (None, outcome)
            }
            Ok(validated) => {
                let outcome = match agent::plan::waits_for(&validated, &world).filter(|_| !deleting) {
                    Some(what) => Outcome::Waiting(what),
                    None => match self.apply(object, &agent::plan::plan(&validated, &world)).await {
                        Err(error) => failure(&error),
                        Ok(()) => Outcome::Ready,
                    },
                };
                (Some(validated), outcome)
            }
        };
        if deleting && matches!(outcome, Outcome::Ready | Outcome::Stalled(_)) {
            self.resources.finish_deletion(object, true)?;
            return Ok(Turn::Settled);
        }
        let status = agent::status::status(agent, validated.as_ref(), &world, &outcome, &resources::now());
        self.save_status(object, &status)?;
        Ok(turn(&outcome))
    }

    /// Whether what the plan runs is ready.
    fn hub(&self, tenant: &tenant::validate::ValidatedTenant) -> Outcome {
        let running = self.running.borrow();
        let key = format!("{}/{}", tenant.name.hub_namespace(), acb_crds::names::objects::HUB);
        let Some(hub) = running.deployments.get(&key) else { return Outcome::Waiting("the hub is about to start".to_owned()) };
        if !hub.error.is_empty() {
            return Outcome::Refused(hub.error.clone());
        }
        if hub.ready >= tenant.replicas && hub.outdated == 0 {
            return Outcome::Ready;
        }
        let why = hub.pods.iter().find(|(_, pod)| !pod.ready && !pod.message.is_empty());
        let why = why.map(|(name, pod)| format!("; {name}: {}", pod.message)).unwrap_or_default();
        Outcome::Waiting(format!("the hub has {} of {} replicas ready{why}", hub.ready.min(tenant.replicas), tenant.replicas))
    }

    fn endpoints(&self, tenant: &TenantName) -> Vec<String> {
        let running = self.running.borrow();
        running.endpoints.of(&tenant.hub_namespace(), acb_crds::names::objects::HUB, "grpc").to_vec()
    }

    /// Applies a plan in its order, and stops at the first step that fails.
    async fn apply(&self, object: &ObjectRef, plan: &Plan) -> Result<(), EffectError> {
        // Kafka takes what follows one another in one session.
        for steps in plan.steps.chunk_by(|left, right| matches!((left, right), (Step::Kafka(_), Step::Kafka(_)))) {
            debug!(%object, ?steps, "applying");
            match &steps[0] {
                Step::Kubernetes(step) => kubernetes::apply(self.store.as_ref(), step).await?,
                Step::Postgres(step) => self.postgres.apply(step).await?,
                Step::Kafka(_) => {
                    let kafka = self.kafka.as_ref().ok_or_else(|| {
                        EffectError::refused("the standalone runtime", "the plan has a step for Kafka, and none is configured")
                    })?;
                    let steps: Vec<KafkaStep> = steps.iter().filter_map(Step::kafka).cloned().collect();
                    kafka.effect()?.apply(&steps, self.store.as_ref()).await?;
                }
            }
        }
        if !plan.steps.is_empty() {
            info!(%object, steps = plan.steps.len(), "applied");
        }
        Ok(())
    }

    fn save_status(&self, object: &ObjectRef, status: &impl serde::Serialize) -> Result<(), StateError> {
        let damaged =
            |error: serde_json::Error| StateError::Damaged { path: object.to_string().into(), detail: error.to_string() };
        self.resources.set_status(object, serde_json::to_value(status).map_err(damaged)?)
    }
}

fn failure(error: &EffectError) -> Outcome {
    if error.is_transient() { Outcome::Retrying(error.to_string()) } else { Outcome::Refused(error.to_string()) }
}

fn turn(outcome: &Outcome) -> Turn {
    match outcome {
        Outcome::Ready | Outcome::Stalled(_) => Turn::Settled,
        Outcome::Waiting(_) | Outcome::Deleting(_) => Turn::Waiting,
        // A refusal may rest on something that someone mends elsewhere.
        Outcome::Retrying(_) | Outcome::Refused(_) => Turn::Failed,
    }
}
