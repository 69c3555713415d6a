//! Reads the world of a Tenant. The only reads before a decision about it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
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
};
use crate::{
    effect::{
        EffectError,
        kafka::KafkaEffect,
        kafka_settings::OPEN_BY_DEFAULT,
        kubernetes::{ObjectKey, Objects, SecretDetails},
        postgres::failed,
        postgres_observe::{self, LoginState},
        secret,
    },
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

/// Reads everything that a decision about this Tenant looks at. `kafka` is there where the log is.
///
/// # Errors
/// What could not be read.
pub async fn fetch(
    tenant: &Tenant,
    tenancy: Tenancy,
    objects: &dyn Objects,
    postgres: &PostgresReader,
    kafka: Option<&KafkaEffect>,
    platform: &Platform,
) -> Result<World, EffectError> {
    let mut world = World { tenancy, ..World::default() };
    // One whose names don't parse is refused whatever the world is like.
    let Ok(name) = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()) else { return Ok(world) };
    let identity = identify(tenant, &world.tenancy, objects, &postgres.pool).await?;
    let id = identity.id;
    world.identity = Some(identity);
    let space = tenancy::namespace(tenant).unwrap_or_default();
    for namespace in ["", &space, &name.hub_namespace(), &platform.operator_namespace] {
        let found: BTreeMap<ObjectKey, Value> = match objects.list(namespace).await {
            Err(EffectError::Closed { namespace, .. }) => {
                world.closed.insert(namespace);
                continue;
            }
            found => found?,
        };
        let secrets = found.iter().filter_map(|(key, found)| Some((key.secret_ref()?, SecretDetails::of(found))));
        world.details.extend(secrets);
        world.secrets.extend(found.keys().filter_map(ObjectKey::secret_ref));
        world.outdated.extend(found.iter().filter(|(_, found)| is_old_leaf(found)).filter_map(|(key, _)| key.secret_ref()));
        world.objects.extend(found.into_iter().filter(|(key, _)| key.kind != "Secret"));
    }
    world.postgres = postgres_observe::observe_tenant(&postgres.pool, &id.hex()).await?;
    let secret = newest(&world.secrets, &name.hub_namespace(), objects::HUB_POSTGRES);
    // Without a Secret nobody can log in.
    if world.secrets.contains(&secret) && world.postgres.login.is_some() {
        let gate = Gate::Postgres(&postgres.tenants);
        let tried = try_secrets(&mut world, &secret, id, objects, platform.postgres_authorities.as_deref(), &gate).await?;
        (world.login, world.previous_login) = tried
            .ok_or_else(|| EffectError::unavailable("PostgreSQL", format!("logging in as tenant {name} was not answered")))?;
    }
    world.retained = retained(&postgres.pool, &name, id).await?;
    if let Some(kafka) = kafka {
        fetch_kafka(&mut world, &name, id, objects, kafka, platform).await?;
    }
    Ok(world)
}

/// Whose data a Tenant has. PostgreSQL is asked only where that is not its own.
///
/// # Errors
/// What could not be read.
pub async fn identify(tenant: &Tenant, tenancy: &Tenancy, objects: &dyn Objects, pool: &Pool) -> Result<Identity, EffectError> {
    let space = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).map(|name| name.hub_namespace());
    let namespace = objects.get(&ObjectKey::new("v1", "Namespace", "", &space.unwrap_or_default())).await?;
    let wanted = adoption::wanted(tenant, namespace.as_ref());
    let rows_of: Option<String> = match wanted.as_deref().and_then(TenantId::from_hex) {
        None => None,
        Some(id) => sqlx::query_scalar("SELECT name FROM acb.tenant WHERE tenant_id = $1")
            .bind(&id.bytes()[..])
            .fetch_optional(pool)
            .await
            .map_err(|error| failed(&format!("looking for the data of id {id}"), &error))?,
    };
    Ok(adoption::identity(tenant, wanted.as_deref(), &tenancy.tenants, rows_of.as_deref()))
}

/// A hub's certificate that will not last much longer.
fn is_old_leaf(secret: &Value) -> bool {
    let text = |pointer: &str| secret.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let is_leaf = text("/kind") == "Secret" && text("/metadata/name").starts_with(&format!("{}-", objects::HUB_TLS));
    is_leaf && secret::is_leaf_old(text("/metadata/creationTimestamp"), OffsetDateTime::now_utc())
}

/// Where a tenant logs in.
enum Gate<'a> {
    Postgres(&'a PgConnectOptions),
    /// And whether it let the tenant in where no ACL does.
    Kafka(&'a KafkaEffect, &'a AtomicBool),
}

impl Gate<'_> {
    async fn login(&self, user: &str, password: &str) -> LoginState {
        match self {
            Self::Postgres(server) => {
                postgres_observe::login_state(&PgConnectOptions::clone(server).username(user).password(password)).await
            }
            Self::Kafka(brokers, is_open) => {
                let (state, open) = brokers.try_login(user, password).await;
                is_open.fetch_or(open, Ordering::Relaxed);
                state
            }
        }
    }
}

/// Logs in with the newest Secret, and where that is refused with the one before; `None`: not answered. A Secret with other authorities
/// than the server's of now is outdated, whatever its password.
async fn try_secrets(
    world: &mut World,
    secret: &SecretRef,
    id: TenantId,
    objects: &dyn Objects,
    authorities: Option<&str>,
    gate: &Gate<'_>,
) -> Result<Option<(LoginState, LoginState)>, EffectError> {
    let data = objects.read(secret).await?;
    if data.get("ca.crt") != authorities.map(str::as_bytes) {
        world.outdated.insert(secret.clone());
    }
    let user = id.login();
    let newest = gate.login(&user, data.text(secret, "password")?).await;
    let mut previous = LoginState::Refused;
    if let Some(before) = secret.before().filter(|before| newest == LoginState::Refused && world.secrets.contains(before)) {
        previous = gate.login(&user, objects.read(&before).await?.text(&before, "password")?).await;
    }
    let answered = ![newest, previous].contains(&LoginState::Unknown);
    Ok(answered.then_some((newest, previous)))
}

async fn fetch_kafka(
    world: &mut World,
    name: &TenantName,
    id: TenantId,
    objects: &dyn Objects,
    kafka: &KafkaEffect,
    platform: &Platform,
) -> Result<(), EffectError> {
    let mut observed = kafka.observe(&id.login(), &name.topic_prefix()).await?;
    let secret = newest(&world.secrets, &name.hub_namespace(), objects::HUB_KAFKA);
    if world.secrets.contains(&secret) && observed.has_user {
        let is_open = AtomicBool::new(false);
        let gate = Gate::Kafka(kafka, &is_open);
        let tried = try_secrets(world, &secret, id, objects, platform.kafka_authorities.as_deref(), &gate).await?;
        (observed.user, observed.previous) =
            tried.ok_or_else(|| EffectError::unavailable("Kafka", format!("logging in as tenant {name} was not answered")))?;
        if is_open.into_inner() {
            observed.risks.push(OPEN_BY_DEFAULT.to_owned());
        }
    }
    // A tenant's row comes before its topics, and goes after them: topics without one are an earlier tenant's, unless it was asked for them.
    let adopted = world.identity.as_ref().is_some_and(|identity| identity.adopted);
    if world.retained.is_none() && world.postgres.tenant.is_none() && !observed.topics.is_empty() && !adopted {
        let place = format!("Kafka topics {}*", name.topic_prefix());
        world.retained = Some(RetainedData { tenant_id: "unknown".to_owned(), place });
    }
    world.kafka = Some(observed);
    Ok(())
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
