//! One tenancy at a time: a namespace, the Tenant that it belongs to, its Quotas and its Agents go through the pipeline together, so
//! that the world is read once and an agent never comes before its tenant. One that fails holds up none of the others.

use std::sync::Arc;

use acb_crds::{
    Agent, Condition, Quota, Tenant,
    names::TenantName,
    schema::{Kind, ObjectRef},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::task::yield_now;
use tracing::{debug, info, warn};

use super::{
    deletion::{self, Ending},
    news,
    runtime::{Database, Runtime},
    schedule::Turn,
};
use crate::{
    agent, condition,
    condition::Outcome,
    effect::{EffectError, kubernetes},
    plan::{KafkaStep, Plan, Step},
    quota,
    tenancy::{self, Census, Tenancy},
    tenant,
};

/// Reconciles, with what a runtime gives.
pub(crate) struct Tenancies {
    pub(crate) runtime: Arc<dyn Runtime>,
}

/// PostgreSQL, or why it can't be used now.
type Reached<'a> = Result<&'a Database, &'a EffectError>;

/// Which object a resource is.
pub(crate) fn reference(kind: Kind, metadata: &ObjectMeta) -> ObjectRef {
    let namespace = metadata.namespace.clone().filter(|_| kind != Kind::Tenant).unwrap_or_default();
    ObjectRef { kind, namespace, name: metadata.name.clone().unwrap_or_default() }
}

/// A status with other conditions alone: what was found before stays said.
pub(crate) fn with_conditions(mut status: Value, generation: Option<i64>, outcome: &Outcome) -> Value {
    let previous: Vec<Condition> = conditions(&status);
    let wanted = condition::conditions(outcome, false, &[]);
    status["conditions"] = json!(condition::merge(&previous, wanted, generation, &super::now()));
    status["observedGeneration"] = json!(generation);
    status
}

fn conditions(status: &Value) -> Vec<Condition> {
    status.get("conditions").cloned().and_then(|found| serde_json::from_value(found).ok()).unwrap_or_default()
}

fn is_leaving(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

impl Tenancies {
    /// Brings one namespace's tenancy to where it should be, as far as it goes now.
    pub(crate) async fn reconcile(&self, namespace: &str) -> Turn {
        let everything = match self.runtime.tenancy(namespace) {
            Ok(everything) => everything,
            Err(error) => {
                warn!(namespace, %error, "not reconciled");
                return Turn::Failed;
            }
        };
        self.pass(namespace, &everything).await
    }

    /// What could not even be said at its resource.
    fn fell_through(&self, object: &ObjectRef, result: Result<Turn, EffectError>) -> Turn {
        result.unwrap_or_else(|error| {
            // A process that is ending, or no longer leads, has said so once.
            if self.runtime.may_act().is_ok() {
                warn!(%object, %error, "not reconciled");
            }
            Turn::Failed
        })
    }

    async fn pass(&self, namespace: &str, everything: &Tenancy) -> Turn {
        let database = self.runtime.database().await;
        let database = database.as_ref();
        let mut tenancy = everything.clone();
        tenancy.quotas.retain(|quota| !is_leaving(&quota.metadata));
        let mut turns = Vec::new();
        let census = Arc::new(Census::of(namespace, tenancy, self.runtime.platform()));
        let tenancy = census.tenancy();
        // On the way out agents go first, while their tenant is still known.
        let (leaving, staying): (Vec<_>, Vec<_>) = tenancy.agents.iter().partition(|agent| is_leaving(&agent.metadata));
        turns.extend(self.agents(namespace, &leaving, &census, database).await);
        for tenant in everything.tenants.iter().filter(|tenant| tenancy::namespace(tenant).as_deref() == Some(namespace)) {
            let result = self.tenant(tenant, tenancy, database).await;
            turns.push(self.fell_through(&reference(Kind::Tenant, &tenant.metadata), result));
        }
        for quota in &everything.quotas {
            let result = self.quota(quota, &census).await;
            yield_now().await;
            turns.push(self.fell_through(&reference(Kind::Quota, &quota.metadata), result));
        }
        turns.extend(self.agents(namespace, &staying, &census, database).await);
        let worst = [Turn::Failed, Turn::Waiting].into_iter().find(|turn| turns.contains(turn));
        worst.unwrap_or(Turn::Settled)
    }

    async fn tenant(&self, tenant: &Tenant, tenancy: &Tenancy, database: Reached<'_>) -> Result<Turn, EffectError> {
        let object = reference(Kind::Tenant, &tenant.metadata);
        if self.runtime.is_refused(&object) {
            return Ok(Turn::Settled);
        }
        let deleting = is_leaving(&tenant.metadata);
        if !deleting {
            self.runtime.hold(&object).await?;
        }
        let platform = self.runtime.platform();
        let said = tenant.status.as_ref().map(|status| status.credentials.as_slice()).unwrap_or_default();
        let (mut credentials, mut risks) = (Vec::new(), None);
        let (validated, outcome) = match self.fetch(tenant, tenancy, database).await {
            Err(error) => (None, failure(&error)),
            Ok((world, database)) => match tenant::validate::validate(tenant, &world, platform) {
                Err(problems) => (None, Outcome::Stalled(problems)),
                Ok(validated) => {
                    risks = Some(world.kafka.as_ref().map(|kafka| kafka.risks.clone()).unwrap_or_default());
                    let opening = tenant::opening::opening(&validated, &world, platform);
                    let opens = opening.is_some();
                    let secrets = tenant::hub::secrets(&validated, &world, platform);
                    let plan = opening.unwrap_or_else(|| tenant::plan::plan(&validated, &world, platform));
                    let outcome = match self.apply(&object, &plan, database).await {
                        Err(error) => failure(&error),
                        Ok(()) if opens => Outcome::Waiting("the operator's right to its namespaces".to_owned()),
                        Ok(()) if deleting => Outcome::Deleting("taken down".to_owned()),
                        Ok(()) => {
                            credentials = tenant::rotation::credentials(&secrets, &world, said, &super::now());
                            self.runtime.hub(&validated)
                        }
                    };
                    (Some(validated), outcome)
                }
            },
        };
        if deleting {
            let keeps =
                validated.as_ref().is_none_or(|validated| validated.deletion_policy == acb_crds::tenant::DeletionPolicy::Retain);
            let removed = if keeps { Ending::Retained } else { Ending::Removed };
            if self.is_let_go(&object, &tenant.metadata, &outcome, removed).await? {
                return Ok(Turn::Settled);
            }
        }
        let endpoints = match &validated {
            Some(validated) => self.runtime.endpoints(&validated.name),
            None => {
                tenant.status.as_ref().and_then(|status| status.endpoints.clone()).map(|known| known.grpc).unwrap_or_default()
            }
        };
        let agents = i64::try_from(tenancy.agents.len()).unwrap_or(i64::MAX);
        let conflicts = validated.as_ref().map(|validated| self.runtime.conflicts(validated)).unwrap_or_default();
        let seen = tenant::status::Seen { endpoints, agents, credentials, risks, conflicts };
        let status = tenant::status::status(tenant, validated.as_ref(), &outcome, &seen, platform, &super::now());
        let before = tenant.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        self.save_status(&object, before, &status.conditions, &status).await?;
        Ok(turn(&outcome))
    }

    async fn fetch<'a>(
        &self,
        tenant: &Tenant,
        tenancy: &Tenancy,
        database: Reached<'a>,
    ) -> Result<(tenant::World, &'a Database), EffectError> {
        let database = database.map_err(Clone::clone)?;
        let kafka = self.runtime.kafka()?;
        let (objects, platform) = (self.runtime.objects(), self.runtime.platform());
        let mut world =
            tenant::fetch::fetch(tenant, tenancy.clone(), objects, &database.reader, kafka.as_ref(), platform).await?;
        let name = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default());
        world.rolled_out = name.is_ok_and(|name| self.runtime.is_rolled_out(&name));
        Ok((world, database))
    }

    async fn quota(&self, quota: &Quota, census: &Census) -> Result<Turn, EffectError> {
        let object = reference(Kind::Quota, &quota.metadata);
        if is_leaving(&quota.metadata) {
            // It has nothing of its own that could be left behind.
            self.runtime.let_go(&object, &Ending::Removed).await?;
        } else if !self.runtime.is_refused(&object) {
            let validated = quota::validate::validate(quota, census);
            let status = quota::status::status(quota, &validated, &super::now());
            let before = quota.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            self.save_status(&object, before, &status.conditions, &status).await?;
        }
        Ok(Turn::Settled)
    }

    async fn agents(&self, namespace: &str, agents: &[&Agent], census: &Arc<Census>, database: Reached<'_>) -> Vec<Turn> {
        if agents.is_empty() {
            return Vec::new();
        }
        let shared = match database {
            Ok(database) => {
                agent::fetch::fetch_shared(namespace, Arc::clone(census), self.runtime.objects(), &database.reader.pool).await
            }
            Err(error) => Err(error.clone()),
        };
        let shared = shared.as_ref().and_then(|shared| Ok((shared, database?)));
        let mut turns = Vec::new();
        for agent in agents {
            // There may be thousands, and where nothing is to be waited for nobody else had a turn: not the probes, and not the lease.
            yield_now().await;
            let object = reference(Kind::Agent, &agent.metadata);
            if !self.runtime.is_refused(&object) {
                turns.push(self.fell_through(&object, self.agent(agent, &object, shared).await));
            }
        }
        turns
    }

    async fn agent(
        &self,
        agent: &Agent,
        object: &ObjectRef,
        shared: Result<(&agent::fetch::Shared, &Database), &EffectError>,
    ) -> Result<Turn, EffectError> {
        let deleting = is_leaving(&agent.metadata);
        if !deleting {
            self.runtime.hold(object).await?;
        }
        let fetched = match shared {
            Ok((shared, database)) => agent::fetch::fetch(agent, shared, self.runtime.objects())
                .await
                .map(|world| (world, shared.tenant_id(), database)),
            Err(error) => Err(error.clone()),
        };
        let before = agent.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let (world, tenant_id, database) = match fetched {
            Ok(fetched) => fetched,
            Err(error) => {
                let outcome = failure(&error);
                if deleting && self.is_let_go(object, &agent.metadata, &outcome, Ending::Removed).await? {
                    return Ok(Turn::Settled);
                }
                let status = serde_json::to_value(&agent.status).ok().filter(Value::is_object).unwrap_or_else(|| json!({}));
                let status = with_conditions(status, agent.metadata.generation, &outcome);
                self.save_status(object, before, &conditions(&status), &status).await?;
                return Ok(turn(&outcome));
            }
        };
        let (validated, outcome) = match agent::validate::validate(agent, &world) {
            Err(problems) => {
                // What was let in before, and may no longer be, is shut out.
                let plan = tenant_id.map(|id| agent::plan::suspension(&id.hex(), &world)).unwrap_or_default();
                let applied = self.apply(object, &plan, database).await;
                (None, applied.map_or_else(|error| failure(&error), |()| Outcome::Stalled(problems)))
            }
            Ok(validated) => {
                let outcome = match agent::plan::waits_for(&validated, &world).filter(|_| !deleting) {
                    Some(what) => Outcome::Waiting(what),
                    None => match self.apply(object, &agent::plan::plan(&validated, &world), database).await {
                        Err(error) => failure(&error),
                        Ok(()) => Outcome::Ready,
                    },
                };
                (Some(validated), outcome)
            }
        };
        if deleting && self.is_let_go(object, &agent.metadata, &outcome, Ending::Removed).await? {
            return Ok(Turn::Settled);
        }
        let status = agent::status::status(agent, validated.as_ref(), &world, &outcome, &super::now());
        self.save_status(object, before, &status.conditions, &status).await?;
        Ok(turn(&outcome))
    }

    /// Lets go of what is on its way out, where its deletion ends now.
    async fn is_let_go(
        &self,
        object: &ObjectRef,
        metadata: &ObjectMeta,
        outcome: &Outcome,
        removed: Ending,
    ) -> Result<bool, EffectError> {
        let deleted_at = metadata.deletion_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        let bound = self.runtime.deletion_bound();
        let Some(ending) = deletion::ending(outcome, removed, &deleted_at, OffsetDateTime::now_utc(), bound) else {
            return Ok(false);
        };
        match &ending {
            Ending::LeftBehind(why) => warn!(%object, why, "let go, with something left behind"),
            ending => info!(%object, ?ending, "removed"),
        }
        self.runtime.tell(object, news::of_ending(&ending)).await;
        self.runtime.let_go(object, &ending).await?;
        Ok(true)
    }

    /// Applies a plan in its order, and stops at the first step that fails.
    async fn apply(&self, object: &ObjectRef, plan: &Plan, database: &Database) -> Result<(), EffectError> {
        // Kafka takes what follows one another in one session.
        for steps in plan.steps.chunk_by(|left, right| matches!((left, right), (Step::Kafka(_), Step::Kafka(_)))) {
            debug!(%object, ?steps, "applying");
            self.runtime.may_act()?;
            match &steps[0] {
                Step::Kubernetes(step) => kubernetes::apply(self.runtime.objects(), step).await?,
                Step::Postgres(step) => database.effect.apply(step).await?,
                Step::Kafka(_) => {
                    let kafka = self.runtime.kafka()?.ok_or_else(|| {
                        EffectError::refused("the operator", "the plan has a step for Kafka, and none is configured")
                    })?;
                    let steps: Vec<KafkaStep> = steps.iter().filter_map(Step::kafka).cloned().collect();
                    kafka.apply(&steps, self.runtime.objects()).await?;
                }
            }
        }
        if let Some(news) = news::of_plan(plan) {
            info!(%object, steps = plan.steps.len(), "applied");
            self.runtime.tell(object, news).await;
        }
        if let Some(news) = news::of_rotation(plan) {
            self.runtime.tell(object, news).await;
        }
        Ok(())
    }

    async fn save_status(
        &self,
        object: &ObjectRef,
        before: &[Condition],
        now: &[Condition],
        status: &(impl serde::Serialize + Sync),
    ) -> Result<(), EffectError> {
        let status = serde_json::to_value(status)
            .map_err(|error| EffectError::refused("the operator", format!("the status of {object} is no JSON: {error}")))?;
        self.runtime.set_status(object, status).await?;
        for news in
            [news::of_conditions(before, now), news::of_risk(before, now), news::of_conflict(before, now)].into_iter().flatten()
        {
            self.runtime.tell(object, news).await;
        }
        Ok(())
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
