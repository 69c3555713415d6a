//! Reads the world of a Tenant. The only reads before a decision about it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use acb_crds::{
    Tenant,
    names::{TenantId, TenantName, objects},
};
use acb_hub_pool::{Limits, Pool};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use time::OffsetDateTime;

use super::{
    RetainedData, World,
    adoption::{self, Identity},
    newest,
    proved_logins::{Attempt, ProvedLogins, Store},
};
use crate::{
    effect::{
        EffectError, certificates,
        kafka::{COMMON_ROUNDS, KafkaEffect},
        kafka_settings::OPEN_BY_DEFAULT,
        kubernetes::{AUTHORITY, ObjectKey, Objects, SecretDetails},
        postgres::failed,
        postgres_observe::{self, ObservedTenant},
        secret,
    },
    observed::{LoginState, ObservedKafka},
    plan::SecretRef,
    platform::Platform,
    tenancy::{self, Tenancy},
};

/// How PostgreSQL is read.
#[derive(Clone, Debug)]
pub struct PostgresReader {
    /// Logs in as `acb_operator`.
    pub pool: Pool,
    /// Where tenants log in; their names and passwords are filled in.
    pub tenants: PgConnectOptions,
}

impl PostgresReader {
    /// Connects when it is needed.
    #[must_use]
    pub fn lazy(operator: PgConnectOptions, tenants: PgConnectOptions) -> Self {
        let pool = Pool::new(operator, Limits { connections: 2, ..Limits::default() });
        Self { pool, tenants }
    }
}

/// Where the world is read from; of a system that can't be used now: why.
pub struct Sources<'a> {
    /// The objects of the plan.
    pub objects: &'a dyn Objects,
    /// PostgreSQL.
    pub postgres: Result<&'a PostgresReader, EffectError>,
    /// Kafka, where the log is on it.
    pub kafka: Result<Option<&'a KafkaEffect>, EffectError>,
    /// What runs.
    pub hubs: &'a dyn Hubs,
    /// Logins that need not be tried; `None`: each is tried.
    pub proved: Option<&'a ProvedLogins>,
}

/// Tells what runs.
pub trait Hubs: Send + Sync {
    /// Whether every replica of the hub is of the newest revision of its Deployment as it is now, and ready, and no other is left.
    fn is_rolled_out(&self, tenant: &TenantName) -> bool;
}

/// Reads everything that a decision about this Tenant looks at. A system that is away is said to be, and the others are read.
pub async fn fetch(tenant: &Tenant, tenancy: Tenancy, sources: &Sources<'_>, platform: &Platform) -> World {
    let mut world = World { tenancy, issuer: sources.objects.issuer(), ..World::default() };
    // One whose names don't parse is refused whatever the world is like.
    let Ok(name) = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()) else { return world };
    let pool = sources.postgres.as_ref().map(|postgres| &postgres.pool).map_err(Clone::clone);
    let (identity, away) = identify(tenant, &world.tenancy, sources.objects, pool).await;
    let id = identity.id;
    world.identity = Some(identity);
    world.kubernetes = fetch_objects(&mut world, tenant, (&name, id), sources.objects, platform).await.into();
    // After the objects: what is told of an earlier revision must not be taken for the one that was read.
    world.rolled_out = sources.hubs.is_rolled_out(&name);
    let postgres = match (away, &sources.postgres) {
        (Some(why), _) => Err(why),
        (None, Err(why)) => Err(why.clone()),
        (None, Ok(postgres)) => fetch_postgres(&mut world, tenant, (&name, id), sources, postgres, platform).await,
    };
    world.postgres = postgres.into();
    let kafka = match &sources.kafka {
        Err(why) => Err(why.clone()),
        Ok(None) => Ok(ObservedKafka::default()),
        Ok(Some(kafka)) => fetch_kafka(&mut world, tenant, (&name, id), sources, kafka, platform).await,
    };
    world.kafka = kafka.into();
    world
}

async fn fetch_objects(
    world: &mut World,
    tenant: &Tenant,
    (name, id): (&TenantName, TenantId),
    sources: &dyn Objects,
    platform: &Platform,
) -> Result<(), EffectError> {
    let (space, hub_space) = (tenancy::namespace(tenant).unwrap_or_default(), name.hub_namespace());
    // Of the namespaces only its own two, and of the operator's only its authority: there are as many others as there are tenants.
    for namespace in [&space, &hub_space] {
        let key = ObjectKey::new("v1", "Namespace", "", namespace);
        if let Some(found) = sources.get(&key).await? {
            world.objects.insert(key, found);
        }
    }
    for namespace in [&space, &hub_space, &platform.operator_namespace] {
        let found = if *namespace == platform.operator_namespace {
            let own = id.authority_secret();
            let hub = world.objects.get(&ObjectKey::new("apps/v1", "Deployment", &hub_space, objects::HUB));
            // One that adopted its data may still have the authority that it had before.
            let made_with = hub.and_then(|hub| hub.pointer("/metadata/annotations")?.get(AUTHORITY)?.as_str()?.rsplit_once('-'));
            let names: Vec<&str> = made_with.map(|(name, _)| name).into_iter().chain([own.as_str()]).collect();
            sources.generations(namespace, &names).await
        } else {
            sources.list(namespace).await
        };
        let found: BTreeMap<ObjectKey, Value> = match found {
            Err(EffectError::Closed { namespace, .. }) => {
                world.closed.insert(namespace);
                continue;
            }
            found => found?,
        };
        let secrets = found.iter().filter_map(|(key, found)| Some((key.secret_ref()?, SecretDetails::of(found))));
        world.details.extend(secrets);
        world.secrets.extend(found.keys().filter_map(ObjectKey::secret_ref));
        let leaves = |is_meant: fn(&str, TenantId, OffsetDateTime) -> bool| {
            let meant = found.iter().filter(move |(_, found)| is_leaf(found, id, is_meant));
            meant.filter_map(|(key, _)| key.secret_ref()).collect::<Vec<_>>()
        };
        world.outdated.extend(leaves(secret::is_leaf_old));
        world.overdue.extend(leaves(|made, _, now| secret::is_leaf_overdue(made, now)));
        world.objects.extend(found.into_iter().filter(|(key, _)| key.kind != "Secret"));
    }
    Ok(())
}

async fn fetch_postgres(
    world: &mut World,
    tenant: &Tenant,
    (name, id): (&TenantName, TenantId),
    sources: &Sources<'_>,
    postgres: &PostgresReader,
    platform: &Platform,
) -> Result<ObservedTenant, EffectError> {
    let observed = postgres_observe::observe_tenant(&postgres.pool, &id.hex()).await?;
    let secret = newest(&world.secrets, &name.hub_namespace(), objects::HUB_POSTGRES);
    // Without a Secret nobody can log in; and whether one that goes still can decides nothing.
    if needs_login(world, tenant, &secret) && observed.login.is_some() {
        let gate = Gate { server: Server::Postgres(&postgres.tenants), version: observed.login_version, proved: sources.proved };
        let authorities = platform.postgres_authorities.as_deref();
        (world.login, world.previous_login) = try_secrets(world, &secret, id, sources.objects, authorities, &gate).await;
    }
    world.retained = retained(&postgres.pool, name, id).await?;
    Ok(observed)
}

fn needs_login(world: &World, tenant: &Tenant, secret: &SecretRef) -> bool {
    tenant.metadata.deletion_timestamp.is_none() && world.kubernetes.away().is_none() && world.secrets.contains(secret)
}

/// Whose data a Tenant has, and why that is not known for sure. PostgreSQL is asked only where it is not its own; while it is away, what
/// was granted holds.
pub async fn identify(
    tenant: &Tenant,
    tenancy: &Tenancy,
    objects: &dyn Objects,
    pool: Result<&Pool, EffectError>,
) -> (Identity, Option<EffectError>) {
    let space = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).map(|name| name.hub_namespace());
    let namespace = objects.get(&ObjectKey::new("v1", "Namespace", "", &space.unwrap_or_default())).await;
    let (namespace, mut away) = match namespace {
        Ok(namespace) => (namespace, None),
        Err(why) => (None, Some(why)),
    };
    let recorded = adoption::recorded(tenant, namespace.as_ref());
    let mut wanted = adoption::wanted(tenant, namespace.as_ref());
    let had = recorded.unwrap_or_else(|| adoption::own(tenant));
    let mut rows_of = [None, None];
    if let Some(id) = wanted.as_deref().and_then(TenantId::from_hex) {
        match rows_of_ids(pool, [id, had]).await {
            Ok(found) => rows_of = found,
            Err(why) => {
                wanted = recorded.map(|id| id.hex());
                away = Some(why);
            }
        }
    }
    let [rows_of_wanted, rows_of_had] = rows_of.each_ref().map(Option::as_deref);
    let identity = adoption::identity(tenant, wanted.as_deref(), &tenancy.tenants, rows_of_wanted);
    (identity.or_recorded(recorded).or_provisioned(tenant, recorded, rows_of_had), away)
}

/// The name under which PostgreSQL holds each id.
async fn rows_of_ids(pool: Result<&Pool, EffectError>, ids: [TenantId; 2]) -> Result<[Option<String>; 2], EffectError> {
    let rows: Vec<(Vec<u8>, String)> =
        sqlx::query_as("SELECT tenant_id::bytea, name FROM acb.tenant WHERE tenant_id IN ($1, $2)")
            .bind(&ids[0].bytes()[..])
            .bind(&ids[1].bytes()[..])
            .fetch_all(pool?)
            .await
            .map_err(|error| failed(&format!("looking for the data of ids {} and {}", ids[0], ids[1]), &error))?;
    Ok(ids.map(|id| rows.iter().find(|(found, _)| *found == id.bytes()[..]).map(|(_, name)| name.clone())))
}

/// A hub's certificate whose age is meant.
fn is_leaf(secret: &Value, id: TenantId, is_meant: fn(&str, TenantId, OffsetDateTime) -> bool) -> bool {
    let text = |pointer: &str| secret.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let is_leaf = text("/kind") == "Secret" && text("/metadata/name").starts_with(&format!("{}-", objects::HUB_TLS));
    is_leaf && is_meant(text("/metadata/creationTimestamp"), id, OffsetDateTime::now_utc())
}

/// Where a tenant logs in.
enum Server<'a> {
    Postgres(&'a PgConnectOptions),
    /// And whether it let the tenant in where no ACL does.
    Kafka(&'a KafkaEffect, &'a AtomicBool),
}

/// A tenant's login to a store.
struct Gate<'a> {
    server: Server<'a>,
    /// What the store had of it before.
    version: Option<u64>,
    proved: Option<&'a ProvedLogins>,
}

impl Gate<'_> {
    fn store(&self) -> Store {
        match self.server {
            Server::Postgres(_) => Store::Postgres,
            Server::Kafka(..) => Store::Kafka,
        }
    }

    /// Whether the password is the right one: tried, unless that is known.
    async fn login(&self, user: &str, password: &str) -> LoginState {
        let attempt = Attempt::new(self.store(), user, password, self.version);
        let Some((proved, attempt)) = self.proved.zip(attempt) else { return self.log_in(user, password).await.0 };
        if proved.is_proved(&attempt, Instant::now()) {
            return LoginState::Works;
        }
        let (state, is_open) = self.log_in(user, password).await;
        // Of a store that lets a tenant in to more than its own, everyone tries, until it does no more.
        if is_open {
            proved.forget(attempt.store());
        }
        proved.tried(attempt, state == LoginState::Works && !is_open, Instant::now());
        state
    }

    async fn log_in(&self, user: &str, password: &str) -> (LoginState, bool) {
        match self.server {
            Server::Postgres(server) => {
                (postgres_observe::login_state(&PgConnectOptions::clone(server).username(user).password(password)).await, false)
            }
            Server::Kafka(brokers, is_open) => {
                let (state, open) = brokers.try_login(user, password).await;
                is_open.fetch_or(open, Ordering::Relaxed);
                (state, open)
            }
        }
    }
}

/// Logs in with the newest Secret, and where that is refused with the one before. What is not answered only leaves the password as it is.
async fn try_secrets(
    world: &mut World,
    secret: &SecretRef,
    id: TenantId,
    objects: &dyn Objects,
    authorities: Option<&str>,
    gate: &Gate<'_>,
) -> (LoginState, LoginState) {
    match login_with(world, secret, id, objects, authorities, gate).await {
        Ok(states) if ![states.0, states.1].contains(&LoginState::Unknown) => states,
        Ok(_) => {
            let detail = format!("logging in as {} was not answered", id.login());
            world.unanswered.push(EffectError::unavailable(gate.store().name(), detail));
            (LoginState::Unknown, LoginState::Unknown)
        }
        Err(why) => {
            world.unanswered.push(why);
            (LoginState::Unknown, LoginState::Unknown)
        }
    }
}

/// A Secret with other authorities than the server's of now is outdated, whatever its password.
async fn login_with(
    world: &mut World,
    secret: &SecretRef,
    id: TenantId,
    objects: &dyn Objects,
    authorities: Option<&str>,
    gate: &Gate<'_>,
) -> Result<(LoginState, LoginState), EffectError> {
    let data = objects.read(secret).await?;
    let is_same = match (data.get("ca.crt"), authorities) {
        (Some(known), Some(now)) => certificates::are_same(known, now.as_bytes()),
        (known, now) => known.is_none() && now.is_none(),
    };
    if !is_same {
        world.outdated.insert(secret.clone());
    }
    let user = id.login();
    let newest = gate.login(&user, data.text(secret, "password")?).await;
    let mut previous = LoginState::Refused;
    if let Some(before) = secret.before().filter(|before| newest == LoginState::Refused && world.secrets.contains(before)) {
        previous = gate.login(&user, objects.read(&before).await?.text(&before, "password")?).await;
    }
    Ok((newest, previous))
}

async fn fetch_kafka(
    world: &mut World,
    tenant: &Tenant,
    (name, id): (&TenantName, TenantId),
    sources: &Sources<'_>,
    kafka: &KafkaEffect,
    platform: &Platform,
) -> Result<ObservedKafka, EffectError> {
    let mut observed = kafka.look(&id.login(), &name.topic_prefix()).await?;
    let secret = newest(&world.secrets, &name.hub_namespace(), objects::HUB_KAFKA);
    if needs_login(world, tenant, &secret) && observed.has_user {
        let is_open = AtomicBool::new(false);
        let version = Some(u64::from(observed.credential_rounds)).filter(|rounds| *rounds != u64::from(COMMON_ROUNDS));
        let gate = Gate { server: Server::Kafka(kafka, &is_open), version, proved: sources.proved };
        let authorities = platform.kafka_authorities.as_deref();
        (observed.user, observed.previous) = try_secrets(world, &secret, id, sources.objects, authorities, &gate).await;
        if is_open.into_inner() {
            observed.risks.push(OPEN_BY_DEFAULT.to_owned());
        }
    }
    // A tenant's row comes before its topics, and goes after them: topics without one are an earlier tenant's, unless it was asked for them.
    let adopted = world.identity.as_ref().is_some_and(|identity| identity.adopted);
    let has_no_row = world.postgres.known().is_some_and(|known| known.tenant.is_none());
    if world.retained.is_none() && has_no_row && !observed.topics.is_empty() && !adopted {
        let place = format!("Kafka topics {}*", name.topic_prefix());
        world.retained = Some(RetainedData { tenant_id: "unknown".to_owned(), place });
    }
    Ok(observed)
}

async fn retained(pool: &Pool, name: &TenantName, id: TenantId) -> Result<Option<RetainedData>, EffectError> {
    let other: Option<String> = sqlx::query_scalar(
        "SELECT encode(tenant_id, 'hex') FROM acb.tenant WHERE name = $1 AND encode(tenant_id, 'hex') <> $2 LIMIT 1",
    )
    .bind(name.as_str())
    .bind(id.hex())
    .fetch_optional(pool)
    .await
    .map_err(|error| failed(&format!("looking for data retained of {name}"), &error))?;
    Ok(other.map(|tenant_id| RetainedData { tenant_id, place: "PostgreSQL".to_owned() }))
}
