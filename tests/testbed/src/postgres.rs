//! A bootstrapped and migrated PostgreSQL, and tenants in it that the operator's own effect provisioned.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use acb_hub_pool::{Limits, Pool};
use acb_operator::{
    bootstrap::{self, LeaderEpoch, Server, claim_leadership},
    effect::{EffectError, SecretData, SecretReader, postgres::PostgresEffect, seal},
    local_postgres::{LocalPostgres, LocalPostgresOptions},
    plan::{
        AgentRow, ApiKeyRef, ContextTypeRow, IssuerRow, OidcIssuerRow, PostgresStep, ReplacedKey, SecretRef, TenantRow, TopicSpec,
    },
};
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::ServerClock;

const WEEK: u64 = 7 * 24 * 3600;
const LARGEST: u32 = 2 * 1024 * 1024;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The newest that is installed on this machine.
    Installed,
    /// 17, from `scripts/postgres17`.
    V17,
}

impl Version {
    fn bin_dir(self) -> Option<PathBuf> {
        match self {
            Self::Installed => None,
            Self::V17 => {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testbed/pg17/bin");
                assert!(
                    folder.join("postgres").exists(),
                    "PostgreSQL 17 is missing in {}: run scripts/postgres17",
                    folder.display()
                );
                Some(folder)
            }
        }
    }
}

/// A private server with ACB's roles, schema and functions.
pub struct Postgres {
    // Dropped last: what connects goes first.
    server: LocalPostgres,
    operator: PgConnectOptions,
    operator_password: String,
    epoch: LeaderEpoch,
    secrets: Arc<Secrets>,
    tenants: Mutex<HashMap<String, TestTenant>>,
    lasting: Option<(LocalPostgresOptions, TempDir)>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("server", &self.server).finish_non_exhaustive()
    }
}

static SHARED: OnceCell<Postgres> = OnceCell::const_new();

impl Postgres {
    /// The one server of this test process. It ends with the process.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(|| Self::start(Version::Installed)).await
    }

    /// A server of one's own.
    pub async fn start(version: Version) -> Self {
        Self::start_with(version, false, &[]).await
    }

    /// A server of one's own, with or without fsync, and with further settings.
    pub async fn start_with(version: Version, fsync: bool, settings: &[(&str, &str)]) -> Self {
        let folder = folder().keep();
        let options = LocalPostgresOptions { ephemeral: true, ..options(version, fsync, settings, folder) };
        // The server's watchdog removes its folder, also where this process is killed.
        Self::prepare(run(options).await, None).await
    }

    /// A server of one's own whose machine has this clock.
    pub async fn with_clock(clock: &ServerClock) -> Self {
        // libfaketime tells a handler of a signal that interrupts a wait the true time: with a clock that is behind, whatever timer fires first would end
        // a statement that waits for a lock.
        let settings = [("deadlock_timeout", "1h")];
        let options = LocalPostgresOptions {
            ephemeral: true,
            bin_dir: Some(clock.programs().to_owned()),
            ..options(Version::Installed, false, &settings, folder().keep())
        };
        Self::prepare(run(options).await, None).await
    }

    /// A server of one's own that can be stopped and started again.
    pub async fn lasting() -> Self {
        let folder = folder();
        let options = options(Version::Installed, true, &[], folder.path().to_owned());
        Self::prepare(run(options.clone()).await, Some((options, folder))).await
    }

    /// Stops a lasting server, and starts it again at the same port after what is to happen without it.
    pub async fn without(mut self, meanwhile: impl AsyncFnOnce()) -> Self {
        let (options, _) = self.lasting.as_ref().expect("the server is a lasting one");
        let (options, port) = (options.clone(), self.server.port());
        self.server.stop().await;
        meanwhile().await;
        self.server = run(options).await;
        assert_eq!(self.server.port(), port, "somebody took the server's port meanwhile");
        self
    }

    async fn prepare(server: LocalPostgres, lasting: Option<(LocalPostgresOptions, TempDir)>) -> Self {
        let password = random_hex(24);
        bootstrap::bootstrap(server.superuser(), &password, Server::Exclusive).await.unwrap_or_else(|error| panic!("{error}"));
        let operator = server.superuser().clone().username(bootstrap::OPERATOR).password(&password).database(bootstrap::DATABASE);
        let pool = Pool::new(operator.clone(), Limits::default());
        let epoch = claim_leadership(&pool, "testbed").await.unwrap();
        bootstrap::migrate(&pool, epoch).await.unwrap_or_else(|error| panic!("{error}"));
        pool.close().await;
        Self { server, operator, operator_password: password, epoch, secrets: Arc::default(), tenants: Mutex::default(), lasting }
    }

    /// The password of `acb_operator`, for processes that are given files.
    #[must_use]
    pub fn operator_password(&self) -> &str {
        &self.operator_password
    }

    /// Runs a statement as superuser, in the database `acb`.
    pub async fn execute(&self, statement: &str) {
        let mut superuser = self.superuser().await;
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut superuser)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// A number that a query gives, as superuser in the database `acb`.
    pub async fn number(&self, query: &str) -> i64 {
        let mut superuser = self.superuser().await;
        sqlx::query_scalar(AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut superuser)
            .await
            .unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The server itself.
    #[must_use]
    pub fn server(&self) -> &LocalPostgres {
        &self.server
    }

    /// How `acb_operator` connects to the database `acb`.
    #[must_use]
    pub fn operator_options(&self) -> PgConnectOptions {
        self.operator.clone()
    }

    /// How the superuser connects to the database `acb`.
    #[must_use]
    pub fn superuser_options(&self) -> PgConnectOptions {
        self.server.superuser().clone().database(bootstrap::DATABASE)
    }

    /// A connection as superuser to the database `acb`.
    pub async fn superuser(&self) -> PgConnection {
        PgConnection::connect_with(&self.superuser_options()).await.unwrap()
    }

    /// The leader's epoch that this testbed provisions with.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The operator's effect, on connections of its own.
    #[must_use]
    pub fn effect(&self) -> PostgresEffect {
        effect(&self.operator, self.epoch, &self.secrets)
    }

    /// What the effect reads its Secrets from.
    #[must_use]
    pub fn secrets(&self) -> Arc<Secrets> {
        self.secrets.clone()
    }

    /// The tenant of this name, provisioned at its first mention.
    pub async fn tenant(&self, name: &str) -> TestTenant {
        let known = self.tenants.lock().unwrap().get(name).cloned();
        if let Some(tenant) = known {
            return tenant;
        }
        let tenant = self.provision(name).await;
        self.tenants.lock().unwrap().entry(name.to_owned()).or_insert(tenant).clone()
    }

    /// A tenant that no other test has, named `<name>-<random>`.
    pub async fn fresh_tenant(&self, name: &str) -> TestTenant {
        self.tenant(&format!("{name}-{}", random_hex(4))).await
    }

    async fn provision(&self, name: &str) -> TestTenant {
        use sha2::Digest as _;
        // As derived from a UID, so that two tests that ask at once get the same tenant.
        let id = sha2::Sha256::digest(name.as_bytes())[..10].to_vec();
        let id_hex = hex::encode(&id);
        let namespace = format!("acbhub-{name}");
        let login = SecretRef { namespace: namespace.clone(), name: "hub-postgres".to_owned(), generation: 1 };
        let keys = SecretRef { namespace, name: "hub-keys".to_owned(), generation: 1 };
        let password = self.secrets.ensure_text(&login, "password", || random_hex(24));
        let pepper = self.secrets.ensure(&keys, "pepper", || random_bytes(32));
        let username = format!("acb_t_{id_hex}");
        let tenant = TestTenant {
            name: name.to_owned(),
            id_hex: id_hex.clone(),
            options: self.operator.clone().username(&username).password(&password).ssl_mode(PgSslMode::Prefer),
            username,
            password,
            pepper,
            keys,
            operator: self.operator.clone(),
            epoch: self.epoch,
            secrets: self.secrets.clone(),
            context_types: Arc::default(),
            issuer: Arc::default(),
            oidc_issuers: Arc::default(),
        };
        tenant.apply(&PostgresStep::EnsureLogin { tenant_id: id_hex, secret: login, connection_limit: 30 }).await;
        tenant.project_tenant().await;
        for (topic, partitions) in [("sys.messages", 8), ("sys.control", 1), ("sys.audit", 1), ("sys.dlq", 1), ("sys.usage", 1)] {
            tenant.ensure_topic(topic, partitions).await;
        }
        tenant
    }
}

fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("acb-pg-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn options(version: Version, fsync: bool, settings: &[(&str, &str)], folder: PathBuf) -> LocalPostgresOptions {
    let mut settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    settings.push(("max_connections".to_owned(), "200".to_owned()));
    LocalPostgresOptions { bin_dir: version.bin_dir(), fsync, settings, ..LocalPostgresOptions::new(folder) }
}

async fn run(options: LocalPostgresOptions) -> LocalPostgres {
    LocalPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"))
}

fn effect(operator: &PgConnectOptions, epoch: LeaderEpoch, secrets: &Arc<Secrets>) -> PostgresEffect {
    let pool = Pool::new(operator.clone(), Limits { connections: 2, ..Limits::default() });
    PostgresEffect::new(pool, epoch, secrets.clone())
}

/// Secrets in memory.
#[derive(Debug, Default)]
pub struct Secrets {
    data: Mutex<HashMap<SecretRef, SecretData>>,
}

impl Secrets {
    fn ensure(&self, secret: &SecretRef, key: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
        let mut data = self.data.lock().unwrap();
        let known = data.get(secret).and_then(|data| data.get(key)).map(<[u8]>::to_vec);
        known.unwrap_or_else(|| {
            let value = make();
            data.insert(secret.clone(), SecretData::new().with(key, value.clone()));
            value
        })
    }

    /// As the operator seals a key that it makes.
    fn seal(&self, secret: &SecretRef, authority: &SecretRef) {
        let mut data = self.data.lock().unwrap();
        let sealed = seal::seal(secret, data[secret].clone(), authority, &data[authority]).unwrap();
        data.insert(secret.clone(), sealed);
    }

    fn holds(&self, secret: &SecretRef) -> bool {
        self.data.lock().unwrap().contains_key(secret)
    }

    fn ensure_text(&self, secret: &SecretRef, key: &str, make: impl FnOnce() -> String) -> String {
        String::from_utf8(self.ensure(secret, key, || make().into_bytes())).unwrap()
    }
}

#[async_trait::async_trait]
impl SecretReader for Secrets {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        self.data.lock().unwrap().get(secret).cloned().ok_or_else(|| EffectError::MissingSecret(secret.clone()))
    }
}

/// A provisioned tenant.
#[derive(Clone)]
pub struct TestTenant {
    name: String,
    id_hex: String,
    username: String,
    password: String,
    pepper: Vec<u8>,
    keys: SecretRef,
    options: PgConnectOptions,
    operator: PgConnectOptions,
    epoch: LeaderEpoch,
    secrets: Arc<Secrets>,
    context_types: Arc<Mutex<Vec<ContextTypeRow>>>,
    issuer: Arc<Mutex<Option<IssuerRow>>>,
    oidc_issuers: Arc<Mutex<Vec<OidcIssuerRow>>>,
}

impl std::fmt::Debug for TestTenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestTenant").field("name", &self.name).field("id", &self.id_hex).finish_non_exhaustive()
    }
}

/// A projected agent.
#[derive(Clone, Debug)]
pub struct TestAgent {
    /// Its UID.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// `acb_<prefix>_<secret>`.
    pub api_key: String,
}

impl TestTenant {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// 20 hex digits.
    #[must_use]
    pub fn id_hex(&self) -> &str {
        &self.id_hex
    }

    /// 10 bytes.
    #[must_use]
    pub fn id_bytes(&self) -> Vec<u8> {
        hex::decode(&self.id_hex).unwrap()
    }

    /// `acb_t_<id>`.
    #[must_use]
    pub fn username(&self) -> &str {
        &self.username
    }

    /// Of its login.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// What HMACs of API keys are made with.
    #[must_use]
    pub fn pepper(&self) -> &[u8] {
        &self.pepper
    }

    /// How its hub connects.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// A connection as its login.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options).await.unwrap()
    }

    /// Adds a context type and its topic `acb.<tenant>.<name>`.
    pub async fn context_type(&self, name: &str, partitions: u32) -> TopicSpec {
        self.context_type_with(name, partitions, None).await
    }

    /// The same, with a JSON Schema: `{id, version, schema}`.
    pub async fn context_type_with(&self, name: &str, partitions: u32, schema: Option<serde_json::Value>) -> TopicSpec {
        let row = ContextTypeRow {
            name: name.to_owned(),
            partitions,
            retention_seconds: WEEK,
            cleanup: "delete".to_owned(),
            max_message_bytes: 1024 * 1024,
            schema,
        };
        {
            let mut types = self.context_types.lock().unwrap();
            types.retain(|known| known.name != name);
            types.push(row);
        }
        self.project_tenant().await;
        self.ensure_topic(name, partitions).await
    }

    /// Makes the topic `acb.<tenant>.<topic>`, or more partitions of it.
    pub async fn ensure_topic(&self, topic: &str, partitions: u32) -> TopicSpec {
        let topic = TopicSpec {
            name: format!("acb.{}.{topic}", self.name),
            partitions,
            retention_seconds: WEEK,
            cleanup: "delete".to_owned(),
            max_message_bytes: LARGEST,
        };
        self.apply(&PostgresStep::EnsureTopic { tenant_id: self.id_hex.clone(), topic: topic.clone() }).await;
        topic
    }

    /// An agent with a new UID, role `agent-full`, without groups: a row to change and hand to [`project`](Self::project).
    #[must_use]
    pub fn agent_row(&self, name: &str) -> AgentRow {
        AgentRow {
            id: Uuid::new_v4().to_string(),
            name: name.to_owned(),
            r#type: "test".to_owned(),
            capabilities: Vec::new(),
            groups: Vec::new(),
            location: String::new(),
            metadata: serde_json::json!({}),
            role: "agent-full".to_owned(),
            publishes: Vec::new(),
            subscribes: Vec::new(),
            limits: serde_json::json!({}),
            suspended: false,
            service_account: None,
        }
    }

    /// Projects an `agent-full` agent of this name, with a new UID.
    pub async fn agent(&self, name: &str) -> TestAgent {
        self.project(&self.agent_row(name)).await
    }

    /// The same, as a member of groups.
    pub async fn agent_in(&self, name: &str, groups: &[&str]) -> TestAgent {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        self.project(&AgentRow { groups, ..self.agent_row(name) }).await
    }

    /// Projects this row, with an API key of the agent's.
    pub async fn project(&self, row: &AgentRow) -> TestAgent {
        self.project_key(row, 1, 0).await
    }

    /// Projects this row, with the API key of a generation of its Secret. The one before works for so long yet.
    pub async fn project_key(&self, row: &AgentRow, generation: u64, overlap_seconds: u64) -> TestAgent {
        let secret = self.key_secret(row, generation);
        let api_key = self.secrets.ensure_text(&secret, "api-key", || format!("acb_{}_{}", random_hex(6), &random_hex(32)[..43]));
        let before = secret.before().filter(|before| overlap_seconds > 0 && self.secrets.holds(before));
        let before = before.map(|secret| ReplacedKey { secret, overlap_seconds });
        let authority = SecretRef { namespace: "acb-system".to_owned(), name: format!("ca-{}", self.id_hex), generation: 1 };
        self.secrets.ensure_text(&authority, "ca.key", || random_hex(32));
        self.secrets.seal(&secret, &authority);
        let api_key_ref = ApiKeyRef { secret, keys: self.keys.clone(), authority, before };
        self.apply(&PostgresStep::ProjectAgent {
            tenant_id: self.id_hex.clone(),
            agent: row.clone(),
            api_key: Some(api_key_ref),
        })
        .await;
        TestAgent { id: row.id.parse().unwrap(), name: row.name.clone(), api_key }
    }

    /// Deletes the Secret of a generation of an agent's API key.
    pub fn delete_key(&self, row: &AgentRow, generation: u64) {
        self.secrets.data.lock().unwrap().remove(&self.key_secret(row, generation));
    }

    fn key_secret(&self, row: &AgentRow, generation: u64) -> SecretRef {
        SecretRef { namespace: format!("acb-{}", self.name), name: format!("agent-{}", row.id), generation }
    }

    /// Has the tenant know who issues the tokens of ServiceAccounts; `None`: nobody does.
    pub async fn issuer(&self, issuer: Option<IssuerRow>) {
        *self.issuer.lock().unwrap() = issuer;
        self.project_tenant().await;
    }

    /// Has the tenant trust these OpenID Connect issuers, and no others.
    pub async fn oidc_issuers(&self, issuers: &[OidcIssuerRow]) {
        *self.oidc_issuers.lock().unwrap() = issuers.to_vec();
        self.project_tenant().await;
    }

    /// Projects this row of an agent that has no API key.
    pub async fn project_without_key(&self, row: &AgentRow) {
        let tenant_id = self.id_hex.clone();
        self.apply(&PostgresStep::ProjectAgent { tenant_id, agent: row.clone(), api_key: None }).await;
    }

    /// Removes an agent.
    pub async fn remove(&self, agent: Uuid) {
        self.apply(&PostgresStep::RemoveAgent { tenant_id: self.id_hex.clone(), agent_id: agent.to_string() }).await;
    }

    /// Applies any step by the operator's effect.
    pub async fn apply(&self, step: &PostgresStep) {
        effect(&self.operator, self.epoch, &self.secrets).apply(step).await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn project_tenant(&self) {
        let tenant = TenantRow {
            name: self.name.clone(),
            tier: "Enterprise".to_owned(),
            registration: "Open".to_owned(),
            suspended: false,
            limits: serde_json::json!({}),
            operation_limits: std::collections::BTreeMap::new(),
            audit_days: 90,
            context_types: self.context_types.lock().unwrap().clone(),
            issuer: self.issuer.lock().unwrap().clone(),
            oidc_issuers: self.oidc_issuers.lock().unwrap().clone(),
        };
        self.apply(&PostgresStep::ProjectTenant { tenant_id: self.id_hex.clone(), tenant }).await;
    }
}

fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn random_hex(bytes: usize) -> String {
    hex::encode(random_bytes(bytes))
}
