//! What a hub is given: `hub.json`, the mounted Secrets, and a few names and ports from the environment.

use std::{
    env, fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use acb_hub_api::tls::Certificate;
use acb_hub_bus::KafkaSettings;
use acb_hub_core::door::keyring::{Keyring, signing_key};
use acb_tlog::note::Signing;
use serde::Deserialize;
use sqlx::{
    ConnectOptions as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use time::OffsetDateTime;

/// How a public key ends, as PEM.
const PUBLIC_KEY_END: &str = "-----END PUBLIC KEY-----";

/// Why a hub can't start: the file or variable, and what is wrong with it. Never what is in a Secret.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct ConfigError {
    place: String,
    problem: String,
}

impl ConfigError {
    pub(crate) fn new(place: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self { place: place.to_string(), problem: problem.to_string() }
    }
}

/// `hub.json`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HubConfig {
    /// The tenant's name.
    pub(crate) tenant: String,
    /// 20 hex digits.
    pub(crate) tenant_id: String,
    /// Where the log is.
    pub(crate) bus: BusConfig,
    /// Where the rows are.
    pub(crate) postgres: PostgresConfig,
    /// Where traces are collected.
    #[serde(default)]
    pub(crate) tracing: Option<TracingConfig>,
    /// Who is shown the checkpoints of the audit trail.
    #[serde(default)]
    pub(crate) witness: Option<WitnessConfig>,
}

/// A witness outside of the platform (<https://c2sp.org/tlog-witness>).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WitnessConfig {
    /// Its submission prefix, such as `https://witness.example.com`.
    pub(crate) url: String,
    /// Networks in which it is, and nowhere else. Without any it is at a public address.
    #[serde(default)]
    pub(crate) cidrs: Vec<String>,
    /// Certificates that sign its own, in PEM. Those of the system where empty.
    #[serde(default)]
    pub(crate) certificate_authority: String,
}

/// Where traces are collected.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct TracingConfig {
    /// Of a collector that speaks OTLP over gRPC, such as `http://collector:4317`.
    pub(crate) endpoint: String,
    /// The part of the calls that begin a trace here and are collected, from 0 to 1. What its caller collects is, always.
    #[serde(default)]
    pub(crate) sample_ratio: f64,
}

impl TracingConfig {
    /// As OpenTelemetry's variables say, for hubs that no platform has told: all is collected, unless they say otherwise. They are often there for other
    /// programs: what is not for a hub is no reason not to start.
    fn of_environment(variable: impl Fn(&str, &str) -> String) -> Option<Self> {
        let endpoint = variable("OTEL_EXPORTER_OTLP_ENDPOINT", "");
        if endpoint.is_empty() {
            return None;
        }
        if !endpoint.starts_with("http://") {
            tracing::warn!(endpoint, "no traces are sent: a hub sends them without TLS, to an endpoint that begins with http://");
            return None;
        }
        let ratio = variable("OTEL_TRACES_SAMPLER_ARG", "1").parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
        Some(Self { endpoint, sample_ratio: ratio.unwrap_or(1.0) })
    }
}

/// Where the log is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub(crate) enum BusConfig {
    /// In the same database.
    Postgres {},
    /// On Kafka.
    Kafka {
        /// `host:port`, more than one with commas.
        bootstrap_servers: String,
        /// Whether the brokers speak TLS.
        tls: bool,
    },
}

/// Where PostgreSQL is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PostgresConfig {
    /// Name or address.
    pub(crate) host: String,
    /// Port.
    pub(crate) port: u16,
    /// Database.
    pub(crate) database: String,
    /// As in libpq.
    pub(crate) ssl_mode: String,
}

/// Everything that a hub is given.
#[derive(Debug)]
pub(crate) struct Config {
    /// `hub.json`.
    pub(crate) hub: HubConfig,
    /// The tenant's id.
    pub(crate) tenant_id: [u8; 10],
    /// This replica's name.
    pub(crate) replica: String,
    /// Where agents connect.
    pub(crate) grpc: SocketAddr,
    /// Where probes and scrapers connect.
    pub(crate) operations: SocketAddr,
    /// The tenant's login.
    pub(crate) postgres: PgConnectOptions,
    /// The tenant's login to Kafka, where the log is there.
    pub(crate) kafka: Option<KafkaSettings>,
    /// The passwords that are being replaced.
    pub(crate) replaced: ReplacedPasswords,
    dir: PathBuf,
}

impl Config {
    /// From `$ACB_CONFIG_DIR` and the environment.
    pub(crate) fn load() -> Result<Self, ConfigError> {
        Self::read(PathBuf::from(variable("ACB_CONFIG_DIR", "/etc/acb")))
    }

    /// From this folder and the environment.
    pub(crate) fn read(dir: PathBuf) -> Result<Self, ConfigError> {
        let path = dir.join("config/hub.json");
        let mut hub: HubConfig = serde_json::from_str(&text(&path)?).map_err(|error| ConfigError::new(path.display(), error))?;
        if hub.tracing.is_none() {
            hub.tracing = TracingConfig::of_environment(variable);
        }
        let mut tenant_id = [0; 10];
        hex::decode_to_slice(&hub.tenant_id, &mut tenant_id)
            .map_err(|_| ConfigError::new(path.display(), "tenantId must be 20 hex digits"))?;
        let pod_ip: IpAddr = parsed("ACB_POD_IP", "127.0.0.1")?;
        // In a pod agents may also come through a port-forward, which connects to the loopback address.
        let grpc_ip = match pod_ip {
            ip if ip.is_loopback() => ip,
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let postgres = postgres_options(&hub.postgres, &dir.join("postgres"), &path)?;
        let kafka = kafka_settings(&hub, &dir.join("kafka"))?;
        let replaced = |store: &str| Replaced::read(&dir.join(store), &dir.join(format!("{store}-previous")));
        let replaced = ReplacedPasswords { postgres: replaced("postgres")?, kafka: replaced("kafka")? };
        Ok(Self {
            tenant_id,
            replica: variable("ACB_POD_NAME", "hub-0"),
            grpc: SocketAddr::new(grpc_ip, parsed("ACB_GRPC_PORT", "8443")?),
            operations: SocketAddr::new(pod_ip, parsed("ACB_OPS_PORT", "8080")?),
            postgres,
            kafka,
            replaced,
            hub,
            dir,
        })
    }

    /// The keys, as they are now.
    pub(crate) fn keyring(&self) -> Result<Keyring, ConfigError> {
        let dir = self.dir.join("keys");
        let previous = self.previous_keys()?;
        let pem = text(&dir.join("signing.key"))?;
        let keyring = Keyring::new(&pem, bytes(&dir.join("pepper"))?, bytes(&dir.join("refresh.key"))?, &previous);
        let before = dir.join("signing.previous.key");
        // A Secret of before has neither.
        let keyring = match seconds(&dir.join("signing.from")).filter(|_| !previous.is_empty() && before.exists()) {
            Some(from) => {
                let before = text(&before)?;
                keyring.and_then(|keyring| keyring.signing_from(from, &before))
            }
            None => keyring,
        };
        keyring.map_err(|error| ConfigError::new(dir.display(), error))
    }

    /// The key that signs the audit trail, as it is now. A Secret of before that has none: its next generation does.
    pub(crate) fn audit_key(&self) -> Result<Option<Signing>, ConfigError> {
        let path = self.dir.join("keys/audit.key");
        if !path.exists() {
            return Ok(None);
        }
        let key =
            signing_key("audit.key", &text(&path)?).map_err(|error| ConfigError::new(self.dir.join("keys").display(), error))?;
        let name = format!("acb.dev/audit/{}/{}", self.hub.tenant, self.hub.tenant_id);
        Signing::new(&name, key).map(Some).map_err(|error| ConfigError::new(path.display(), error))
    }

    /// The public keys before, whose tokens are taken now. Each has its time in the other file; without that file they are taken for good.
    pub(crate) fn previous_keys(&self) -> Result<Vec<String>, ConfigError> {
        let (path, times) = (self.dir.join("keys/signing.previous.pub"), self.dir.join("keys/signing.previous.until"));
        if !path.exists() {
            return Ok(Vec::new());
        }
        let keys = text(&path)?;
        let keys = keys.split_inclusive(PUBLIC_KEY_END).map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned);
        let keys: Vec<String> = keys.collect();
        if !times.exists() {
            return Ok(keys);
        }
        let untils: Vec<Option<i64>> = text(&times)?.lines().map(|line| line.trim().parse().ok()).collect();
        if untils.len() != keys.len() || untils.contains(&None) {
            let problem = format!("has to have a time in Unix seconds for each of {} keys, one in a line", keys.len());
            return Err(ConfigError::new(times.display(), problem));
        }
        let now = OffsetDateTime::now_utc().unix_timestamp();
        Ok(keys.into_iter().zip(untils).filter(|(_, until)| until.is_some_and(|until| now < until)).map(|(key, _)| key).collect())
    }

    /// The certificate chain and key, as they are now.
    pub(crate) fn tls(&self) -> Result<(Vec<u8>, Vec<u8>), ConfigError> {
        let dir = self.dir.join("tls");
        Ok((bytes(&dir.join("tls.crt"))?, bytes(&dir.join("tls.key"))?))
    }

    /// The certificate to begin with.
    pub(crate) fn certificate(&self) -> Result<Certificate, ConfigError> {
        let (chain, key) = self.tls()?;
        Certificate::from_pem(&chain, &key).map_err(|error| ConfigError::new(self.dir.join("tls").display(), error))
    }

    /// Where the log is looked for.
    pub(crate) fn log_place(&self) -> String {
        match &self.hub.bus {
            BusConfig::Postgres {} => format!("PostgreSQL at {}:{}", self.hub.postgres.host, self.hub.postgres.port),
            BusConfig::Kafka { bootstrap_servers, .. } => format!("Kafka at {bootstrap_servers}"),
        }
    }

    /// The folders that are read again when they change.
    pub(crate) fn reloaded(&self) -> [PathBuf; 2] {
        [self.dir.join("tls"), self.dir.join("keys")]
    }
}

/// The time that a file names in Unix seconds.
fn seconds(file: &Path) -> Option<OffsetDateTime> {
    let seconds = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

/// A password, and the one that it takes the place of. A store takes one of a user, and the new one once every replica has it.
#[derive(Clone)]
pub(crate) struct Replaced {
    pub(crate) new: String,
    pub(crate) previous: String,
}

impl fmt::Debug for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replaced(…)")
    }
}

impl Replaced {
    /// `None` where there is none before.
    fn read(new: &Path, previous: &Path) -> Result<Option<Self>, ConfigError> {
        let previous = previous.join("password");
        if !previous.exists() {
            return Ok(None);
        }
        let line = |path: &Path| Ok(text(path)?.trim_end().to_owned());
        Ok(Some(Self { new: line(&new.join("password"))?, previous: line(&previous)? }))
    }
}

/// Of each store.
#[derive(Debug)]
pub(crate) struct ReplacedPasswords {
    pub(crate) postgres: Option<Replaced>,
    pub(crate) kafka: Option<Replaced>,
}

fn postgres_options(config: &PostgresConfig, secret: &Path, place: &Path) -> Result<PgConnectOptions, ConfigError> {
    let mode: PgSslMode = config.ssl_mode.parse().map_err(|error| ConfigError::new(place.display(), error))?;
    // Not from PG* variables or a passfile: what is given is all there is.
    let options = PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .database(&config.database)
        .username(text(&secret.join("username"))?.trim_end())
        .password(text(&secret.join("password"))?.trim_end())
        .application_name("acb-hub")
        .ssl_mode(mode)
        .disable_statement_logging();
    let ca = secret.join("ca.crt");
    Ok(if ca.exists() { options.ssl_root_cert(ca) } else { options })
}

fn kafka_settings(hub: &HubConfig, secret: &Path) -> Result<Option<KafkaSettings>, ConfigError> {
    let BusConfig::Kafka { bootstrap_servers, tls } = &hub.bus else { return Ok(None) };
    let authorities = if *tls { Some(text(&secret.join("ca.crt"))?) } else { None };
    Ok(Some(KafkaSettings {
        bootstrap_servers: bootstrap_servers.clone(),
        tenant: hub.tenant.clone(),
        username: text(&secret.join("username"))?.trim_end().to_owned(),
        password: text(&secret.join("password"))?.trim_end().to_owned().into(),
        authorities,
    }))
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

fn parsed<T: std::str::FromStr<Err: fmt::Display>>(name: &str, default: &str) -> Result<T, ConfigError> {
    variable(name, default).parse().map_err(|error| ConfigError::new(name, error))
}

fn text(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn bytes(path: &Path) -> Result<Vec<u8>, ConfigError> {
    fs::read(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    ConfigError::new(path.display(), format!("can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_files_are_read() {
        let postgres = r#"{"host": "127.0.0.1", "port": 5432, "database": "acb", "sslMode": "prefer"}"#;
        for bus in [r#"{"kind": "postgres"}"#, r#"{"kind": "kafka", "bootstrapServers": "127.0.0.1:9092", "tls": false}"#] {
            let json =
                format!(r#"{{"tenant": "acme", "tenantId": "00112233445566778899", "bus": {bus}, "postgres": {postgres}}}"#);
            serde_json::from_str::<HubConfig>(&json).unwrap();
        }
    }

    #[test]
    fn opentelemetrys_variables_are_taken_where_they_are_for_a_hub() {
        let read = |endpoint: &str, ratio: Option<&str>| {
            TracingConfig::of_environment(|name, otherwise| match name {
                "OTEL_EXPORTER_OTLP_ENDPOINT" => endpoint.to_owned(),
                "OTEL_TRACES_SAMPLER_ARG" => ratio.unwrap_or(otherwise).to_owned(),
                _ => otherwise.to_owned(),
            })
        };
        let there = "http://127.0.0.1:4317";
        for (ratio, part) in [
            (None, 1.0),
            (Some("0"), 0.0),
            (Some("0.25"), 0.25),
            (Some(""), 1.0),
            (Some("many"), 1.0),
            (Some("-1"), 1.0),
            (Some("1.5"), 1.0),
            (Some("NaN"), 1.0),
        ] {
            assert_eq!(read(there, ratio), Some(TracingConfig { endpoint: there.to_owned(), sample_ratio: part }), "{ratio:?}");
        }
        for none in ["", "https://collector:4317", "collector:4317", "grpc://collector"] {
            assert_eq!(read(none, None), None, "{none}");
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let json = r#"{"tenant": "acme", "tenantId": "00", "bus": {"kind": "redis"}, "postgres": {}}"#;
        assert!(serde_json::from_str::<HubConfig>(json).is_err());
    }
}
