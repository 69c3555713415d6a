//! What the operator sees before it decides: the order of `operator/src/tenant/fetch.rs` and `operator/src/agent/fetch.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use acb_crds::{
    Agent, Tenant,
    names::{AgentName, TenantName, objects},
};
use acb_operator::{
    agent::{self, StoredApiKey},
    effect::kubernetes::ObjectKey,
    observed::{LoginState, ObservedKafka},
    plan::SecretRef,
    tenancy::{self, Census, Tenancy},
    tenant::{Read, RetainedData, World, adoption, newest},
};

use serde_json::Value;

use crate::{
    kubernetes::{self, hub},
    operator::{OPERATOR_NAMESPACE, Operator},
    systems::System,
};

impl Operator {
    /// Whose data a Tenant has: the order of `identify` in `operator/src/tenant/fetch.rs`.
    pub(crate) fn identity(&self, tenant: &Tenant, tenancy: &Tenancy) -> adoption::Identity {
        let (systems, name) = (&self.systems, tenant.metadata.name.as_deref().unwrap_or_default());
        // It comes from the cache, also while the API server is away.
        let objects = self.objects_seen();
        let space = objects.get(&kubernetes::namespace(&format!("acbhub-{name}")));
        let recorded = adoption::recorded(tenant, space);
        let (mut wanted, mut rows_of) = (adoption::wanted(tenant, space), [None, None]);
        if systems.is_unread(System::Postgres) {
            wanted = recorded.map(|id| id.hex());
        } else if let Some(id) = &wanted {
            let had = recorded.unwrap_or_else(|| adoption::own(tenant)).hex();
            rows_of = [id, &had].map(|id| systems.postgres.observe(id).tenant.map(|row| row.name));
        }
        let [rows_of_wanted, rows_of_had] = rows_of.each_ref().map(Option::as_deref);
        let identity = adoption::identity(tenant, wanted.as_deref(), &tenancy.tenants, rows_of_wanted);
        identity.or_recorded(recorded).or_provisioned(tenant, recorded, rows_of_had)
    }

    pub(crate) fn world(&self, tenant: &Tenant, tenancy: &Tenancy) -> World {
        let mut world = World { tenancy: tenancy.clone(), issuer: Some(self.issuer.clone()), ..World::default() };
        let Ok(name) = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()) else { return world };
        world.identity = Some(self.identity(tenant, tenancy));
        let (id, systems) = (world.identity(tenant).id, &self.systems);
        let space = tenancy::namespace(tenant).unwrap_or_default();
        let spaces = ["", &space, &name.hub_namespace(), OPERATOR_NAMESPACE];
        let objects = self.objects_seen();
        world.rolled_out = is_rolled_out(&objects, &name.hub_namespace());
        let mut spaces = spaces.to_vec();
        if systems.is_unread(System::Kubernetes) {
            world.kubernetes = Read::Away(System::Kubernetes.away());
            // It stopped somewhere on the way.
            spaces.truncate(1 + systems.steps % 3);
        }
        let objects = objects.iter().filter(|(key, _)| spaces.contains(&key.namespace.as_str()));
        world.objects = objects.map(|(key, object)| (key.clone(), object.clone())).collect();
        world.details = systems.kubernetes.details();
        world.details.retain(|secret, _| spaces.contains(&secret.namespace.as_str()));
        world.secrets = world.details.keys().cloned().collect();
        let is_asked = tenant.metadata.deletion_timestamp.is_none() && world.kubernetes.away().is_none();
        let secret = |secrets: &BTreeSet<SecretRef>, of: &str| newest(secrets, &name.hub_namespace(), of);
        if systems.is_unread(System::Postgres) {
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
            Some(_) if systems.is_unread(System::Kafka) => Read::Away(System::Kafka.away()),
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

    /// What is known of an Agent before something is taken away from it: the order of `fetch_row`.
    pub(crate) fn agent_row_world(&self, agent: &Agent, census: &Arc<Census>) -> agent::World {
        let space = agent.metadata.namespace.clone().unwrap_or_default();
        let mut world = agent::World { census: Arc::clone(census), ..agent::World::default() };
        let mut uid = agent.metadata.uid.clone().unwrap_or_default();
        world.id = Some(uid.clone());
        let Some(owner) = census.owner(&space) else { return world };
        let identity = self.identity(&owner.tenant, census.tenancy());
        world.tenant_id = Some(identity.id);
        let observed = self.systems.postgres.observe(&identity.id.hex());
        if identity.adopted {
            let uids = census.tenancy().agents.iter().filter_map(|agent| agent.metadata.uid.as_deref());
            let ids = adoption::AgentIds::new(uids, &observed.agents);
            uid = ids.of(&uid, agent.metadata.name.as_deref().unwrap_or_default());
            world.id = Some(uid.clone());
        }
        world.tenant_projected = observed.tenant.is_some();
        world.has_issuer = observed.tenant.as_ref().is_some_and(|tenant| tenant.issuer.is_some());
        world.row = observed.agents.get(&uid).cloned();
        world.has_replaced_key = observed.replaced_keys.contains(&uid);
        let named = agent.spec.credentials.as_ref().and_then(|credentials| credentials.service_account.as_ref());
        let documents = self.documents_seen();
        world.account_uid = named.and_then(|named| documents.account(&space, &named.name)).map(str::to_owned);
        world
    }

    pub(crate) fn agent_world(&self, agent: &Agent, census: &Arc<Census>) -> agent::World {
        let space = agent.metadata.namespace.clone().unwrap_or_default();
        let mut world = self.agent_row_world(agent, census);
        let Some(owner) = census.owner(&space) else { return world };
        let Ok(tenant) = TenantName::parse(owner.tenant.metadata.name.as_deref().unwrap_or_default()) else { return world };
        let (Some(id), Some(uid)) = (world.tenant_id, world.id.clone()) else { return world };
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
}

/// As the status of its Deployment says.
fn is_rolled_out(objects: &BTreeMap<ObjectKey, Value>, namespace: &str) -> bool {
    objects.get(&hub(namespace)).is_some_and(|found| found["status"]["rolled"] == true)
}
