//! `acb isolation`: attacks a tenant's neighbours with that tenant's own credentials, as the state folder has them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use acb_crds::{Agent, Tenant, names::objects, schema::Kind};
use acb_isolation::{Attacker, HubAccess, KafkaAccess, PostgresAccess, Report, Victim};
use acb_operator::{
    effect::{SecretData, SecretReader as _, kubernetes::ObjectKey},
    plan::SecretRef,
    runtime::standalone::{
        access::{self, Access},
        objects::ObjectStore,
    },
};
use clap::Args;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    output::{self, Exit, Failure, Output},
    standalone::State,
};

/// Who attacks whom.
#[derive(Args, Debug)]
pub(crate) struct IsolationArgs {
    /// The tenant whose credentials are used.
    tenant: String,
    /// A tenant to attack; can be repeated [default: every other tenant].
    #[arg(long, value_name = "TENANT")]
    against: Vec<String>,
    /// A context of the tenant under attack, by its id [default: one that does not exist].
    #[arg(long, value_name = "ID")]
    context: Option<Uuid>,
    /// An upload of the tenant under attack, by its id [default: one that does not exist].
    #[arg(long, value_name = "ID")]
    upload: Option<Uuid>,
    #[command(flatten)]
    state: State,
}

/// Runs the attacks. Fails where one was not refused.
pub(crate) async fn run(args: &IsolationArgs, output: Output) -> Result<(), Failure> {
    let world = World::open(&args.state)?;
    let attacker = world.attacker(&args.tenant).await?;
    let victims: Vec<&str> = match args.against.as_slice() {
        [] => world.tenants.keys().map(String::as_str).filter(|name| *name != args.tenant).collect(),
        named => named.iter().map(String::as_str).collect(),
    };
    if victims.is_empty() {
        return Err(Failure::failed(format!("{} has no neighbour to attack: add another Tenant to the folder", args.tenant)));
    }
    let mut all = Report::default();
    for name in victims {
        let victim = world.victim(name, args)?;
        let told = |row: &acb_isolation::Row| {
            if !output.is_document() {
                let verdict = if row.outcome.is_refused() { "refused" } else { "NOT REFUSED" };
                // The table after it has everything again, for a reader that went away.
                let _ = output::line(format!("{:<12} {:<36} {}", verdict, row.attack, row.prize));
            }
        };
        all.rows.extend(acb_isolation::run(&attacker, &victim, told).await.rows);
    }
    match output {
        Output::Document(syntax) => syntax.document(&all)?,
        Output::Table { .. } => {
            for row in all.breaches() {
                output::line(format!("{} against {}: {:?}", row.attack, row.victim, row.outcome))?;
            }
            output::line(format!("\n{} of {} attacks were refused", all.refused(), all.attempts()))?;
        }
    }
    match all.attempts() - all.refused() {
        0 => Ok(()),
        breaches => Err(Failure::failed(format!("{breaches} attacks of {} were not refused", args.tenant))),
    }
}

/// An id that nothing has, of the form that all have: what is not there and what is not shown must look the same.
const NONEXISTENT: Uuid = Uuid::from_u128(0x6f1d_7c1e_52a4_4c3b_9d0e_8a7b_6c5d_4e3f);

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
        let login = self.secret(&namespace, objects::HUB_POSTGRES).await?;
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
        let port = config.pointer("/postgres/port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        Ok(Attacker {
            tenant: name.to_owned(),
            tenant_id,
            hub: HubAccess {
                endpoints: endpoints(access),
                ca_pem: read(access.ca_file.as_deref())?,
                api_key: read(Some(key))?.trim().to_owned(),
            },
            postgres: PostgresAccess {
                host: text(&config, "/postgres/host")?,
                port: port.ok_or_else(|| Failure::failed("hub.json names no port of PostgreSQL"))?,
                database: text(&config, "/postgres/database")?,
                username: field(&login, "username")?,
                password: field(&login, "password")?,
            },
            kafka,
        })
    }

    fn victim(&self, name: &str, args: &IsolationArgs) -> Result<Victim, Failure> {
        let (tenant, access) = self.tenant(name)?;
        let (theirs, own) = (self.names(name)?, self.names(&args.tenant)?);
        Ok(Victim {
            tenant: name.to_owned(),
            tenant_id: tenant.status.as_ref().and_then(|status| status.tenant_id.clone()).unwrap_or_default(),
            hub_endpoints: endpoints(access),
            ca_pem: read(access.ca_file.as_deref())?,
            agent: only(&theirs.agents, &own.agents, name),
            group: only(&theirs.groups, &own.groups, name),
            context_type: tenant
                .spec
                .context_types
                .first()
                .map_or_else(|| "documents".to_owned(), |first| first.name.to_string()),
            context_id: args.context.unwrap_or(NONEXISTENT).to_string(),
            upload_id: args.upload.unwrap_or(NONEXISTENT).to_string(),
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

/// A name that is the neighbour's alone: to reach what one has oneself under the same name is no breach. Where there is none, one that
/// nobody has.
fn only(theirs: &BTreeSet<String>, own: &BTreeSet<String>, tenant: &str) -> String {
    theirs.difference(own).next().cloned().unwrap_or_else(|| format!("{tenant}-only"))
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
