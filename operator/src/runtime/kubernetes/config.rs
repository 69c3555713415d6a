//! What the operator is told: a file, from the chart's ConfigMap, and folders with credentials, from Secrets.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use acb_crds::hub::LocalObjectReference;
use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use zeroize::Zeroizing;

use crate::{
    effect::{
        certificates,
        kafka_access::{KafkaAccess, KafkaFileError, KafkaOptions},
    },
    platform::{
        self, AllowedIssuer, Platform, PlatformBus, PlatformIsolation, PlatformPostgres, PlatformTracing, PlatformWitness,
    },
    rollout::MaxConcurrent,
    tier::TierOverrides,
};

/// A configuration that can't be used. Waiting does not mend it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, never what is in a credential.
    pub detail: String,
}

impl ConfigError {
    fn new(path: &Path, detail: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), detail: detail.to_string() }
    }
}

impl From<KafkaFileError> for ConfigError {
    fn from(error: KafkaFileError) -> Self {
        Self { path: error.path, detail: error.detail }
    }
}

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    bus: Bus,
    #[serde(default)]
    kafka: Option<KafkaPart>,
    postgres: PlatformPostgres,
    hub_image: String,
    #[serde(default = "dns_ports")]
    dns_ports: Vec<u16>,
    #[serde(default = "run_as_user")]
    run_as_user: Option<u32>,
    #[serde(default)]
    hub_image_repositories: Vec<String>,
    #[serde(default)]
    hub_image_pull_secrets: Vec<LocalObjectReference>,
    #[serde(default)]
    extra_tls_names: Vec<String>,
    #[serde(default)]
    tiers: TierOverrides,
    #[serde(default)]
    rollout: RolloutPart,
    #[serde(default)]
    tracing: Option<PlatformTracing>,
    #[serde(default)]
    isolation: Option<PlatformIsolation>,
    #[serde(default)]
    oidc: OidcPart,
    #[serde(default)]
    witness: Option<PlatformWitness>,
    #[serde(default = "resync_seconds")]
    resync_seconds: u64,
    #[serde(default = "concurrency")]
    concurrency: usize,
}

/// Where the log is. Without TLS only where that is said.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum Bus {
    Postgres {},
    Kafka {
        bootstrap_servers: String,
        #[serde(default = "yes")]
        tls: bool,
    },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KafkaPart {
    #[serde(default = "three")]
    replication_factor: i16,
}

/// Who else may vouch for agents.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct OidcPart {
    allowed_issuers: Vec<AllowedIssuer>,
}

/// How a change of the platform goes to its tenants.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RolloutPart {
    max_concurrent_tenants: MaxConcurrent,
}

impl Default for RolloutPart {
    fn default() -> Self {
        Self { max_concurrent_tenants: MaxConcurrent::Percent(5) }
    }
}

fn dns_ports() -> Vec<u16> {
    platform::DNS_PORTS.to_vec()
}

/// `null` is said, and means that the cluster chooses.
#[allow(clippy::unnecessary_wraps)]
fn run_as_user() -> Option<u32> {
    Some(platform::RUN_AS_USER)
}

fn resync_seconds() -> u64 {
    600
}

fn concurrency() -> usize {
    4
}

fn three() -> i16 {
    3
}

fn yes() -> bool {
    true
}

/// What the operator was told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// As plans need it.
    pub platform: Platform,
    /// Drift is looked for this often.
    pub resync: Duration,
    /// So many tenancies are reconciled at a time.
    pub concurrency: usize,
    /// Where the log is on Kafka.
    pub kafka: Option<KafkaAccess>,
    /// Folder with `username`, `password` and perhaps `ca.crt`.
    postgres: PathBuf,
}

/// A file with one line.
fn line(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| ConfigError::new(path, error))?);
    let line = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if line.is_empty() { Err(ConfigError::new(path, "is empty")) } else { Ok(line) }
}

impl Config {
    /// Reads the file; the credentials are in the folders `postgres` and `kafka` beside it. `namespace` is the operator's own.
    ///
    /// # Errors
    /// The file that can't be used, and why.
    pub fn load(path: &Path, namespace: &str) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::new(path, error))?;
        let file: File = serde_saphyr::from_str(&text).map_err(|error| ConfigError::new(path, error))?;
        let wrong = |detail: &str| Err(ConfigError::new(path, detail));
        if !(10..=86_400).contains(&file.resync_seconds) {
            return wrong("resyncSeconds: use 10 to 86400");
        }
        if !(1..=64).contains(&file.concurrency) {
            return wrong("concurrency: use 1 to 64");
        }
        if file.dns_ports.is_empty() || file.dns_ports.contains(&0) {
            return wrong("dnsPorts: name the ports, 1 to 65535, at which the cluster's DNS listens");
        }
        if file.run_as_user == Some(0) {
            return wrong("runAsUser: hubs don't run as root: name another user, or leave it out and let the cluster choose");
        }
        let is_tagged = |entry: &&String| entry.contains('@') || entry.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if let Some(entry) = file.hub_image_repositories.iter().find(is_tagged) {
            return Err(ConfigError::new(
                path,
                format_args!("hubImageRepositories: {entry}: name the repository without a tag or a digest"),
            ));
        }
        if file.hub_image.trim().is_empty() {
            return wrong("hubImage: name the image of acb-hub");
        }
        if file.postgres.ssl_mode.parse::<PgSslMode>().is_err() {
            return wrong("postgres.sslMode: use disable, allow, prefer, require, verify-ca or verify-full");
        }
        if let Some(tracing) = &file.tracing {
            if tracing.address().is_none() {
                return wrong(
                    "tracing.endpoint: name a collector that speaks OTLP over gRPC, such as http://collector.monitoring:4317",
                );
            }
            if !(0.0..=1.0).contains(&tracing.sample_ratio) {
                return wrong("tracing.sampleRatio: use 0 to 1");
            }
        }
        if let Some(isolation) = &file.isolation {
            if isolation.image.trim().is_empty() {
                return wrong("isolation.image: name the image of acb");
            }
            if !(10..=2_592_000).contains(&isolation.interval_seconds) {
                return wrong("isolation.intervalSeconds: use 10 to 2592000");
            }
        }
        if let Some(problem) = file.oidc.allowed_issuers.iter().find_map(|issuer| issuer.check().err()) {
            return Err(ConfigError::new(path, format_args!("oidc.allowedIssuers: {problem}")));
        }
        if let Some(witness) = &file.witness {
            witness.check().map_err(|problem| ConfigError::new(path, format_args!("witness: {problem}")))?;
            let authority = &witness.certificate_authority;
            if !authority.is_empty() && !certificates::are_some(authority.as_bytes()) {
                return wrong("witness.certificateAuthority: give certificates in PEM, or leave it out for public ones");
            }
        }
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        let mut platform = Platform::new(file.postgres);
        (platform.hub_image, platform.extra_tls_names, platform.tiers) = (file.hub_image, file.extra_tls_names, file.tiers);
        (platform.rollout, platform.tracing) = (file.rollout.max_concurrent_tenants, file.tracing);
        platform.isolation = file.isolation;
        platform.has_service_accounts = true;
        platform.allowed_issuers = Some(file.oidc.allowed_issuers);
        platform.witness = file.witness;
        (platform.dns_ports, platform.run_as_user) = (file.dns_ports, file.run_as_user);
        platform.hub_image_repositories = Some(file.hub_image_repositories);
        platform.hub_image_pull_secrets = file.hub_image_pull_secrets;
        namespace.clone_into(&mut platform.operator_namespace);
        let kafka = match file.bus {
            Bus::Postgres {} if file.kafka.is_some() => return wrong("kafka: is for bus.kind kafka"),
            Bus::Postgres {} => None,
            Bus::Kafka { bootstrap_servers, tls } => {
                let folder = folder.join("kafka");
                let ca_file = folder.join("ca.crt");
                if tls && !ca_file.is_file() {
                    return Err(ConfigError::new(&ca_file, "is missing: with bus.tls it holds the authorities of the brokers"));
                }
                let options = KafkaOptions {
                    bootstrap_servers,
                    username: line(&folder.join("username"))?.to_string(),
                    password_file: folder.join("password"),
                    ca_file: tls.then_some(ca_file),
                    replication_factor: file.kafka.map_or_else(three, |kafka| kafka.replication_factor),
                };
                let access = KafkaAccess::new(options)?;
                (platform.bus, platform.kafka_authorities) = (access.bus(), access.authorities().map(str::to_owned));
                Some(access)
            }
        };
        let authorities = folder.join("postgres").join("ca.crt");
        if authorities.is_file() {
            let text = fs::read_to_string(&authorities).map_err(|error| ConfigError::new(&authorities, error))?;
            platform.postgres_authorities = Some(text);
        }
        debug_assert_eq!(kafka.is_some(), matches!(platform.bus, PlatformBus::Kafka { .. }));
        let config = Self {
            platform,
            resync: Duration::from_secs(file.resync_seconds),
            concurrency: file.concurrency,
            kafka,
            postgres: folder.join("postgres"),
        };
        config.operator_login()?;
        Ok(config)
    }

    /// Whether the authorities of a server are others now than those that this process was started with: they are in what it plans.
    pub(super) fn has_other_authorities(&self) -> bool {
        // A file that is not there is one that is being replaced.
        let differs = |path: &Path, known: Option<&str>| {
            let is_other = |now: String| known.is_none_or(|known| !certificates::are_same(now.as_bytes(), known.as_bytes()));
            fs::read_to_string(path).is_ok_and(is_other)
        };
        let kafka = self.kafka.as_ref().and_then(|kafka| Some((kafka.options().ca_file.clone()?, kafka.authorities()?)));
        differs(&self.postgres.join("ca.crt"), self.platform.postgres_authorities.as_deref())
            || kafka.is_some_and(|(path, known)| differs(&path, Some(known)))
    }

    /// How a tenant reaches PostgreSQL: its name and password are to be filled in.
    #[must_use]
    pub fn tenant_login(&self) -> PgConnectOptions {
        let PlatformPostgres { host, port, database, ssl_mode } = &self.platform.postgres;
        let mode = ssl_mode.parse().unwrap_or(PgSslMode::VerifyFull);
        let options = PgConnectOptions::new_without_pgpass().host(host).port(*port).database(database).ssl_mode(mode);
        let authorities = self.postgres.join("ca.crt");
        if authorities.is_file() { options.ssl_root_cert(authorities) } else { options }
    }

    /// The operator's password as it is now.
    pub(super) fn operator_password(&self) -> Result<Zeroizing<String>, ConfigError> {
        line(&self.postgres.join("password"))
    }

    /// How the operator does, with the password as it is now.
    ///
    /// # Errors
    /// The file that can't be used.
    pub fn operator_login(&self) -> Result<PgConnectOptions, ConfigError> {
        let (user, password) = (line(&self.postgres.join("username"))?, self.operator_password()?);
        Ok(self.tenant_login().username(&user).password(&password))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const POSTGRES: &str =
        "bus: {kind: postgres}\npostgres: {host: db, port: 5432, database: acb, sslMode: verify-full}\nhubImage: acb-hub:0.1.0\n";

    fn folder(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.yaml"), text).unwrap();
        for system in ["postgres", "kafka"] {
            fs::create_dir(folder.path().join(system)).unwrap();
            fs::write(folder.path().join(system).join("username"), "acb_operator").unwrap();
            fs::write(folder.path().join(system).join("password"), "s3cret\n").unwrap();
        }
        folder
    }

    fn load(text: &str) -> Result<Config, ConfigError> {
        Config::load(&folder(text).path().join("config.yaml"), "acb-system")
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let config = load(POSTGRES).unwrap();
        assert_eq!((config.resync.as_secs(), config.concurrency), (600, 4));
        assert_eq!(config.platform.operator_namespace, "acb-system");
        assert!(config.kafka.is_none() && !format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn an_issuer_that_may_be_named_is_one_that_hubs_can_ask() {
        let oidc = |issuer: &str| load(&format!("{POSTGRES}oidc: {{allowedIssuers: [{issuer}]}}\n"));
        let config = oidc("{url: 'https://login.example.com/a'}, {url: 'https://idp.inside:8443', cidrs: [10.0.0.0/8]}").unwrap();
        assert_eq!(config.platform.allowed_issuers.unwrap().len(), 2);
        for wrong in ["{url: 'http://login.example.com'}", "{url: 'https://a?b=c'}", "{url: 'https://a', cidrs: [10.0.0.0]}"] {
            let error = oidc(wrong).unwrap_err().to_string();
            assert!(error.contains("oidc.allowedIssuers"), "{error}");
        }
    }

    #[test]
    fn a_witness_is_one_that_hubs_can_ask() {
        let witness = |witness: &str| load(&format!("{POSTGRES}witness: {witness}\n"));
        let config = witness("{url: 'https://witness.example.com/acb', cidrs: [10.1.2.3/32]}").unwrap();
        assert_eq!(config.platform.witness.unwrap().url, "https://witness.example.com/acb");
        for wrong in
            ["{url: 'http://w'}", "{url: 'https://w', cidrs: [10.0.0.0]}", "{url: 'https://w', certificateAuthority: 'none'}"]
        {
            let error = witness(wrong).unwrap_err().to_string();
            assert!(error.contains("witness"), "{error}");
        }
    }

    #[test]
    fn a_collector_of_traces_is_one_that_hubs_can_reach() {
        let config = load(&format!("{POSTGRES}tracing: {{endpoint: 'http://collector:4317', sampleRatio: 0.1}}\n")).unwrap();
        assert_eq!(config.platform.tracing.unwrap().sample_ratio, 0.1);
        for wrong in [
            "{endpoint: 'collector:4317'}",
            "{endpoint: 'http://c:1', sampleRatio: 1.5}",
            "{endpoint: 'http://c:1', sampleRatio: .nan}",
        ] {
            let error = load(&format!("{POSTGRES}tracing: {wrong}\n")).unwrap_err().to_string();
            assert!(error.contains("tracing."), "{error}");
        }
    }

    #[test]
    fn the_user_of_the_pods_is_left_to_the_cluster_only_where_that_is_said() {
        assert_eq!(load(POSTGRES).unwrap().platform.run_as_user, Some(65_532));
        assert_eq!(load(&format!("{POSTGRES}runAsUser: null\n")).unwrap().platform.run_as_user, None);
    }

    #[test]
    fn the_authorities_of_postgres_are_for_the_hubs_too() {
        let folder = folder(POSTGRES);
        fs::write(folder.path().join("postgres/ca.crt"), "PEM").unwrap();
        let config = Config::load(&folder.path().join("config.yaml"), "acb-system").unwrap();
        assert_eq!(config.platform.postgres_authorities.as_deref(), Some("PEM"));
    }

    #[test]
    fn other_authorities_are_noticed() {
        let kafka = POSTGRES.replace("{kind: postgres}", "{kind: kafka, bootstrapServers: 'kafka:9093'}");
        let folder = folder(&kafka);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = || rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let files = ["postgres/ca.crt", "kafka/ca.crt"].map(|name| folder.path().join(name));
        files.iter().for_each(|file| fs::write(file, pem()).unwrap());
        for file in &files {
            let config = Config::load(&folder.path().join("config.yaml"), "acb-system").unwrap();
            assert!(!config.has_other_authorities());
            let before = fs::read_to_string(file).unwrap();
            fs::remove_file(file).unwrap();
            assert!(!config.has_other_authorities(), "it is being replaced");
            fs::write(file, format!("{before}{}", pem())).unwrap();
            assert!(config.has_other_authorities(), "{}", file.display());
        }
    }

    #[test]
    fn kafka_without_tls_has_to_be_said() {
        let kafka = |bus: &str| POSTGRES.replace("{kind: postgres}", bus);
        let config = load(&kafka("{kind: kafka, bootstrapServers: 'kafka:9092', tls: false}")).unwrap();
        assert!(config.platform.has_kafka());
        let error = load(&kafka("{kind: kafka, bootstrapServers: 'kafka:9093'}")).unwrap_err().to_string();
        assert!(error.contains("ca.crt") && error.contains("authorities"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, named) in [
            (format!("{POSTGRES}colour: red\n"), "colour"),
            (format!("{POSTGRES}resyncSeconds: 1\n"), "resyncSeconds"),
            (format!("{POSTGRES}dnsPorts: []\n"), "dnsPorts"),
            (format!("{POSTGRES}runAsUser: 0\n"), "runAsUser"),
            (
                format!("{POSTGRES}hubImageRepositories: ['x.example:5000/acb-hub', 'x.example/acb-hub:canary']\n"),
                "acb-hub:canary",
            ),
            (format!("{POSTGRES}concurrency: 0\n"), "concurrency"),
            (format!("{POSTGRES}tiers: {{Free: {{tenant: {{maxAgnets: 1}}}}}}\n"), "maxAgnets"),
            (format!("{POSTGRES}tiers: {{Free: {{agentDefault: {{maxAgents: 1}}}}}}\n"), "maxAgents"),
            (format!("{POSTGRES}tiers: {{Free: {{agentCeiling: {{storageBytes: much}}}}}}\n"), "much"),
            (format!("{POSTGRES}kafka: {{replicationFactor: 1}}\n"), "bus.kind"),
            (POSTGRES.replace("verify-full", "maybe"), "sslMode"),
            (POSTGRES.replace("acb-hub:0.1.0", "''"), "hubImage"),
            (String::new(), "config.yaml"),
        ] {
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
        let folder = folder(POSTGRES);
        fs::write(folder.path().join("postgres/password"), "\n").unwrap();
        let error = Config::load(&folder.path().join("config.yaml"), "n").unwrap_err().to_string();
        assert!(error.contains("postgres/password: is empty"), "{error}");
    }
}
