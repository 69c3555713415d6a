//! What would be done for a folder of YAML, against a state folder where `acb dev` runs from one.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use acb_crds::{
    document::Loaded,
    names::TenantName,
    schema::{ObjectRef, Resource},
};
use acb_hub_pool::{Limits, Pool};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sqlx::postgres::PgConnectOptions;
use uuid::Uuid;

use super::{
    deployments::{self, Running},
    objects::ObjectStore,
    reconcile, resources, run,
    state::{self, StateDir, StateError},
};
use crate::{
    bootstrap,
    effect::{
        EffectError,
        kafka::KafkaEffect,
        kafka_access::{KafkaAccess, KafkaOptions},
    },
    platform::{Platform, PlatformBus, PlatformPostgres},
    preview::{Against, Found, Planned, Report, tenancy::decide},
    tenancy::{self, Tenancy, Tenants},
    tenant::fetch::{Hubs, PostgresReader, Sources},
};

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

/// What `acb dev` wrote down of what runs.
struct Written {
    store: Option<Arc<ObjectStore>>,
    running: Running,
}

impl Hubs for Written {
    fn is_rolled_out(&self, tenant: &TenantName) -> bool {
        self.store.as_ref().is_some_and(|store| reconcile::is_rolled_out(store, &self.running, tenant))
    }
}

/// Plans for what a folder holds, against a state folder where `acb dev` runs from one, else against nothing.
pub async fn preview(loaded: Loaded, state: Option<&StateDir>) -> Result<Report, PreviewError> {
    let store = state.map(ObjectStore::open).transpose()?.map(Arc::new);
    let reader = match state {
        Some(state) if state.holder().is_some() => connect(state).await?,
        _ => None,
    };
    let (platform, reader, kafka) = match reader {
        Some((reader, platform, kafka)) => (platform, Some(reader), kafka),
        None => (Platform { allowed_issuers: None, ..Platform::new(nowhere()) }, None, None),
    };
    let against = if reader.is_some() { Against::Live } else { Against::Nothing };
    let refused = loaded.errors.iter().map(ToString::to_string).collect();
    let mut report = Report { against, refused, ..Report::default() };
    let tenancies = gather(loaded.resources.into_iter().map(|(_, resource)| resource), store.as_deref())?;
    let running = state.map(deployments::read_running).transpose()?.unwrap_or_default();
    let hubs = Written { store: store.clone(), running };
    let sources = match (&reader, &store) {
        (Some(postgres), Some(store)) => Some(Sources {
            objects: store.as_ref(),
            postgres: Ok(postgres),
            kafka: Ok(kafka.as_ref()),
            hubs: &hubs,
            proved: None,
        }),
        _ => None,
    };
    let mut here: BTreeSet<ObjectRef> = loaded.errors.iter().filter_map(|refused| refused.object.clone()).collect();
    for (namespace, tenancy) in tenancies {
        for decided in decide(&namespace, tenancy, sources.as_ref(), &platform).await? {
            here.insert(decided.object.clone());
            report.objects.push(Planned { also: false, found: Found::from(&decided.decision), object: decided.object });
        }
    }
    if let Some(store) = store {
        let gone = resources::stored(&store)?.into_iter().map(|(object, _)| object);
        report.removed = gone.filter(|object| !here.contains(object)).map(|object| object.to_string()).collect();
    }
    Ok(report)
}

/// The resources by namespace, each with every Tenant.
fn gather(given: impl Iterator<Item = Resource>, store: Option<&ObjectStore>) -> Result<BTreeMap<String, Tenancy>, StateError> {
    let mut tenants = Vec::new();
    let mut tenancies: BTreeMap<String, Tenancy> = BTreeMap::new();
    for resource in given {
        let object = resource.object();
        match resource {
            Resource::Tenant(mut tenant) => {
                identify(&mut tenant.metadata, &object, store)?;
                tenancies.entry(tenancy::namespace(&tenant).unwrap_or_default()).or_default();
                tenants.push(*tenant);
            }
            Resource::Agent(mut agent) => {
                identify(&mut agent.metadata, &object, store)?;
                tenancies.entry(object.namespace).or_default().agents.push(*agent);
            }
            Resource::Quota(mut quota) => {
                identify(&mut quota.metadata, &object, store)?;
                tenancies.entry(object.namespace).or_default().quotas.push(*quota);
            }
        }
    }
    let tenants = Tenants::from(tenants);
    tenancies.values_mut().for_each(|tenancy| tenancy.tenants = tenants.clone());
    Ok(tenancies)
}

async fn connect(state: &StateDir) -> Result<Option<(PostgresReader, Platform, Option<KafkaEffect>)>, PreviewError> {
    let known: Option<(PlatformPostgres, PlatformBus)> = state::read_json(&state.root().join(run::PLATFORM))?;
    let password: Option<String> = state::read_json(&state.root().join("operator.json"))?;
    let (Some((known, bus)), Some(password)) = (known, password) else { return Ok(None) };
    let tenants = PgConnectOptions::new_without_pgpass().host(&known.host).port(known.port).database(&known.database);
    let login = tenants.clone().username(bootstrap::OPERATOR).password(&password);
    let pool = Pool::new(login, Limits { connections: 2, ..Limits::default() });
    pool.acquire()
        .await
        .map_err(|error| EffectError::unavailable(format!("PostgreSQL at {}:{}", known.host, known.port), error))?;
    let options: Option<KafkaOptions> = state::read_json(&state.root().join(run::KAFKA))?;
    let access = options.filter(|_| bus != PlatformBus::Postgres).map(KafkaAccess::new).transpose().map_err(EffectError::from)?;
    let kafka = access.as_ref().map(KafkaAccess::effect).transpose().map_err(EffectError::from)?;
    let kafka_authorities = access.and_then(|access| access.authorities().map(str::to_owned));
    let allowed_issuers = Some(state::read_json(&state.root().join(run::OIDC))?.unwrap_or_default());
    let platform = Platform { bus, kafka_authorities, allowed_issuers, ..Platform::new(known) };
    Ok(Some((PostgresReader { pool, tenants }, platform, kafka)))
}

fn nowhere() -> PlatformPostgres {
    PlatformPostgres { host: "127.0.0.1".into(), port: 5432, database: bootstrap::DATABASE.into(), ssl_mode: "prefer".into() }
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
