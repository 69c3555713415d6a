//! What the operator does in one pass, by its own decisions: the order of `operator/src/reconcile/tenancies.rs`, with models in the place of
//! the systems.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use acb_crds::{Agent, Tenant, names::TenantId};
use acb_operator::{
    agent,
    effect::{EffectError, kubernetes::ObjectKey},
    observed::ObservedIssuer,
    plan::{Plan, Step},
    platform::{Platform, PlatformBus, PlatformPostgres},
    tenancy::{self, Census, Tenancy},
    tenant::{self, Decision},
};

use serde_json::Value;

use crate::{
    asleep::Asleep,
    cache::Cache,
    documents::{self, Documents, Name, name},
    history,
    kafka::Kafka,
    kubernetes::hub,
    systems::{Crash, System, Systems},
    watch,
    writes::{self, Write},
};

pub(crate) const OPERATOR_NAMESPACE: &str = "acb-system";
/// More passes than anything takes.
const ROUNDS: usize = 40;

#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) platform: Platform,
    pub(crate) documents: Documents,
    pub(crate) systems: Systems,
    /// Through which Kubernetes is seen, where that is not as it is.
    pub(crate) cache: Option<Cache>,
    /// Who issues the tokens of the cluster's ServiceAccounts.
    pub(crate) issuer: ObservedIssuer,
    /// Whether the overlap of every rotated key has passed.
    pub(crate) is_late: bool,
    /// What must never be.
    pub(crate) broken: Vec<String>,
    /// At which step the process falls asleep.
    pub(crate) sleeps_at: Option<usize>,
    /// One that did, and was about to send something.
    pub(crate) asleep: Option<Asleep>,
    /// What one changed that leads no more.
    pub(crate) late: Vec<String>,
    /// Whether it made something for who was gone.
    pub(crate) is_littered: bool,
}

/// What ends a pass: the process died, or a system said no.
type Stopped = EffectError;

impl Operator {
    pub(crate) fn new(with_kafka: bool) -> Self {
        let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
        let mut platform = Platform { has_service_accounts: true, ..Platform::new(postgres) };
        let mut systems = Systems::default();
        if with_kafka {
            platform.bus = PlatformBus::Kafka { bootstrap_servers: "kafka:9092".into(), tls: false };
            systems.kafka = Some(Kafka::default());
        }
        Self {
            platform,
            documents: Documents::default(),
            systems,
            cache: None,
            issuer: history::issuer(0, true),
            is_late: false,
            broken: Vec::new(),
            sleeps_at: None,
            asleep: None,
            late: Vec::new(),
            is_littered: false,
        }
    }

    /// Looks at every namespace once. Whether anything was done.
    pub(crate) fn round(&mut self) -> bool {
        let (before, documents) = (self.systems.steps, self.documents.names());
        self.note();
        for namespace in self.documents_seen().namespaces() {
            // A process that died is started again, and begins with the next.
            let _ = self.pass(&namespace);
        }
        self.systems.kubernetes.roll();
        self.note();
        before != self.systems.steps || documents != self.documents.names()
    }

    /// Goes on until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let rolled = self.systems.kubernetes.clone_rolled();
            if !self.round() && rolled == self.systems.kubernetes.clone_rolled() {
                return;
            }
        }
        let last = self.systems.log.len().saturating_sub(12);
        self.broken.push(format!("does not settle; the last steps:\n{}", self.systems.log[last..].join("\n")));
    }

    /// Retentions and overlaps pass, and what waited for that is done.
    pub(crate) fn settle_late(&mut self) {
        self.settle();
        self.is_late = true;
        for _ in 0..2 {
            self.systems.postgres.pass_time();
            self.settle();
        }
        self.is_late = false;
    }

    fn pass(&mut self, space: &str) -> Result<(), Stopped> {
        let tenancy = self.documents_seen().tenancy(space);
        let mut counted = tenancy.clone();
        counted.quotas.retain(|quota| quota.metadata.deletion_timestamp.is_none());
        let census = Arc::new(Census::of(space, counted, &self.platform));
        let (leaving, staying): (Vec<Agent>, Vec<Agent>) =
            tenancy.agents.iter().cloned().partition(|agent| agent.metadata.deletion_timestamp.is_some());
        self.agents(space, &leaving, &census)?;
        self.take_away(&staying, &census)?;
        let mut types = BTreeSet::new();
        for tenant in tenancy.tenants.iter().filter(|tenant| tenancy::namespace(tenant).as_deref() == Some(space)) {
            self.tenant(tenant, census.tenancy(), &mut types)?;
        }
        let census = Arc::new(Arc::unwrap_or_clone(census).with_types(&types));
        for quota in tenancy.quotas.iter().filter(|quota| quota.metadata.deletion_timestamp.is_some()) {
            let _ = self.let_go(&name("Quota", space, quota.metadata.name.as_deref().unwrap()));
        }
        self.agents(space, &staying, &census)
    }

    fn tenant(&mut self, tenant: &Tenant, tenancy: &Tenancy, types: &mut BTreeSet<String>) -> Result<(), Stopped> {
        let at = name("Tenant", "", tenant.metadata.name.as_deref().unwrap());
        // One that can't be held is said to be so, and looked at again.
        if tenant.metadata.deletion_timestamp.is_none() && self.hold(&at).is_err() {
            return Ok(());
        }
        let world = self.world(tenant, tenancy);
        let decision = tenant::decide(tenant, &world, &self.platform);
        if let Some(validated) = decision.tenant() {
            types.extend(world.existing_types(&validated.name, &self.platform));
        }
        let Decision::TakeDown { stages, .. } = &decision else {
            let _ = self.apply_all(&decision.plan())?;
            return Ok(());
        };
        let mut left = false;
        for stage in stages {
            if stage.is_last && left {
                continue;
            }
            left |= self.apply_all(&stage.plan)?.is_err() || stage.away.is_some();
        }
        if !left && self.let_go(&at) {
            self.never_open(tenant);
        }
        Ok(())
    }

    /// A crash ends everything; a system that says no, or is away, only this plan.
    fn apply_all(&mut self, plan: &Plan) -> Result<Result<(), EffectError>, Stopped> {
        let (crash, sleeps_at) = (self.systems.crash, self.sleeps_at);
        match self.apply(plan) {
            Err(unanswered) if matches!(crash, Some(Crash::Unanswered(_))) => Ok(Err(unanswered)),
            Err(died) if crash.is_some() && self.systems.crash.is_none() => Err(died),
            Err(asleep) if sleeps_at.is_some() && self.sleeps_at.is_none() => Err(asleep),
            other => Ok(other),
        }
    }

    pub(crate) fn apply(&mut self, plan: &Plan) -> Result<(), EffectError> {
        for step in &plan.steps {
            if self.sleeps_at == Some(self.systems.steps) {
                self.sleeps_at = None;
                self.fall_asleep(step);
                return Err(EffectError::unavailable("the process", "it is asleep"));
            }
            if self.systems.reaches(step)
                && let Step::Kubernetes(step) = step
                && let Some(cache) = &mut self.cache
            {
                match writes::write(step, cache) {
                    Write::Sent => {}
                    Write::Needless => continue,
                    Write::Refused(why) => return Err(why),
                }
            }
            let why = self.systems.reaches(step).then(|| watch::forbids(step, &self.documents, &self.systems)).flatten();
            let opens = watch::lets_in_by_what_was(step, &self.documents, &self.systems).filter(|_| self.cache.is_none());
            self.broken.extend(why.or(opens).map(|why| format!("{why}: {step}")));
            let applied = self.systems.apply(step);
            self.note();
            applied?;
            self.answered(step);
        }
        Ok(())
    }

    /// What let go of a Tenant may let nobody in.
    fn never_open(&mut self, tenant: &Tenant) {
        let name = tenant.metadata.name.clone().unwrap();
        let postgres = &self.systems.postgres;
        let had = |id: &TenantId| postgres.observe(&id.hex()).tenant.is_none_or(|row| row.name == name);
        let tenant = serde_json::to_value(tenant).unwrap();
        let ids: Vec<TenantId> = watch::ids(&tenant, &self.systems).into_iter().filter(had).collect();
        let of = |id: TenantId| {
            let enabled = postgres.observe(&id.hex()).login.is_some_and(|login| login.enabled);
            let is_anothers =
                watch::tenants_of(&id.hex(), &self.documents, &self.systems).iter().any(|(other, _)| *other != name);
            (enabled && !is_anothers, self.systems.kafka.as_ref().is_some_and(|kafka| kafka.users.contains_key(&id.login())))
        };
        for (has_login, has_user) in ids.into_iter().map(of).collect::<Vec<_>>() {
            if has_login {
                self.broken.push(format!("Tenant {name} is gone, and its login in PostgreSQL works"));
            }
            if has_user {
                self.broken.push(format!("Tenant {name} is gone, and its user in Kafka works"));
            }
        }
        let space = format!("acbhub-{name}");
        if self.systems.kubernetes.objects.contains_key(&hub(&space)) && watch::serves(&space, &tenant, &self.systems) {
            self.broken.push(format!("Tenant {name} is gone, and its hub runs"));
        }
    }

    fn agents(&mut self, space: &str, agents: &[Agent], census: &Arc<Census>) -> Result<(), Stopped> {
        let is_away = [System::Kubernetes, System::Postgres].iter().any(|system| self.systems.is_unread(*system));
        for agent in agents {
            let at = name("Agent", space, agent.metadata.name.as_deref().unwrap());
            let leaving = agent.metadata.deletion_timestamp.is_some();
            // Its world can't be read, or it can't be held: it is looked at again.
            if (!leaving && self.hold(&at).is_err()) || is_away {
                continue;
            }
            let world = self.agent_world(agent, census);
            let decision = agent::decide(agent, &world);
            let done = self.apply_all(decision.plan())?.is_ok();
            if leaving && done && self.let_go(&at) {
                decision.agent().into_iter().for_each(|of| self.agent_never_open(&at, &of.tenant_id, &of.uid));
            }
        }
        Ok(())
    }

    fn agent_never_open(&mut self, at: &Name, tenant: &TenantId, uid: &str) {
        let observed = self.systems.postgres.observe(&tenant.hex());
        if observed.api_keys.contains_key(uid) {
            self.broken.push(format!("Agent {at:?} is gone, and its key works"));
        }
        if observed.agents.get(uid).is_some_and(|row| row.service_account.is_some()) {
            self.broken.push(format!("Agent {at:?} is gone, and its ServiceAccount lets somebody in"));
        }
    }

    /// What Agents may not have any more, before their tenant is looked at.
    fn take_away(&mut self, agents: &[Agent], census: &Arc<Census>) -> Result<(), Stopped> {
        let is_away = [System::Kubernetes, System::Postgres].iter().any(|system| self.systems.is_unread(*system));
        for agent in agents.iter().filter(|_| !is_away) {
            let plan = agent::plan::taken_away(agent, &self.agent_row_world(agent, census));
            let _ = self.apply_all(&plan)?;
        }
        Ok(())
    }

    /// The namespace of the hub that serves a namespace of Agents.
    pub(crate) fn owner(&self, space: &str) -> Option<String> {
        let tenancy = self.documents.tenancy(space);
        Some(format!("acbhub-{}", tenancy.tenant_of(space)?.metadata.name.as_deref()?))
    }

    /// The documents that the operator knows.
    pub(crate) fn documents_seen(&self) -> Cow<'_, Documents> {
        match &self.cache {
            None => Cow::Borrowed(&self.documents),
            Some(cache) => Cow::Owned(Documents::seen(cache.objects())),
        }
    }

    /// The objects that the operator knows.
    pub(crate) fn objects_seen(&self) -> Cow<'_, BTreeMap<ObjectKey, Value>> {
        match &self.cache {
            None => Cow::Borrowed(&self.systems.kubernetes.objects),
            Some(cache) => Cow::Owned(cache.objects().map(|(key, object)| (key.clone(), object.clone())).collect()),
        }
    }

    /// The watches see what became otherwise, and tell of it.
    pub(crate) fn note(&mut self) {
        self.see();
        self.cache.iter_mut().for_each(|cache| cache.tell(0));
    }

    /// The API server has what became otherwise.
    pub(crate) fn see(&mut self) {
        if let Some(cache) = &mut self.cache {
            let objects = self.systems.kubernetes.objects.iter().map(|(key, object)| (key.clone(), object));
            cache.note(self.documents.objects().chain(objects));
        }
    }

    /// What an API server answers to a write comes into the cache.
    fn answered(&mut self, step: &Step) {
        if let (Some(cache), Step::Kubernetes(step)) = (&mut self.cache, step)
            && let Some(key) = writes::written(step)
        {
            cache.answered(&key);
        }
    }

    /// # Errors
    /// It is gone, or another was made under its name.
    fn hold(&mut self, at: &Name) -> Result<(), EffectError> {
        if let Some(cache) = &mut self.cache {
            writes::finalizer(&documents::key(at), cache, true)?;
        }
        self.documents.hold(at);
        self.wrote(at);
        Ok(())
    }

    /// Whether it is gone now.
    fn let_go(&mut self, at: &Name) -> bool {
        if let Some(cache) = &mut self.cache
            && !matches!(writes::finalizer(&documents::key(at), cache, false), Ok(true))
        {
            return false;
        }
        self.documents.let_go(at);
        self.wrote(at);
        true
    }

    fn wrote(&mut self, at: &Name) {
        self.note();
        if let Some(cache) = &mut self.cache {
            cache.answered(&documents::key(at));
        }
    }
}
