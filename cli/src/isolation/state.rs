//! Attackers and neighbours, as the state folder of `acb dev` has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use acb_crds::{Agent, Tenant, names::objects, schema::Kind};
use acb_isolation::{Attacker, HubAccess, KafkaAccess, PostgresAccess, Thing, Victim};
use acb_operator::{
    effect::{SecretData, SecretReader as _, kubernetes::ObjectKey},
    plan::SecretRef,
    runtime::standalone::{
        access::{self, Access},
        objects::ObjectStore,
    },
};
use serde_json::Value;

use super::arguments::{IsolationArgs, NONEXISTENT};
use crate::{
    output::{Exit, Failure},
    standalone::State,
};

/// Who attacks, and whom.
pub(super) async fn prepare(args: &IsolationArgs) -> Result<(Attacker, Vec<Victim>), Failure> {
    let world = World::open(&args.state)?;
    let mut attacker = world.attacker(&args.tenant).await?;
    let victims: Vec<&str> = match args.against.as_slice() {
        [] => world.tenants.keys().map(String::as_str).filter(|name| *name != args.tenant).collect(),
        named => named.iter().map(String::as_str).collect(),
    };
    for name in &victims {
        attacker.witnesses.push(world.postgres(name).await?);
    }
    let victims = victims.into_iter().map(|name| world.victim(name, args)).collect::<Result<_, Failure>>()?;
    Ok((attacker, victims))
}

/// What is called how in a tenant.
#[derive(Default)]
struct Names {
    agents: BTreeSet<String>,
    groups: BTreeSet<String>,
}

/// What the state folder knows.
struct World {
    store: ObjectStore,
    tenants: BTreeMap<String, Tenant>,
    accesses: BTreeMap<String, Access>,
}

impl World {
    fn open(state: &State) -> Result<Self, Failure> {
        let state = state.existing()?;
        let store = ObjectStore::open(&state).map_err(Failure::failed)?;
        let accesses = access::read(&state).map_err(Failure::failed)?;
        let mut tenants = BTreeMap::new();
        for object in store.of_kind(Kind::Tenant.as_str()).map_err(Failure::failed)? {
            let tenant: Tenant = serde_json::from_value(object).map_err(Failure::failed)?;
            if let Some(name) = tenant.metadata.name.clone() {
                tenants.insert(name, tenant);
            }
        }
        Ok(Self { store, tenants, accesses })
    }

    fn tenant(&self, name: &str) -> Result<(&Tenant, &Access), Failure> {
        match (self.tenants.get(name), self.accesses.get(name)) {
            (Some(tenant), Some(access)) if !access.server.is_empty() => Ok((tenant, access)),
            (Some(_), _) => Err(Failure::new(Exit::Unavailable, format!("tenant {name} is not ready: see `acb get tenants`"))),
            (None, _) => Err(Failure::new(Exit::NotFound, format!("there is no tenant {name}: see `acb get tenants`"))),
        }
    }

    async fn attacker(&self, name: &str) -> Result<Attacker, Failure> {
        let (tenant, access) = self.tenant(name)?;
        let status = tenant.status.clone().unwrap_or_default();
        let tenant_id = status.tenant_id.unwrap_or_default();
        let namespace = status.hub_namespace.unwrap_or_default();
        let key = access
            .api_key_files
            .values()
            .next()
            .ok_or_else(|| Failure::failed(format!("tenant {name} has no agent with an API key: add an Agent")))?;
        let config = self.hub_config(&namespace)?;
        let keys = self.secret(&namespace, objects::HUB_KEYS).await?;
        let kafka = match config.pointer("/bus/kind").and_then(Value::as_str) {
            Some("kafka") => {
                let user = self.secret(&namespace, objects::HUB_KAFKA).await?;
                Some(KafkaAccess {
                    bootstrap_servers: text(&config, "/bus/bootstrapServers")?,
                    ca_pem: user.get("ca.crt").map(|ca| String::from_utf8_lossy(ca).into_owned()),
                    username: field(&user, "username")?,
                    password: field(&user, "password")?,
                })
            }
            _ => None,
        };
        Ok(Attacker {
            tenant: name.to_owned(),
            tenant_id,
            hub: HubAccess {
                endpoints: endpoints(access),
                ca_pem: read(access.ca_file.as_deref())?,
                api_key: Some(read(Some(key))?.trim().to_owned()),
                signing_key: Some(field(&keys, "signing.key")?),
            },
            postgres: self.postgres(name).await?,
            kafka,
            witnesses: Vec::new(),
        })
    }

    /// What a tenant's hub logs in to PostgreSQL with.
    async fn postgres(&self, name: &str) -> Result<PostgresAccess, Failure> {
        let (tenant, _) = self.tenant(name)?;
        let namespace = tenant.status.as_ref().and_then(|status| status.hub_namespace.clone()).unwrap_or_default();
        let config = self.hub_config(&namespace)?;
        let login = self.secret(&namespace, objects::HUB_POSTGRES).await?;
        let port = config.pointer("/postgres/port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        Ok(PostgresAccess {
            host: text(&config, "/postgres/host")?,
            port: port.ok_or_else(|| Failure::failed("hub.json names no port of PostgreSQL"))?,
            database: text(&config, "/postgres/database")?,
            username: field(&login, "username")?,
            password: field(&login, "password")?,
            ssl_mode: text(&config, "/postgres/sslMode")?,
            ca_pem: login.get("ca.crt").map(|ca| String::from_utf8_lossy(ca).into_owned()),
        })
    }

    fn victim(&self, name: &str, args: &IsolationArgs) -> Result<Victim, Failure> {
        let (tenant, access) = self.tenant(name)?;
        let (theirs, own) = (self.names(name)?, self.names(&args.tenant)?);
        let (agent, group) = (only(&theirs.agents, &own.agents), only(&theirs.groups, &own.groups));
        let missing = [(agent.is_none(), Thing::Agent), (group.is_none(), Thing::Group)];
        let missing = missing.into_iter().filter_map(|(is_missing, thing)| is_missing.then_some(thing));
        let invented = args.invented().chain(missing).collect();
        let nobody = || format!("{name}-only");
        Ok(Victim {
            tenant: name.to_owned(),
            tenant_id: tenant.status.as_ref().and_then(|status| status.tenant_id.clone()).unwrap_or_default(),
            hub_endpoints: endpoints(access),
            ca_pem: read(access.ca_file.as_deref())?,
            agent: agent.unwrap_or_else(nobody),
            group: group.unwrap_or_else(nobody),
            context_type: tenant
                .spec
                .context_types
                .first()
                .map_or_else(|| "documents".to_owned(), |first| first.name.to_string()),
            context_id: args.context.unwrap_or(NONEXISTENT).to_string(),
            upload_id: args.upload.unwrap_or(NONEXISTENT).to_string(),
            invented,
        })
    }

    /// What a tenant's agents are called, and their groups.
    fn names(&self, tenant: &str) -> Result<Names, Failure> {
        let namespace = self.tenants.get(tenant).and_then(acb_operator::tenancy::namespace);
        let mut names = Names::default();
        for object in self.store.of_kind(Kind::Agent.as_str()).map_err(Failure::failed)? {
            let agent: Agent = serde_json::from_value(object).map_err(Failure::failed)?;
            if agent.metadata.namespace == namespace {
                names.agents.extend(agent.metadata.name);
                names.groups.extend(agent.spec.groups.iter().map(ToString::to_string));
            }
        }
        Ok(names)
    }

    fn hub_config(&self, namespace: &str) -> Result<Value, Failure> {
        let key = ObjectKey::new("v1", "ConfigMap", namespace, objects::HUB_CONFIG);
        let object = self.store.read_object(&key).map_err(Failure::failed)?.unwrap_or_default();
        serde_json::from_str(&text(&object, "/data/hub.json")?).map_err(Failure::failed)
    }

    /// The generation of a Secret that the hub is given now.
    async fn secret(&self, namespace: &str, name: &str) -> Result<SecretData, Failure> {
        let key = ObjectKey::new("apps/v1", "Deployment", namespace, objects::HUB);
        let hub = self.store.read_object(&key).map_err(Failure::failed)?.unwrap_or_default();
        let volumes = hub.pointer("/spec/template/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        let generation = volumes
            .iter()
            .filter_map(|volume| {
                volume.pointer("/secret/secretName")?.as_str()?.strip_prefix(name)?.strip_prefix('-')?.parse().ok()
            })
            .next()
            .ok_or_else(|| Failure::failed(format!("the hub in {namespace} has no Secret {name}")))?;
        let secret = SecretRef { namespace: namespace.to_owned(), name: name.to_owned(), generation };
        self.store.read(&secret).await.map_err(Failure::failed)
    }
}

/// A name that is the neighbour's alone: to reach what one has oneself under the same name is no breach.
fn only(theirs: &BTreeSet<String>, own: &BTreeSet<String>) -> Option<String> {
    theirs.difference(own).next().cloned()
}

fn endpoints(access: &Access) -> Vec<String> {
    access.server.split(',').map(str::to_owned).collect()
}

fn text(value: &Value, pointer: &str) -> Result<String, Failure> {
    let text = value.pointer(pointer).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| Failure::failed(format!("the state folder lacks {pointer}: is it of another version?")))
}

fn field(secret: &SecretData, name: &str) -> Result<String, Failure> {
    let bytes = secret.get(name).ok_or_else(|| Failure::failed(format!("the hub's Secret lacks {name}")))?;
    Ok(String::from_utf8_lossy(bytes).into_owned())
}

fn read(file: Option<&Path>) -> Result<String, Failure> {
    let file = file.ok_or_else(|| Failure::failed("the tenant has no CA yet: see `acb get tenants`"))?;
    fs::read_to_string(file).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))
}
