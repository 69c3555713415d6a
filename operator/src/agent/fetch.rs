//! Reads the world of an Agent. What belongs to its whole tenancy is read once, for all of its Agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use acb_crds::{
    Agent,
    names::{AgentName, TenantId, TenantName, objects},
};
use acb_hub_pool::Pool;
use time::OffsetDateTime;

use super::{StoredApiKey, World, rotation, service_account::Holders};
use crate::{
    effect::{
        EffectError,
        kubernetes::{ObjectKey, Objects, SecretDetails},
        postgres,
        postgres_observe::{self, ObservedTenant},
        seal,
    },
    plan::SecretRef,
    tenancy::Census,
    tenant::{adoption::AgentIds, fetch::identify, newest},
};

/// What the Agents of a namespace have in common.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    census: Arc<Census>,
    tenant: Option<(TenantName, TenantId)>,
    /// Whether its tenant has adopted an earlier one's data.
    adopted: bool,
    secrets: BTreeSet<SecretRef>,
    details: BTreeMap<SecretRef, SecretDetails>,
    /// With the tenant's authority, which seals the keys.
    authorities: BTreeSet<SecretRef>,
    observed: ObservedTenant,
    /// By which ids its Agents are known, where its tenant has adopted an earlier one's data.
    ids: Option<AgentIds>,
    /// Which accounts the Agents have that this version can't read.
    holders: Holders,
}

impl Shared {
    /// The same, for decisions by a later count of what is there.
    #[must_use]
    pub fn with_census(mut self, census: Arc<Census>) -> Self {
        self.census = census;
        self.index();
        self
    }

    /// Works out once what would take a look at all Agents for each of them.
    fn index(&mut self) {
        let (tenancy, rows) = (self.census.tenancy(), &self.observed.agents);
        let uids = tenancy.agents.iter().filter_map(|agent| agent.metadata.uid.as_deref());
        (self.ids, self.holders) = (self.adopted.then(|| AgentIds::new(uids, rows)), Holders::of(tenancy, rows));
    }

    /// The id of the tenant that the namespace belongs to.
    #[must_use]
    pub fn tenant_id(&self) -> Option<TenantId> {
        self.tenant.as_ref().map(|(_, id)| *id)
    }
}

/// Reads what the Agents of a namespace have in common.
///
/// # Errors
/// What could not be read.
pub async fn fetch_shared(
    namespace: &str,
    census: Arc<Census>,
    objects: &dyn Objects,
    pool: &Pool,
) -> Result<Shared, EffectError> {
    let named = census.owner(namespace).and_then(|owner| {
        let name = TenantName::parse(owner.tenant.metadata.name.as_deref()?).ok()?;
        Some((owner.tenant.clone(), name))
    });
    let mut shared = Shared { census, ..Shared::default() };
    if let Some((tenant, name)) = named {
        let (identity, away) = identify(&tenant, shared.census.tenancy(), objects, Ok(pool)).await;
        if let Some(why) = away {
            return Err(why);
        }
        (shared.tenant, shared.adopted) = (Some((name, identity.id)), identity.adopted);
    }
    let Some((name, id)) = &shared.tenant else { return Ok(shared) };
    for namespace in [namespace, &name.hub_namespace()] {
        let found = objects.list(namespace).await?;
        shared.details.extend(found.iter().filter_map(|(key, found)| Some((key.secret_ref()?, SecretDetails::of(found)))));
        shared.secrets.extend(found.keys().filter_map(ObjectKey::secret_ref));
    }
    let found = objects.generations(shared.census.operator_namespace(), &[&id.authority_secret()]).await?;
    shared.authorities = found.keys().filter_map(ObjectKey::secret_ref).collect();
    shared.observed = postgres_observe::observe_tenant(pool, &id.hex()).await?;
    shared.index();
    Ok(shared)
}

/// Reads what is to be known of an Agent before something is taken away from it: no Secret.
///
/// # Errors
/// What could not be read.
pub async fn fetch_row(agent: &Agent, shared: &Shared, objects: &dyn Objects) -> Result<World, EffectError> {
    let mut uid = agent.metadata.uid.clone().unwrap_or_default();
    if let Some(ids) = &shared.ids {
        uid = ids.of(&uid, agent.metadata.name.as_deref().unwrap_or_default());
    }
    Ok(World {
        census: Arc::clone(&shared.census),
        tenant_id: shared.tenant_id(),
        tenant_projected: shared.observed.tenant.is_some(),
        has_issuer: shared.observed.tenant.as_ref().is_some_and(|tenant| tenant.issuer.is_some()),
        account_uid: account_uid(agent, shared, objects).await?,
        account_holder: shared.holders.other_than(agent, &uid),
        row: shared.observed.agents.get(&uid).cloned(),
        has_replaced_key: shared.observed.replaced_keys.contains(&uid),
        id: Some(uid),
        ..World::default()
    })
}

/// Reads what is this Agent's own.
///
/// # Errors
/// What could not be read.
pub async fn fetch(agent: &Agent, shared: &Shared, objects: &dyn Objects) -> Result<World, EffectError> {
    let mut world = fetch_row(agent, shared, objects).await?;
    let uid = world.id.clone().unwrap_or_default();
    let (own, now) = (sealed(key_secrets(agent, shared), shared, objects).await?, OffsetDateTime::now_utc());
    world.secrets = own.iter().cloned().chain(hub_keys(shared)).chain(shared.authorities.iter().cloned()).collect();
    world.api_key = stored_key(agent, &uid, shared, &world.secrets, objects).await?;
    for (secret, details) in own.iter().filter_map(|secret| Some((secret, shared.details.get(secret)?))) {
        world.made.insert(secret.clone(), details.made.clone());
        world.asked.extend(details.asked.clone().map(|asked| (secret.clone(), asked)));
    }
    if let Some((newest, made)) = own.last().and_then(|newest| Some((newest.clone(), world.made.get(newest)?.clone()))) {
        world.is_key_old = rotation::is_old(agent, &made, now);
        let ended = rotation::has_overlap_ended(agent, &made, now);
        world.ended_keys = own.into_iter().filter(|secret| ended && *secret != newest).collect();
    }
    Ok(world)
}

/// The UID of the ServiceAccount that an agent names, of its own namespace.
async fn account_uid(agent: &Agent, shared: &Shared, objects: &dyn Objects) -> Result<Option<String>, EffectError> {
    let named = agent.spec.credentials.as_ref().and_then(|credentials| credentials.service_account.as_ref());
    let Some(account) = named.filter(|_| shared.census.has_service_accounts()) else { return Ok(None) };
    let namespace = agent.metadata.namespace.as_deref().unwrap_or_default();
    let found = objects.get(&ObjectKey::new("v1", "ServiceAccount", namespace, &account.name)).await?;
    let text = |pointer: &str| found.as_ref()?.pointer(pointer)?.as_str();
    // One that is on its way out proves nobody any more.
    Ok(text("/metadata/uid").filter(|_| text("/metadata/deletionTimestamp").is_none()).map(str::to_owned))
}

/// The Secrets with keys of an agent, the newest last.
fn key_secrets(agent: &Agent, shared: &Shared) -> Vec<SecretRef> {
    let Ok(name) = AgentName::parse(agent.metadata.name.as_deref().unwrap_or_default()) else { return Vec::new() };
    let (namespace, name) = (agent.metadata.namespace.as_deref().unwrap_or_default(), name.api_key_secret());
    generations(&shared.secrets, namespace, &name)
}

/// Those that the operator made. Others are as if they were not there: where one is in the way, the effect says so by name.
async fn sealed(secrets: Vec<SecretRef>, shared: &Shared, objects: &dyn Objects) -> Result<Vec<SecretRef>, EffectError> {
    let Some((_, id)) = &shared.tenant else { return Ok(Vec::new()) };
    let authority = newest(&shared.authorities, shared.census.operator_namespace(), &id.authority_secret());
    let mut own = Vec::new();
    for secret in secrets.into_iter().filter(|_| shared.authorities.contains(&authority)) {
        let checked = match objects.read(&secret).await {
            Ok(data) => seal::check(&secret, &data, &authority, objects).await,
            Err(error) => Err(error),
        };
        match checked {
            Ok(()) => own.push(secret),
            Err(EffectError::ForeignSecret(_) | EffectError::BadSecret { .. } | EffectError::MissingSecret(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(own)
}

/// The Secrets with the hub keys of its tenant.
fn hub_keys(shared: &Shared) -> Vec<SecretRef> {
    let tenant = shared.tenant.as_ref();
    tenant.map(|(tenant, _)| generations(&shared.secrets, &tenant.hub_namespace(), objects::HUB_KEYS)).unwrap_or_default()
}

/// The Secrets of a name, the newest last. There are many others.
fn generations(secrets: &BTreeSet<SecretRef>, namespace: &str, name: &str) -> Vec<SecretRef> {
    let of = |generation| SecretRef { namespace: namespace.to_owned(), name: name.to_owned(), generation };
    secrets.range(of(0)..=of(u64::MAX)).cloned().collect()
}

async fn stored_key(
    agent: &Agent,
    uid: &str,
    shared: &Shared,
    secrets: &BTreeSet<SecretRef>,
    objects: &dyn Objects,
) -> Result<StoredApiKey, EffectError> {
    let stored = shared.observed.api_keys.get(uid).map_or(&[][..], Vec::as_slice);
    let (false, Some((tenant, _))) = (stored.is_empty(), &shared.tenant) else { return Ok(StoredApiKey::Absent) };
    let Ok(name) = AgentName::parse(agent.metadata.name.as_deref().unwrap_or_default()) else { return Ok(StoredApiKey::Stale) };
    let namespace = agent.metadata.namespace.clone().unwrap_or_default();
    let secret = newest(secrets, &namespace, &name.api_key_secret());
    let keys = newest(secrets, &tenant.hub_namespace(), objects::HUB_KEYS);
    if !secrets.contains(&secret) || !secrets.contains(&keys) {
        return Ok(StoredApiKey::Stale);
    }
    let (key, pepper) = (objects.read(&secret).await?, objects.read(&keys).await?);
    let wanted = postgres::stored_key(pepper.bytes(&keys, "pepper")?, key.text(&secret, "api-key")?);
    let current = wanted.is_some_and(|wanted| stored == [wanted]);
    Ok(if current { StoredApiKey::Current } else { StoredApiKey::Stale })
}
