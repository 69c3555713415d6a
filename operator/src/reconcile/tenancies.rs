//! One tenancy at a time: a namespace, the Tenant that it belongs to, its Quotas and its Agents go through the pipeline together, so
//! that the world is read once and an agent never comes before its tenant. One that fails holds up none of the others.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use acb_crds::{
    Agent, Condition, Quota, Tenant,
    names::{FINALIZER, TenantName},
    schema::{Kind, ObjectRef},
    tenant::DeletionPolicy,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use tokio::{task::yield_now, time::timeout};
use tracing::{debug, info, warn};

use super::{
    deletion::{self, Attempts, Ending, Patience},
    last_sync::LastSyncs,
    news,
    rollouts::Rollouts,
    runtime::{Database, Runtime},
    schedule::Turn,
    usages::Usages,
};
use crate::{
    agent, condition,
    condition::{Basis, Outcome},
    effect::{EffectError, kafka::KafkaEffect, kubernetes},
    observed::{ObservedHub, ObservedUsage},
    plan::{KafkaStep, Plan, Step},
    quota,
    rollout::{Stage as RollStage, Wait},
    tenancy::{Census, Tenancy},
    tenant::{self, Decision, Stage, fetch::Sources, proved_logins::ProvedLogins},
};

/// A reconcile that takes longer is broken off, and tried again: everything in it is idempotent.
const RECONCILE_WITHIN: Duration = Duration::from_secs(120);
/// The same for each Agent, of which there may be thousands.
const AGENT_WITHIN: Duration = Duration::from_millis(100);

/// Reconciles, with what a runtime gives.
pub(crate) struct Tenancies {
    runtime: Arc<dyn Runtime>,
    attempts: Attempts,
    last_syncs: LastSyncs,
    rollouts: Rollouts,
    proved: ProvedLogins,
    usages: Usages,
}

/// What was seen of the tenant of a namespace, and is asked for of what is in it.
#[derive(Debug, Default)]
struct OfTenant {
    /// The context types that it has topics of.
    types: BTreeSet<String>,
    /// What its agents have used, where that is known.
    usage: Option<ObservedUsage>,
    /// Whether anything was done for it.
    is_changed: bool,
}

/// The stores as a look at a namespace found them, for all of it; or why they can't be used now.
#[derive(Clone, Copy)]
struct Stores<'a> {
    database: Result<&'a Database, &'a EffectError>,
    /// `None`: the log is in PostgreSQL.
    kafka: Result<Option<&'a KafkaEffect>, &'a EffectError>,
}

/// Which object a resource is.
pub(crate) fn reference(kind: Kind, metadata: &ObjectMeta) -> ObjectRef {
    let namespace = metadata.namespace.clone().filter(|_| kind != Kind::Tenant).unwrap_or_default();
    ObjectRef { kind, namespace, name: metadata.name.clone().unwrap_or_default() }
}

/// A status with other conditions of how far it came: what else was found before stays said.
pub(crate) fn with_conditions(mut status: Value, generation: Option<i64>, outcome: &Outcome) -> Value {
    let previous: Vec<Condition> = conditions(&status);
    let mut wanted = condition::conditions(outcome, &Basis { generation, previous: &previous, ..Basis::default() });
    wanted.extend(previous.iter().filter(|said| !condition::is_of_outcome(&said.r#type)).cloned());
    status["conditions"] = json!(condition::merge(&previous, wanted, generation, &super::now()));
    status["observedGeneration"] = json!(generation);
    status
}

fn conditions(status: &Value) -> Vec<Condition> {
    status.get("conditions").cloned().and_then(|found| serde_json::from_value(found).ok()).unwrap_or_default()
}

fn uid(metadata: &ObjectMeta) -> &str {
    metadata.uid.as_deref().unwrap_or_default()
}

fn is_leaving(metadata: &ObjectMeta) -> bool {
    metadata.deletion_timestamp.is_some()
}

impl Tenancies {
    pub(crate) fn new(runtime: Arc<dyn Runtime>) -> Self {
        Self {
            runtime,
            attempts: Attempts::default(),
            last_syncs: LastSyncs::default(),
            rollouts: Rollouts::default(),
            proved: ProvedLogins::default(),
            usages: Usages::default(),
        }
    }

    /// Brings one namespace's tenancy to where it should be, as far as it goes now. What does not end in time is broken off.
    pub(crate) async fn reconcile(&self, namespace: &str) -> Turn {
        // Not within the bound: at its first use PostgreSQL may have to be migrated, which has bounds of its own. Why it is away is found again.
        let _ = self.runtime.database().await;
        let everything = match self.runtime.tenancy(namespace) {
            Ok(everything) => everything,
            Err(error) => {
                warn!(namespace, %error, "not reconciled");
                return Turn::Failed;
            }
        };
        let agents = u32::try_from(everything.agents.len()).unwrap_or(u32::MAX);
        let within = RECONCILE_WITHIN + AGENT_WITHIN.saturating_mul(agents);
        timeout(within, self.pass(namespace, &everything)).await.unwrap_or_else(|_| {
            warn!(namespace, seconds = within.as_secs(), "a reconcile did not end in time, and is broken off");
            Turn::Failed
        })
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
        if let Some(tenant) = everything.unreadable_owner(namespace) {
            // Whose it is, it is: nothing in it is taken for nobody's.
            debug!(namespace, tenant = tenant.metadata.name, "left alone: this version can't read its Tenant");
            for tenant in everything.tenants.of_space(namespace) {
                self.look(tenant, None, everything);
            }
            return Turn::Settled;
        }
        // Its password is read anew for each look, and once: what is mended in its file heals with the next.
        let (database, kafka) = (self.runtime.database().await, self.runtime.kafka());
        let stores = Stores { database: database.as_ref(), kafka: kafka.as_ref().map(Option::as_ref) };
        let mut tenancy = everything.clone();
        tenancy.quotas.retain(|quota| !is_leaving(&quota.metadata));
        let mut turns = Vec::new();
        let census = Arc::new(Census::of(namespace, tenancy, self.runtime.platform()));
        // On the way out agents go first, while their tenant is still known.
        let (leaving, staying): (Vec<_>, Vec<_>) = everything.agents.iter().partition(|agent| is_leaving(&agent.metadata));
        turns.extend(self.agents(namespace, &leaving, &census, (stores, None)).await);
        // What is taken away from Agents waits for no look at Kafka, which may last half a minute.
        let known = self.take_away(namespace, &staying, &census, stores).await;
        let mut seen = OfTenant::default();
        for tenant in everything.tenants.of_space(namespace) {
            let result = self.tenant(tenant, census.tenancy(), stores, &mut seen).await;
            turns.push(self.fell_through(&reference(Kind::Tenant, &tenant.metadata), result));
        }
        let known = known.filter(|_| !seen.is_changed);
        // Its Agents are measured against what was seen of it.
        let census = Arc::new(Arc::unwrap_or_clone(census).with_types(&seen.types));
        for quota in &everything.quotas {
            let result = self.quota(quota, &census, seen.usage.as_ref()).await;
            yield_now().await;
            turns.push(self.fell_through(&reference(Kind::Quota, &quota.metadata), result));
        }
        turns.extend(self.agents(namespace, &staying, &census, (stores, known)).await);
        let worst = [Turn::Failed, Turn::Waiting].into_iter().find(|turn| turns.contains(turn));
        worst.unwrap_or(Turn::Settled)
    }

    async fn tenant(
        &self,
        tenant: &Tenant,
        tenancy: &Tenancy,
        stores: Stores<'_>,
        seen: &mut OfTenant,
    ) -> Result<Turn, EffectError> {
        let object = reference(Kind::Tenant, &tenant.metadata);
        if self.runtime.is_refused(&object) {
            self.look(tenant, None, tenancy);
            return Ok(Turn::Settled);
        }
        if !is_leaving(&tenant.metadata)
            && let Err(error) = self.runtime.hold(&object, uid(&tenant.metadata)).await
        {
            self.look(tenant, None, tenancy);
            return self.say_failure(&object, &tenant.metadata, &tenant.status, &error).await;
        }
        let mut world = self.fetch(tenant, tenancy, stores).await;
        let mut decision = tenant::decide(tenant, &world, self.runtime.platform());
        let waits = self.take_turn(tenant, &decision, &world);
        if waits.is_some() {
            world.held = true;
            decision = tenant::decide(tenant, &world, self.runtime.platform());
        }
        if let Some(validated) = decision.tenant() {
            seen.types.extend(world.existing_types(&validated.name, self.runtime.platform()));
        }
        if let (Some(validated), Ok(database)) = (decision.tenant().filter(|tenant| !tenant.deleting), stores.database) {
            seen.usage = self.usages.of(&database.reader.pool, &validated.id.hex()).await;
        }
        seen.is_changed |= !decision.plan().steps.is_empty();
        let (outcome, turn) = self.carry_out(&object, &decision, stores).await;
        let turn = if waits.is_some() && turn == Turn::Settled { Turn::Waiting } else { turn };
        self.say(tenant, &world, (&decision, seen.usage.clone()), &outcome, turn, waits).await
    }

    /// Why the hub of a Tenant may not roll now for the platform's sake; `None`: it may, or has no reason to. Everybody is looked at, so that it
    /// is known who rolls.
    fn take_turn(&self, tenant: &Tenant, decision: &Decision, world: &tenant::World) -> Option<Wait> {
        let platform = self.runtime.platform();
        // Of the hub alone: a spec that is refused does not say that what was begun came up.
        let rolls = tenant.spec.suspend != Some(true)
            && !world.rolled_out
            && TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default())
                .is_ok_and(|name| tenant::rollout::is_of_platform(&name, world));
        let stage = match decision {
            Decision::TakeDown { .. } => Some(RollStage::Settled),
            Decision::Converge { tenant, .. } if tenant::rollout::is_due(tenant, world, platform) => Some(RollStage::Due),
            _ if rolls => Some(RollStage::Rolling),
            Decision::Converge { .. } => Some(RollStage::Settled),
            Decision::Refused { .. } | Decision::Open { .. } => None,
        };
        // Of a hub that can't be seen nothing is new.
        if world.kubernetes.away().is_some() { None } else { self.look(tenant, stage, &world.tenancy) }
    }

    fn look(&self, tenant: &Tenant, stage: Option<RollStage>, tenancy: &Tenancy) -> Option<Wait> {
        let looked = self.rollouts.look(tenant, stage, &tenancy.tenants, self.runtime.platform().rollout);
        self.runtime.wake(looked.wake);
        looked.waits
    }

    async fn fetch(&self, tenant: &Tenant, tenancy: &Tenancy, stores: Stores<'_>) -> tenant::World {
        let sources = Sources {
            objects: self.runtime.objects(),
            postgres: stores.database.map(|database| &database.reader).map_err(Clone::clone),
            kafka: stores.kafka.map_err(Clone::clone),
            hubs: self.runtime.as_ref(),
            proved: Some(&self.proved),
        };
        tenant::fetch::fetch(tenant, tenancy.clone(), &sources, self.runtime.platform()).await
    }

    async fn carry_out(&self, object: &ObjectRef, decision: &Decision, stores: Stores<'_>) -> (Outcome, Turn) {
        let (plan, away) = match decision {
            Decision::TakeDown { stages, .. } => return self.take_down(object, stages, stores).await,
            Decision::Refused { restraint, away, .. } => (restraint, away.as_slice()),
            Decision::Open { plan, .. } => (plan, &[][..]),
            Decision::Converge { plan, away, .. } => (plan, away.as_slice()),
        };
        if let Err(error) = self.apply(object, plan, stores).await {
            return (failure(&error), Turn::Failed);
        }
        match decision {
            // What is wrong with it is said first; what could not be looked at is looked at again.
            Decision::Refused { problems, .. } => {
                let turn = if away.is_empty() { Turn::Settled } else { Turn::Failed };
                (Outcome::Stalled(problems.clone()), turn)
            }
            Decision::Converge { tenant, .. } if away.is_empty() => {
                let outcome = started(self.runtime.hub(tenant));
                let turn = turn(&outcome);
                (outcome, turn)
            }
            Decision::Converge { .. } => (failures(away.iter().map(|why| (why, why.to_string()))), Turn::Failed),
            Decision::Open { .. } | Decision::TakeDown { .. } => {
                (Outcome::Waiting("the operator's right to its namespaces".to_owned()), Turn::Waiting)
            }
        }
    }

    /// Takes down what can be reached. What comes last waits until everything else is done.
    async fn take_down(&self, object: &ObjectRef, stages: &[Stage], stores: Stores<'_>) -> (Outcome, Turn) {
        let (mut left, mut waiting): (Vec<(EffectError, String)>, Vec<&str>) = (Vec::new(), Vec::new());
        for stage in stages {
            if stage.is_last && !left.is_empty() {
                waiting.push(stage.what);
                continue;
            }
            let applied = self.apply(object, &stage.plan, stores).await;
            if let Some(why) = applied.err().or_else(|| stage.away.clone()) {
                let text = format!("{}: {why}", stage.what);
                left.push((why, text));
            }
        }
        if left.is_empty() {
            return (Outcome::Deleting("taken down".to_owned()), Turn::Waiting);
        }
        if let (Some((_, text)), false) = (left.last_mut(), waiting.is_empty()) {
            text.push_str(&format!("; after that: {}", waiting.join(", ")));
        }
        (failures(left.iter().map(|(why, text)| (why, text.clone()))), Turn::Failed)
    }

    /// Its status, or the end of its deletion.
    async fn say(
        &self,
        tenant: &Tenant,
        world: &tenant::World,
        (decision, usage): (&Decision, Option<ObservedUsage>),
        outcome: &Outcome,
        turn: Turn,
        waits: Option<Wait>,
    ) -> Result<Turn, EffectError> {
        let object = reference(Kind::Tenant, &tenant.metadata);
        if is_leaving(&tenant.metadata) {
            let deletes = tenant.spec.deletion_policy == Some(DeletionPolicy::Delete);
            let (removed, patience) = match (deletes, self.runtime.deletion_bound()) {
                (false, Some(bound)) => (Ending::Retained, Patience::Until(bound)),
                (false, None) => (Ending::Retained, Patience::Endless),
                // Whoever wants the data gone is not told that it is, as long as it is not.
                (true, _) => (Ending::Removed, Patience::Endless),
            };
            if self.is_let_go(&object, &tenant.metadata, &tenant.status, outcome, (removed, patience)).await? {
                return Ok(Turn::Settled);
            }
        }
        let platform = self.runtime.platform();
        let validated = decision.tenant();
        let said = tenant.status.as_ref();
        let endpoints = match validated {
            Some(validated) => self.runtime.endpoints(validated),
            None => said.map(|status| status.endpoints.clone()).unwrap_or_default(),
        };
        let credentials = match decision {
            Decision::Converge { secrets, .. } if outcome.is_synced() => {
                let before = said.map(|status| status.credentials.as_slice()).unwrap_or_default();
                tenant::rotation::credentials(secrets, world, before, &super::now())
            }
            _ => Vec::new(),
        };
        let now = super::now();
        let seen = tenant::status::Seen {
            endpoints,
            hub: validated.map(|validated| self.runtime.hub(validated)),
            retired: validated.map(|validated| tenant::retirement::retired(validated, world, platform)).unwrap_or_default(),
            last_sync: self.last_syncs.after(&object, said, outcome, &decision.plan(), &now),
            agents: i64::try_from(world.tenancy.agents.len()).unwrap_or(i64::MAX),
            credentials,
            conflicts: validated.map(|validated| self.runtime.conflicts(validated)).unwrap_or_default(),
            waits_to_roll: waits.map(|wait| wait.to_string()),
            usage,
            isolation: self.runtime.isolation(uid(&tenant.metadata)),
            risks: validated.and_then(|_| world.kafka.known()).map(|kafka| kafka.risks.clone()),
        };
        let status = tenant::status::status(tenant, validated, outcome, &seen, platform, &now);
        let before = said.map(|status| status.conditions.as_slice()).unwrap_or_default();
        self.save_status((&object, uid(&tenant.metadata)), before, &status.conditions, &status).await?;
        Ok(turn)
    }

    /// Says of a resource that nothing could be decided about it.
    async fn say_failure(
        &self,
        object: &ObjectRef,
        metadata: &ObjectMeta,
        status: &(impl serde::Serialize + Sync),
        error: &EffectError,
    ) -> Result<Turn, EffectError> {
        self.say_outcome(object, metadata, status, &failure(error)).await?;
        Ok(Turn::Failed)
    }

    /// Sets the conditions of a resource, and leaves everything else of its status.
    async fn say_outcome(
        &self,
        object: &ObjectRef,
        metadata: &ObjectMeta,
        status: &(impl serde::Serialize + Sync),
        outcome: &Outcome,
    ) -> Result<(), EffectError> {
        let status = serde_json::to_value(status).ok().filter(Value::is_object).unwrap_or_else(|| json!({}));
        let before = conditions(&status);
        let status = with_conditions(status, metadata.generation, outcome);
        self.save_status((object, uid(metadata)), &before, &conditions(&status), &status).await
    }

    async fn quota(&self, quota: &Quota, census: &Census, usage: Option<&ObservedUsage>) -> Result<Turn, EffectError> {
        let object = reference(Kind::Quota, &quota.metadata);
        if is_leaving(&quota.metadata) {
            // It has nothing of its own that could be left behind.
            self.runtime.let_go(&object, uid(&quota.metadata), &Ending::Removed).await?;
        } else if !self.runtime.is_refused(&object) {
            let validated = quota::validate::validate(quota, census);
            let status = quota::status::status(quota, &validated, usage, &super::now());
            let before = quota.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            self.save_status((&object, uid(&quota.metadata)), before, &status.conditions, &status).await?;
        }
        Ok(Turn::Settled)
    }

    /// Takes away from Agents what they may not have any more. What their namespace has in common is answered, where it was read and is still so; what
    /// fails is tried again with everything else, and said there.
    async fn take_away(
        &self,
        namespace: &str,
        agents: &[&Agent],
        census: &Arc<Census>,
        stores: Stores<'_>,
    ) -> Option<agent::fetch::Shared> {
        let (objects, pool) = (self.runtime.objects(), &stores.database.ok().filter(|_| !agents.is_empty())?.reader.pool);
        let shared = agent::fetch::fetch_shared(namespace, Arc::clone(census), objects, pool).await.ok()?;
        let mut is_as_read = true;
        for agent in agents {
            yield_now().await;
            let object = reference(Kind::Agent, &agent.metadata);
            let Ok(world) = agent::fetch::fetch_row(agent, &shared, objects).await else { continue };
            let plan = agent::plan::taken_away(agent, &world);
            if plan.steps.is_empty() || self.runtime.is_refused(&object) {
                continue;
            }
            is_as_read = false;
            if let Err(error) = self.apply(&object, &plan, stores).await {
                debug!(%object, %error, "not taken away yet");
            }
        }
        is_as_read.then_some(shared)
    }

    /// `known` is what their namespace has in common, where that was read and is still so.
    async fn agents(
        &self,
        namespace: &str,
        agents: &[&Agent],
        census: &Arc<Census>,
        (stores, known): (Stores<'_>, Option<agent::fetch::Shared>),
    ) -> Vec<Turn> {
        if agents.is_empty() {
            return Vec::new();
        }
        let census = Arc::clone(census);
        let shared = match (known, stores.database) {
            (Some(known), _) => Ok(known.with_census(census)),
            (None, Ok(database)) => {
                agent::fetch::fetch_shared(namespace, census, self.runtime.objects(), &database.reader.pool).await
            }
            (None, Err(error)) => Err(error.clone()),
        };
        let shared = shared.as_ref();
        let mut turns = Vec::new();
        for agent in agents {
            // There may be thousands, and where nothing is to be waited for nobody else had a turn: not the probes, and not the lease.
            yield_now().await;
            let object = reference(Kind::Agent, &agent.metadata);
            if !self.runtime.is_refused(&object) {
                turns.push(self.fell_through(&object, self.agent(agent, &object, (shared, stores)).await));
            }
        }
        turns
    }

    async fn agent(
        &self,
        agent: &Agent,
        object: &ObjectRef,
        (shared, stores): (Result<&agent::fetch::Shared, &EffectError>, Stores<'_>),
    ) -> Result<Turn, EffectError> {
        let deleting = is_leaving(&agent.metadata);
        if !deleting && let Err(error) = self.runtime.hold(object, uid(&agent.metadata)).await {
            return self.say_failure(object, &agent.metadata, &agent.status, &error).await;
        }
        let fetched = match shared {
            Ok(shared) => agent::fetch::fetch(agent, shared, self.runtime.objects()).await,
            Err(error) => Err(error.clone()),
        };
        let before = agent.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let patience = self.runtime.deletion_bound().map_or(Patience::Endless, Patience::Until);
        let world = match fetched {
            Ok(world) => world,
            Err(error) => {
                let ends = (Ending::Removed, patience);
                if deleting && self.is_let_go(object, &agent.metadata, &agent.status, &failure(&error), ends).await? {
                    return Ok(Turn::Settled);
                }
                return self.say_failure(object, &agent.metadata, &agent.status, &error).await;
            }
        };
        let decision = agent::decide(agent, &world);
        let outcome = match (self.apply(object, decision.plan(), stores).await, &decision) {
            (Err(error), _) => failure(&error),
            (Ok(()), agent::Decision::Refused { problems, .. }) => Outcome::Stalled(problems.clone()),
            (Ok(()), agent::Decision::Converge { waits_for: Some(what), .. }) => Outcome::Waiting(what.clone()),
            (Ok(()), agent::Decision::Converge { waits_for: None, .. }) => Outcome::Ready,
        };
        let gone = if world.tenant_id.is_some() { Ending::Removed } else { Ending::WithItsTenant };
        if deleting && self.is_let_go(object, &agent.metadata, &agent.status, &outcome, (gone, patience)).await? {
            return Ok(Turn::Settled);
        }
        let status = agent::status::status(agent, decision.agent(), &world, &outcome, &super::now());
        self.save_status((object, uid(&agent.metadata)), before, &status.conditions, &status).await?;
        Ok(turn(&outcome))
    }

    /// Lets go of what is on its way out, where its deletion ends now.
    async fn is_let_go(
        &self,
        object: &ObjectRef,
        metadata: &ObjectMeta,
        status: &(impl serde::Serialize + Sync),
        outcome: &Outcome,
        (removed, patience): (Ending, Patience),
    ) -> Result<bool, EffectError> {
        let uid = uid(metadata);
        let failures = || self.attempts.failed(object, uid, Instant::now());
        let Some(ending) = deletion::ending(outcome, removed, patience, deletion::is_released(metadata), failures) else {
            return Ok(false);
        };
        self.runtime.let_go(object, uid, &ending).await?;
        self.attempts.forget(object, uid);
        self.last_syncs.forget(object);
        match &ending {
            Ending::LeftBehind(why) => warn!(%object, why, "let go, with something left behind"),
            ending => info!(%object, ?ending, "removed"),
        }
        // Only now is it so: a process that lost its lease lets nothing go.
        self.runtime.tell(object, news::of_ending(&ending)).await;
        let others = metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER);
        let others: Vec<&str> = others.map(String::as_str).collect();
        if !others.is_empty() {
            let held =
                Outcome::Deleting(format!("taken down by ACB; still there because of the finalizer {}", others.join(", ")));
            self.say_outcome(object, metadata, status, &held).await?;
        }
        Ok(true)
    }

    /// Applies a plan in its order, and stops at the first step that fails.
    async fn apply(&self, object: &ObjectRef, plan: &Plan, stores: Stores<'_>) -> Result<(), EffectError> {
        // Kafka takes what follows one another in one session.
        for steps in plan.steps.chunk_by(|left, right| matches!((left, right), (Step::Kafka(_), Step::Kafka(_)))) {
            debug!(%object, ?steps, "applying");
            self.runtime.may_act()?;
            match &steps[0] {
                Step::Kubernetes(step) => kubernetes::apply(self.runtime.objects(), step).await?,
                Step::Postgres(step) => stores.database.map_err(Clone::clone)?.effect.apply(step).await?,
                Step::Kafka(_) => {
                    let kafka = stores.kafka.map_err(Clone::clone)?.ok_or_else(|| {
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

    /// Of the resource with this UID, and of no other that has its name by now.
    async fn save_status(
        &self,
        (object, uid): (&ObjectRef, &str),
        before: &[Condition],
        now: &[Condition],
        status: &(impl serde::Serialize + Sync),
    ) -> Result<(), EffectError> {
        let status = serde_json::to_value(status)
            .map_err(|error| EffectError::refused("the operator", format!("the status of {object} is no JSON: {error}")))?;
        self.runtime.set_status(object, uid, status).await?;
        let news = [
            news::of_conditions(before, now),
            news::of_sync(before, now),
            news::of_trouble(before, now),
            news::of_risk(before, now),
            news::of_conflict(before, now),
            news::of_limits(before, now),
            news::of_isolation(before, now),
        ];
        for news in news.into_iter().flatten() {
            self.runtime.tell(object, news).await;
        }
        Ok(())
    }
}

fn failure(error: &EffectError) -> Outcome {
    if error.is_transient() { Outcome::Retrying(error.to_string()) } else { Outcome::Refused(error.to_string()) }
}

/// What several of them together mean: as long as one may mend itself, trying again may help.
fn failures<'a>(all: impl Iterator<Item = (&'a EffectError, String)>) -> Outcome {
    let (errors, texts): (Vec<&EffectError>, Vec<String>) = all.unzip();
    let text = texts.join("; ");
    if errors.iter().any(|error| error.is_transient()) { Outcome::Retrying(text) } else { Outcome::Refused(text) }
}

/// What a hub means for a tenant whose plan is carried out.
fn started(hub: ObservedHub) -> Outcome {
    match hub.fault {
        Some(fault) => Outcome::Refused(fault),
        None if hub.rolled_out => Outcome::Ready,
        None => Outcome::Starting(hub.lacks),
    }
}

fn turn(outcome: &Outcome) -> Turn {
    match outcome {
        Outcome::Ready | Outcome::Stalled(_) => Turn::Settled,
        Outcome::Starting(_) | Outcome::Waiting(_) | Outcome::Deleting(_) => Turn::Waiting,
        // A refusal may rest on something that someone mends elsewhere.
        Outcome::Retrying(_) | Outcome::Refused(_) => Turn::Failed,
    }
}
