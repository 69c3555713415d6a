//! What the operator does in one pass, by its own decisions: the order of `operator/src/reconcile/tenancies.rs`, with models in the place of
//! the systems.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use acb_crds::{
    Agent, Tenant,
    names::{AgentName, TenantId, TenantName, objects},
};
use acb_operator::{
    agent::{self, StoredApiKey},
    effect::{EffectError, kafka_inventory::KafkaInventory, postgres_inventory::PostgresInventory},
    observed::{LoginState, ObservedKafka},
    orphans::{Inventory, orphans},
    plan::{Plan, SecretRef},
    platform::{Platform, PlatformBus, PlatformPostgres},
    tenancy::{self, Census, Tenancy},
    tenant::{self, Decision, Read, RetainedData, World, adoption, newest},
};
use serde_json::{Value, json};

use crate::{
    documents::{Documents, Name, name},
    kafka::Kafka,
    kubernetes::{self, hub},
    systems::{System, Systems},
    watch,
};

const OPERATOR_NAMESPACE: &str = "acb-system";
/// More passes than anything takes.
const ROUNDS: usize = 40;

#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) platform: Platform,
    pub(crate) documents: Documents,
    pub(crate) systems: Systems,
    /// Whether the overlap of every rotated key has passed.
    is_late: bool,
    /// What must never be.
    pub(crate) broken: Vec<String>,
}

/// What ends a pass: the process died, or a system said no.
type Stopped = EffectError;

impl Operator {
    pub(crate) fn new(with_kafka: bool) -> Self {
        let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
        let mut platform = Platform::new(postgres);
        let mut systems = Systems::default();
        if with_kafka {
            platform.bus = PlatformBus::Kafka { bootstrap_servers: "kafka:9092".into(), tls: false };
            systems.kafka = Some(Kafka::default());
        }
        Self { platform, documents: Documents::default(), systems, is_late: false, broken: Vec::new() }
    }

    /// Looks at every namespace once. Whether anything was done.
    pub(crate) fn round(&mut self) -> bool {
        let (before, documents) = (self.systems.steps, self.documents.names());
        for namespace in self.documents.namespaces() {
            // A process that died is started again, and begins with the next.
            let _ = self.pass(&namespace);
        }
        self.systems.kubernetes.roll();
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
        let tenancy = self.documents.tenancy(space);
        let mut counted = tenancy.clone();
        counted.quotas.retain(|quota| quota.metadata.deletion_timestamp.is_none());
        let census = Arc::new(Census::of(space, counted, &self.platform));
        let (leaving, staying): (Vec<Agent>, Vec<Agent>) =
            tenancy.agents.iter().cloned().partition(|agent| agent.metadata.deletion_timestamp.is_some());
        self.agents(space, &leaving, &census)?;
        let mut types = BTreeSet::new();
        for tenant in tenancy.tenants.iter().filter(|tenant| tenancy::namespace(tenant).as_deref() == Some(space)) {
            self.tenant(tenant, census.tenancy(), &mut types)?;
        }
        let census = Arc::new(Arc::unwrap_or_clone(census).with_types(&types));
        for quota in tenancy.quotas.iter().filter(|quota| quota.metadata.deletion_timestamp.is_some()) {
            self.documents.let_go(&name("Quota", space, quota.metadata.name.as_deref().unwrap()));
        }
        self.agents(space, &staying, &census)
    }

    fn tenant(&mut self, tenant: &Tenant, tenancy: &Tenancy, types: &mut BTreeSet<String>) -> Result<(), Stopped> {
        let at = name("Tenant", "", tenant.metadata.name.as_deref().unwrap());
        if tenant.metadata.deletion_timestamp.is_none() {
            self.documents.hold(&at);
        }
        let world = self.world(tenant, tenancy);
        let decision = tenant::decide(tenant, &world, &self.platform);
        if let Some(validated) = decision.tenant() {
            types.extend(world.existing_types(&validated.name, &self.platform));
        }
        let Decision::TakeDown { stages, .. } = &decision else { return self.apply(&decision.plan()) };
        let mut left = false;
        for stage in stages {
            if stage.is_last && left {
                continue;
            }
            left |= self.apply_all(&stage.plan)?.is_err() || stage.away.is_some();
        }
        if !left {
            self.documents.let_go(&at);
            self.never_open(tenant);
        }
        Ok(())
    }

    /// A crash ends everything; a system that says no, or is away, only this plan.
    fn apply_all(&mut self, plan: &Plan) -> Result<Result<(), EffectError>, Stopped> {
        let crash = self.systems.crash;
        match self.apply(plan) {
            Err(died) if crash.is_some() && self.systems.crash.is_none() => Err(died),
            other => Ok(other),
        }
    }

    fn apply(&mut self, plan: &Plan) -> Result<(), EffectError> {
        for step in &plan.steps {
            let why = (!self.systems.is_away(step)).then(|| watch::forbids(step, &self.documents, &self.systems)).flatten();
            self.broken.extend(why.map(|why| format!("{why}: {step}")));
            self.systems.apply(step)?;
        }
        Ok(())
    }

    /// What is let go may let nobody in.
    fn never_open(&mut self, tenant: &Tenant) {
        let id = TenantId::from_uid(tenant.metadata.uid.as_deref().unwrap());
        let name = tenant.metadata.name.as_deref().unwrap();
        if self.systems.postgres.observe(&id.hex()).login.is_some_and(|login| login.enabled) {
            self.broken.push(format!("Tenant {name} is gone, and its login in PostgreSQL works"));
        }
        if self.systems.kafka.as_ref().is_some_and(|kafka| kafka.users.contains_key(&id.login())) {
            self.broken.push(format!("Tenant {name} is gone, and its user in Kafka works"));
        }
        if self.systems.kubernetes.objects.contains_key(&hub(&format!("acbhub-{name}"))) {
            self.broken.push(format!("Tenant {name} is gone, and its hub runs"));
        }
    }

    /// Whose data a Tenant has: the order of `identify` in `operator/src/tenant/fetch.rs`.
    fn identity(&self, tenant: &Tenant, tenancy: &Tenancy) -> adoption::Identity {
        let (systems, name) = (&self.systems, tenant.metadata.name.as_deref().unwrap_or_default());
        let space = systems.kubernetes.objects.get(&kubernetes::namespace(&format!("acbhub-{name}")));
        let space = space.filter(|_| !systems.away.contains(&System::Kubernetes));
        let recorded = adoption::recorded(tenant, space);
        let (mut wanted, mut rows_of) = (adoption::wanted(tenant, space), None);
        if systems.away.contains(&System::Postgres) {
            wanted = recorded.map(|id| id.hex());
        } else if let Some(id) = &wanted {
            rows_of = systems.postgres.observe(id).tenant.map(|row| row.name);
        }
        adoption::identity(tenant, wanted.as_deref(), &tenancy.tenants, rows_of.as_deref()).or_recorded(recorded)
    }

    fn world(&self, tenant: &Tenant, tenancy: &Tenancy) -> World {
        let mut world = World { tenancy: tenancy.clone(), ..World::default() };
        let Ok(name) = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()) else { return world };
        world.identity = Some(self.identity(tenant, tenancy));
        let (id, systems) = (world.identity(tenant).id, &self.systems);
        let space = tenancy::namespace(tenant).unwrap_or_default();
        let spaces = ["", &space, &name.hub_namespace(), OPERATOR_NAMESPACE];
        world.rolled_out = systems.kubernetes.is_rolled_out(&name.hub_namespace());
        if systems.away.contains(&System::Kubernetes) {
            world.kubernetes = Read::Away(System::Kubernetes.away());
        } else {
            let objects = systems.kubernetes.objects.iter().filter(|(key, _)| spaces.contains(&key.namespace.as_str()));
            world.objects = objects.map(|(key, object)| (key.clone(), object.clone())).collect();
            world.details = systems.kubernetes.details();
            world.details.retain(|secret, _| spaces.contains(&secret.namespace.as_str()));
            world.secrets = world.details.keys().cloned().collect();
        }
        let is_asked = tenant.metadata.deletion_timestamp.is_none() && world.kubernetes.away().is_none();
        let secret = |secrets: &BTreeSet<SecretRef>, of: &str| newest(secrets, &name.hub_namespace(), of);
        if systems.away.contains(&System::Postgres) {
            world.postgres = Read::Away(System::Postgres.away());
        } else {
            let (observed, newest) = (systems.postgres.observe(&id.hex()), secret(&world.secrets, objects::HUB_POSTGRES));
            if is_asked {
                let login = |secret: &SecretRef| systems.postgres.login(&id.hex(), secret, &systems.kubernetes);
                world.login = login(&newest);
                let before = newest.before().filter(|_| world.login == LoginState::Refused);
                world.previous_login = before.map_or(LoginState::Refused, |before| login(&before));
            }
            let others = systems.postgres.tenants.iter().filter(|(other, _)| **other != id.hex());
            let named = others.filter(|(_, rows)| rows.observed.tenant.as_ref().is_some_and(|row| row.name == name.as_str()));
            world.retained = named.map(|(other, _)| RetainedData { tenant_id: other.clone(), place: "PostgreSQL".into() }).next();
            world.postgres = Read::Known(observed);
        }
        world.kafka = match &systems.kafka {
            None => Read::Known(ObservedKafka::default()),
            Some(_) if systems.away.contains(&System::Kafka) => Read::Away(System::Kafka.away()),
            Some(kafka) => {
                let secret = secret(&world.secrets, objects::HUB_KAFKA);
                let mut seen = kafka.observe(&id.login(), &name.topic_prefix(), &secret, &systems.kubernetes);
                let (has_row, is_adopted) = (world.row().is_some(), world.identity(tenant).adopted);
                if world.retained.is_none()
                    && world.postgres.known().is_some()
                    && !has_row
                    && !seen.topics.is_empty()
                    && !is_adopted
                {
                    let place = format!("Kafka topics {}*", name.topic_prefix());
                    world.retained = Some(RetainedData { tenant_id: "unknown".into(), place });
                }
                if !is_asked {
                    seen.user = LoginState::Refused;
                    seen.previous = seen.user;
                }
                Read::Known(seen)
            }
        };
        world
    }

    fn agents(&mut self, space: &str, agents: &[Agent], census: &Arc<Census>) -> Result<(), Stopped> {
        let is_away = [System::Kubernetes, System::Postgres].iter().any(|system| self.systems.away.contains(system));
        for agent in agents {
            let at = name("Agent", space, agent.metadata.name.as_deref().unwrap());
            let leaving = agent.metadata.deletion_timestamp.is_some();
            if !leaving {
                self.documents.hold(&at);
            }
            // Its world can't be read: it is looked at again.
            if is_away {
                continue;
            }
            let world = self.agent_world(agent, census);
            match agent::validate::validate(agent, &world) {
                Err(_) => {
                    let id = world.tenant_id.map(|id| agent::plan::suspension(&id.hex(), &world)).unwrap_or_default();
                    let _ = self.apply_all(&id)?;
                }
                Ok(validated) => {
                    let done = self.apply_all(&agent::plan::plan(&validated, &world))?.is_ok();
                    if leaving && done {
                        self.documents.let_go(&at);
                        self.agent_never_open(&at, &validated.tenant_id, &validated.uid);
                    }
                    continue;
                }
            }
            if leaving {
                self.documents.let_go(&at);
            }
        }
        Ok(())
    }

    fn agent_never_open(&mut self, at: &Name, tenant: &TenantId, uid: &str) {
        let observed = self.systems.postgres.observe(&tenant.hex());
        if observed.api_keys.contains_key(uid) {
            self.broken.push(format!("Agent {at:?} is gone, and its key works"));
        }
    }

    fn agent_world(&self, agent: &Agent, census: &Arc<Census>) -> agent::World {
        let space = agent.metadata.namespace.clone().unwrap_or_default();
        let mut world = agent::World { census: Arc::clone(census), ..agent::World::default() };
        let mut uid = agent.metadata.uid.clone().unwrap_or_default();
        world.id = Some(uid.clone());
        let Some(owner) = census.owner(&space) else { return world };
        let Ok(tenant) = TenantName::parse(owner.tenant.metadata.name.as_deref().unwrap_or_default()) else { return world };
        let identity = self.identity(&owner.tenant, census.tenancy());
        let id = identity.id;
        world.tenant_id = Some(id);
        let key = AgentName::parse(agent.metadata.name.as_deref().unwrap_or_default()).map(|name| name.api_key_secret());
        let systems = &self.systems;
        let of = |namespace: &str, name: &str| {
            let found =
                systems.kubernetes.secrets.keys().filter(move |secret| secret.namespace == namespace && secret.name == name);
            found.cloned().collect::<Vec<_>>()
        };
        let own = key.as_deref().map(|key| of(&space, key)).unwrap_or_default();
        let keys = of(&tenant.hub_namespace(), objects::HUB_KEYS);
        world.secrets.extend(own.iter().chain(&keys).cloned());
        world.secrets.extend(of(OPERATOR_NAMESPACE, &id.authority_secret()));
        let observed = systems.postgres.observe(&id.hex());
        if identity.adopted {
            let uids: Vec<&str> = census.tenancy().agents.iter().filter_map(|agent| agent.metadata.uid.as_deref()).collect();
            uid = adoption::agent_id(&uid, agent.metadata.name.as_deref().unwrap_or_default(), &uids, &observed.agents);
            world.id = Some(uid.clone());
        }
        world.tenant_projected = observed.tenant.is_some();
        world.row = observed.agents.get(&uid).cloned();
        world.has_replaced_key = observed.replaced_keys.contains(&uid);
        let details = systems.kubernetes.details();
        world.asked = own.iter().filter_map(|secret| Some((secret.clone(), details[secret].asked.clone()?))).collect();
        let newest_key = own.last().cloned();
        world.api_key = match (observed.api_keys.contains_key(&uid), &newest_key, keys.last()) {
            (false, ..) => StoredApiKey::Absent,
            (true, Some(key), Some(keys)) => {
                let (key, keys) = (&systems.kubernetes.secrets[key], &systems.kubernetes.secrets[keys]);
                let current = systems.postgres.is_current(&id.hex(), &uid, key.serial, keys.pepper);
                if current { StoredApiKey::Current } else { StoredApiKey::Stale }
            }
            _ => StoredApiKey::Stale,
        };
        world.ended_keys = own.into_iter().filter(|secret| self.is_late && Some(secret) != newest_key.as_ref()).collect();
        world
    }

    /// The namespace of the hub that serves a namespace of Agents.
    pub(crate) fn owner(&self, space: &str) -> Option<String> {
        let tenancy = self.documents.tenancy(space);
        Some(format!("acbhub-{}", tenancy.tenant_of(space)?.metadata.name.as_deref()?))
    }

    /// What belongs to no Tenant.
    pub(crate) fn orphans(&self) -> Vec<String> {
        let systems = &self.systems;
        let mut inventory = Inventory { objects: systems.kubernetes.objects.clone(), ..Inventory::default() };
        let ids = |id: &String| TenantId::from_hex(id).unwrap();
        let mut postgres = PostgresInventory::default();
        for (id, rows) in &systems.postgres.tenants {
            postgres.logins.extend(rows.observed.login.map(|login| (ids(id), login.enabled)));
            postgres.rows.extend(rows.observed.tenant.as_ref().map(|row| (ids(id), row.name.clone())));
        }
        inventory.postgres = Some(postgres);
        if let Some(kafka) = &systems.kafka {
            let users: BTreeSet<TenantId> =
                kafka.users.keys().filter_map(|user| TenantId::from_hex(user.trim_start_matches("acb_t_"))).collect();
            // Of each tenant its name.
            let names = kafka.topics.keys().filter_map(|topic| topic.split('.').nth(1)).map(str::to_owned).collect();
            inventory.kafka = Some(KafkaInventory { granted: users.clone(), users, topics: names });
        }
        orphans(&self.documents.tenancy(""), &inventory).iter().map(ToString::to_string).collect()
    }

    /// Everything that is there, without what depends on when it was made and how often it was made anew.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, String> {
        let (systems, mut all) = (&self.systems, BTreeMap::new());
        let mut put = |what: String, value: &Value| {
            let mut text = value.to_string();
            for secret in systems.kubernetes.secrets.keys() {
                text = text.replace(&format!("\"{}\"", secret.object_name()), &format!("\"{}\"", secret.name));
            }
            all.insert(self.documents.neutral(&what), self.documents.neutral(&text));
        };
        for (key, object) in &systems.kubernetes.objects {
            let mut object = object.clone();
            strip(&mut object);
            let is_scaled = || {
                systems
                    .kubernetes
                    .objects
                    .keys()
                    .any(|other| other.kind == "HorizontalPodAutoscaler" && other.namespace == key.namespace)
            };
            if key.kind == "Deployment" && is_scaled() {
                // The autoscaler's alone.
                object["spec"]["replicas"] = json!("scaled");
            }
            put(key.to_string(), &object);
        }
        let mut secrets: BTreeMap<String, usize> = BTreeMap::new();
        for secret in systems.kubernetes.secrets.keys() {
            *secrets.entry(format!("Secret {}/{}", secret.namespace, secret.name)).or_default() += 1;
        }
        secrets.into_iter().for_each(|(secret, count)| put(secret, &json!(count)));
        for (id, rows) in &systems.postgres.tenants {
            let seen = &rows.observed;
            put(format!("row {id}"), &json!(seen.tenant));
            put(format!("login {id}"), &json!(seen.login.map(|login| (login.enabled, login.connection_limit))));
            put(format!("retired {id}"), &json!(seen.retired.keys().collect::<Vec<_>>()));
            seen.agents.iter().for_each(|(agent, row)| put(format!("agent {agent}"), &json!(row)));
            seen.api_keys.iter().for_each(|(agent, keys)| put(format!("keys {agent}"), &json!(keys.len())));
            seen.topics.iter().for_each(|(topic, spec)| put(format!("topic {topic}"), &json!(spec)));
        }
        if let Some(kafka) = &systems.kafka {
            kafka.topics.iter().for_each(|(topic, spec)| put(format!("topic {topic}"), &json!(spec)));
            kafka.users.iter().for_each(|(user, found)| put(format!("user {user}"), &json!([found.prefixes, found.quota])));
        }
        all
    }
}

/// Takes out digests and versions.
fn strip(object: &mut Value) {
    const DIGESTS: [&str; 6] =
        ["acb.dev/applied", "acb.dev/tls-for", "acb.dev/made-from", "acb.dev/pods", "acb.dev/rolled-by", "acb.dev/config"];
    match object {
        Value::Object(fields) => {
            fields.remove("resourceVersion");
            fields.retain(|name, _| !DIGESTS.contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => {
            // Where the password before is, from the second one on.
            items.retain(|item| !item["name"].as_str().is_some_and(|name| name.ends_with("-previous")));
            items.iter_mut().for_each(strip);
        }
        _ => {}
    }
}
