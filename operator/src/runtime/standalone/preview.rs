//! What would be done for a folder of YAML: the same decisions as when it is applied, with nothing written anywhere.

use std::{path::Path, sync::Arc, time::Duration};

use acb_crds::{
    Agent, Quota,
    schema::{self, Kind, LoadError, ObjectRef, Resource},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use super::{
    objects::ObjectStore,
    resources::{self, Resources},
    run,
    state::{self, StateDir, StateError},
};
use crate::{
    agent, bootstrap,
    condition::Problem,
    effect::{
        EffectError,
        kafka::KafkaEffect,
        kafka_access::{KafkaAccess, KafkaOptions},
    },
    plan::Plan,
    platform::{Platform, PlatformBus, PlatformPostgres},
    quota,
    tenancy::{self, Tenancy},
    tenant::{self, fetch::PostgresReader},
};

/// What would be done.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// Whether the world was read; else the plans start from nothing.
    pub live: bool,
    /// For each object in the folder: the steps, or what is wrong with it.
    pub objects: Vec<(ObjectRef, Result<Plan, Vec<Problem>>)>,
    /// Objects that are no longer in the folder.
    pub removed: Vec<ObjectRef>,
    /// Documents that their schema refuses.
    pub refused: Vec<LoadError>,
}

/// Why there is no preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The folder, or the state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// The world could not be read.
    #[error(transparent)]
    World(#[from] EffectError),
}

/// Plans for a folder, against a state folder where `acb dev` runs from one, else against nothing.
pub async fn preview(folder: &Path, state: Option<&StateDir>) -> Result<Preview, PreviewError> {
    let loaded = schema::collect(&Resources::read_files(folder)?);
    let store = state.map(ObjectStore::open).transpose()?.map(Arc::new);
    let reader = match state {
        Some(state) if state.holder().is_some() => connect(state).await?,
        _ => None,
    };
    let (live, platform, reader, kafka) = match reader {
        Some((reader, platform, kafka)) => (true, platform, Some(reader), kafka),
        None => (false, Platform::new(nowhere()), None, None),
    };
    let mut preview = Preview { live, refused: loaded.errors, ..Preview::default() };
    let (mut tenants, mut agents, mut quotas) = (Vec::new(), Vec::new(), Vec::new());
    for (_, resource) in loaded.resources {
        let object = resource.object();
        match resource {
            Resource::Tenant(mut tenant) => {
                identify(&mut tenant.metadata, &object, store.as_deref())?;
                tenants.push(*tenant);
            }
            Resource::Agent(mut agent) => {
                identify(&mut agent.metadata, &object, store.as_deref())?;
                agents.push(*agent);
            }
            Resource::Quota(mut quota) => {
                identify(&mut quota.metadata, &object, store.as_deref())?;
                quotas.push(*quota);
            }
        }
    }
    let tenancy_of = |namespace: &str| Tenancy {
        tenants: tenants.clone(),
        agents: agents.iter().filter(|agent: &&Agent| agent.metadata.namespace.as_deref() == Some(namespace)).cloned().collect(),
        quotas: quotas.iter().filter(|quota: &&Quota| quota.metadata.namespace.as_deref() == Some(namespace)).cloned().collect(),
    };
    for tenant in &tenants {
        let tenancy = tenancy_of(&tenancy::namespace(tenant).unwrap_or_default());
        let world = match (&reader, &store) {
            (Some(reader), Some(store)) => {
                tenant::fetch::fetch(tenant, tenancy, store.as_ref(), reader, kafka.as_ref(), &platform).await?
            }
            _ => tenant::World { tenancy, ..tenant::World::default() },
        };
        let plan = tenant::validate::validate(tenant, &world, &platform)
            .map(|validated| tenant::plan::plan(&validated, &world, &platform));
        preview.objects.push((of(Kind::Tenant, &tenant.metadata), plan));
    }
    for quota in &quotas {
        let tenancy = tenancy_of(quota.metadata.namespace.as_deref().unwrap_or_default());
        let plan = quota::validate::validate(quota, &tenancy, &platform).map(|_| Plan::default());
        preview.objects.push((of(Kind::Quota, &quota.metadata), plan));
    }
    for agent in &agents {
        let namespace = agent.metadata.namespace.clone().unwrap_or_default();
        let tenancy = tenancy_of(&namespace);
        let world = match (&reader, &store) {
            (Some(reader), Some(store)) => {
                let shared = agent::fetch::fetch_shared(&namespace, tenancy, store.as_ref(), &reader.pool).await?;
                agent::fetch::fetch(agent, &shared, store.as_ref()).await?
            }
            _ => agent::World { tenancy, ..agent::World::default() },
        };
        let plan = agent::validate::validate(agent, &world, &platform).map(|validated| agent::plan::plan(&validated, &world));
        preview.objects.push((of(Kind::Agent, &agent.metadata), plan));
    }
    if let Some(store) = store {
        let stored = Resources::new(folder, store).stored()?;
        let here = |object: &ObjectRef| {
            preview.objects.iter().any(|(known, _)| known == object)
                || preview.refused.iter().any(|refused| refused.object.as_ref() == Some(object))
        };
        let gone: Vec<ObjectRef> = stored.into_iter().map(|(object, _)| object).filter(|object| !here(object)).collect();
        preview.removed = gone;
    }
    Ok(preview)
}

async fn connect(state: &StateDir) -> Result<Option<(PostgresReader, Platform, Option<KafkaEffect>)>, PreviewError> {
    let known: Option<(PlatformPostgres, PlatformBus)> = state::read_json(&state.root().join(run::PLATFORM))?;
    let password: Option<String> = state::read_json(&state.root().join("operator.json"))?;
    let (Some((known, bus)), Some(password)) = (known, password) else { return Ok(None) };
    let tenants = PgConnectOptions::new_without_pgpass().host(&known.host).port(known.port).database(&known.database);
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(tenants.clone().username(bootstrap::OPERATOR).password(&password))
        .await
        .map_err(|error| EffectError::unavailable(format!("PostgreSQL at {}:{}", known.host, known.port), error))?;
    let options: Option<KafkaOptions> = state::read_json(&state.root().join(run::KAFKA))?;
    let access = options.filter(|_| bus != PlatformBus::Postgres).map(KafkaAccess::new).transpose().map_err(EffectError::from)?;
    let kafka = access.as_ref().map(KafkaAccess::effect).transpose().map_err(EffectError::from)?;
    let kafka_authorities = access.and_then(|access| access.authorities().map(str::to_owned));
    Ok(Some((PostgresReader { pool, tenants }, Platform { bus, kafka_authorities, ..Platform::new(known) }, kafka)))
}

fn nowhere() -> PlatformPostgres {
    PlatformPostgres { host: "127.0.0.1".into(), port: 5432, database: bootstrap::DATABASE.into(), ssl_mode: "prefer".into() }
}

fn of(kind: Kind, metadata: &ObjectMeta) -> ObjectRef {
    let namespace = metadata.namespace.clone().filter(|_| kind != Kind::Tenant).unwrap_or_default();
    ObjectRef { kind, namespace, name: metadata.name.clone().unwrap_or_default() }
}

/// The identity that the object has, or would get.
fn identify(metadata: &mut ObjectMeta, object: &ObjectRef, store: Option<&ObjectStore>) -> Result<(), StateError> {
    let stored = store.map(|store| store.read_object(&resources::key(object))).transpose()?.flatten();
    let stored = stored.and_then(|stored| serde_json::from_value::<ObjectMeta>(stored.get("metadata")?.clone()).ok());
    match stored {
        Some(stored) => {
            metadata.uid = stored.uid;
            metadata.generation = stored.generation;
            metadata.creation_timestamp = stored.creation_timestamp;
        }
        None => metadata.uid = Some(Uuid::new_v4().to_string()),
    }
    Ok(())
}
