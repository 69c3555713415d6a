//! Two tenants on one PostgreSQL, each with its hub: `globex` attacks `acme`.

use std::{
    io::Cursor,
    time::{Duration, Instant},
};

use acb_isolation::{Attacker, HubAccess, Outcome, PostgresAccess, Row, Victim};
use acb_sdk::{ApiKey, Client};
use acb_testbed::{Postgres, TestAgent, TestTenant, Version};
use uuid::Uuid;

use crate::hub::{Hub, Identity};

pub const TYPE: &str = "notes";
const GROUP: &str = "guards";

pub struct World {
    // Dropped in this order: hubs before their database.
    pub acme_hub: Hub,
    pub globex_hub: Hub,
    pub acme: TestTenant,
    pub globex: TestTenant,
    pub alice: TestAgent,
    pub mallory: TestAgent,
    /// What globex' hub signs with.
    pub globex_key: String,
    pub postgres: Postgres,
}

impl World {
    /// Every wall stands.
    pub async fn start() -> Self {
        Self::with(&Identity::generate("acme"), &Identity::generate("globex")).await
    }

    pub async fn with(acme_identity: &Identity, globex_identity: &Identity) -> Self {
        let postgres = Postgres::start(Version::Installed).await;
        let (acme, globex) = (postgres.tenant("acme").await, postgres.tenant("globex").await);
        acme.context_type(TYPE, 1).await;
        globex.context_type(TYPE, 1).await;
        let alice = citizen(&acme, "alice", &[GROUP]).await;
        let mallory = citizen(&globex, "mallory", &[]).await;
        let acme_hub = Hub::start(&acme, acme_identity).await;
        let globex_hub = Hub::start(&globex, globex_identity).await;
        let globex_key = globex_identity.signing_key.clone();
        Self { acme_hub, globex_hub, acme, globex, alice, mallory, globex_key, postgres }
    }

    pub fn attacker(&self) -> Attacker {
        Attacker {
            tenant: self.globex.name().to_owned(),
            tenant_id: self.globex.id_hex().to_owned(),
            hub: HubAccess { signing_key: Some(self.globex_key.clone()), ..access(&self.globex_hub, &self.mallory) },
            postgres: login(&self.globex),
            kafka: None,
            witnesses: vec![login(&self.acme)],
        }
    }

    /// With a context that its agent streamed a moment ago.
    pub async fn victim(&self) -> Victim {
        let (context, upload) = share(&self.acme_hub, &self.alice).await;
        self.victim_of(context, upload)
    }

    pub fn victim_of(&self, context: Uuid, upload: Uuid) -> Victim {
        Victim {
            tenant: self.acme.name().to_owned(),
            tenant_id: self.acme.id_hex().to_owned(),
            hub_endpoints: vec![self.acme_hub.endpoint.clone()],
            ca_pem: self.acme_hub.ca_pem.clone(),
            agent: self.alice.name.clone(),
            group: GROUP.to_owned(),
            context_type: TYPE.to_owned(),
            context_id: context.to_string(),
            upload_id: upload.to_string(),
            invented: Vec::new(),
        }
    }

    /// As superuser, behind the walls.
    pub async fn sql(&self, sql: &str) {
        let mut superuser = self.postgres.superuser().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut superuser).await.unwrap();
    }
}

fn login(tenant: &TestTenant) -> PostgresAccess {
    let options = tenant.connect_options();
    PostgresAccess {
        host: options.get_host().to_owned(),
        port: options.get_port(),
        database: options.get_database().unwrap().to_owned(),
        username: tenant.username().to_owned(),
        password: tenant.password().to_owned(),
        ssl_mode: "prefer".to_owned(),
        ca_pem: None,
    }
}

pub fn access(hub: &Hub, agent: &TestAgent) -> HubAccess {
    HubAccess {
        endpoints: vec![hub.endpoint.clone()],
        ca_pem: hub.ca_pem.clone(),
        api_key: Some(agent.api_key.clone()),
        signing_key: None,
    }
}

/// An agent that may do all that agents of its tenant do.
pub async fn citizen(tenant: &TestTenant, name: &str, groups: &[&str]) -> TestAgent {
    let mut row = tenant.agent_row(name);
    row.groups = groups.iter().map(|group| (*group).to_owned()).collect();
    row.publishes = vec![TYPE.to_owned()];
    row.subscribes = vec![TYPE.to_owned()];
    tenant.project(&row).await
}

/// Streams a context in as this agent: its id, and that of the upload.
pub async fn share(hub: &Hub, agent: &TestAgent) -> (Uuid, Uuid) {
    let key: ApiKey = agent.api_key.parse().unwrap();
    let client = Client::builder().endpoints([&hub.endpoint]).ca_pem(hub.ca_pem.as_bytes()).api_key(key).connect().await.unwrap();
    let payload = b"what only acme may know";
    let upload = client.upload(TYPE, Cursor::new(payload), payload.len() as u64);
    let id = upload.id().parse().unwrap();
    (upload.send().await.unwrap().context.id.parse().unwrap(), id)
}

/// Runs the attacks whose names begin with one of these.
pub async fn run(prefixes: &[&str], attacker: &Attacker, victim: &Victim) -> Vec<Row> {
    let mut rows = Vec::new();
    for attack in acb_isolation::attacks() {
        if prefixes.iter().any(|prefix| attack.name.starts_with(prefix)) {
            rows.push(attack.run(attacker, victim).await);
        }
    }
    assert!(!rows.is_empty(), "there is no attack {prefixes:?}");
    rows
}

/// Each was refused, and by what says so, or had nothing to be tried on.
#[track_caller]
pub fn all_refused(rows: &[Row]) {
    let held = |row: &&Row| row.outcome.is_refused() || row.outcome.is_nothing();
    let breaches: Vec<_> = rows.iter().filter(|row| !held(row)).map(said).collect();
    assert!(breaches.is_empty(), "not refused:\n{}", breaches.join("\n"));
}

/// Each succeeded.
#[track_caller]
pub fn all_succeeded(rows: &[Row]) {
    let held: Vec<_> = rows.iter().filter(|row| !matches!(row.outcome, Outcome::Succeeded(_))).map(said).collect();
    assert!(held.is_empty(), "did not succeed, though the wall is down:\n{}", held.join("\n"));
}

fn said(row: &Row) -> String {
    format!("{} {:?}", row.attack, row.outcome)
}

/// Runs one attack until it succeeds: a server takes a new setting up when it gets to it.
pub async fn succeeds_soon(name: &str, attacker: &Attacker, victim: &Victim) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let rows = run(&[name], attacker, victim).await;
        if rows.iter().all(|row| matches!(row.outcome, Outcome::Succeeded(_))) {
            return;
        }
        assert!(Instant::now() < deadline, "{:?}", rows.iter().map(said).collect::<Vec<_>>());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
