//! What the operator was told about the platform that it serves.

use acb_crds::hub::LocalObjectReference;
use acb_oidc::{address::Reach, url::Url};
use serde::{Deserialize, Serialize};

use crate::{rollout::MaxConcurrent, tier::TierOverrides};

/// Where DNS listens unless the platform says otherwise.
pub const DNS_PORTS: [u16; 1] = [53];
/// The user of the images.
pub const RUN_AS_USER: u32 = 65_532;

/// The platform, the same for every tenant of this operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Platform {
    /// Where the log is.
    pub bus: PlatformBus,
    /// Certificates (PEM) that the brokers' are signed by, where they speak TLS.
    pub kafka_authorities: Option<String>,
    /// Where the rows are.
    pub postgres: PlatformPostgres,
    /// Certificates (PEM) that the server's is signed by, where no public authority did.
    pub postgres_authorities: Option<String>,
    /// The hub's image.
    pub hub_image: String,
    /// At which the pods of the cluster's DNS listen.
    pub dns_ports: Vec<u16>,
    /// User and group of the hubs' pods; without one the cluster chooses, as OpenShift does.
    pub run_as_user: Option<u32>,
    /// Repositories beside that image's, of which a Tenant may name an image for its own hub. `None`: of any, where no image is run.
    pub hub_image_repositories: Option<Vec<String>>,
    /// Secrets in each hub's namespace with the logins of registries. Who puts them there is not the operator.
    pub hub_image_pull_secrets: Vec<LocalObjectReference>,
    /// The operator's own namespace, which holds the tenants' authorities.
    pub operator_namespace: String,
    /// Names beside the Service's that hubs are reached by, such as `localhost`.
    pub extra_tls_names: Vec<String>,
    /// What this platform allows differently.
    pub tiers: TierOverrides,
    /// Whether there are Kubernetes ServiceAccounts that agents can prove themselves with.
    pub has_service_accounts: bool,
    /// How many tenants roll at a time for the platform's sake.
    pub rollout: MaxConcurrent,
    /// Where the hubs' traces are collected.
    pub tracing: Option<PlatformTracing>,
    /// How the walls between tenants are attacked, where they are.
    pub isolation: Option<PlatformIsolation>,
    /// OpenID Connect issuers that Tenants may name. `None`: any, where no hub asks one.
    pub allowed_issuers: Option<Vec<AllowedIssuer>>,
    /// Who is shown the checkpoints of the audit trails.
    pub witness: Option<PlatformWitness>,
}

/// A witness outside of the platform, as in `hub.json`: it remembers the checkpoints of the audit trails (<https://c2sp.org/tlog-witness>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformWitness {
    /// Its submission prefix, such as `https://witness.example.com`.
    pub url: String,
    /// Networks in which it is, and nowhere else. Without any it is at a public address.
    #[serde(default)]
    pub cidrs: Vec<String>,
    /// Certificates that sign its own, in PEM. Those of the system where empty.
    #[serde(default)]
    pub certificate_authority: String,
}

impl PlatformWitness {
    /// Whether hubs can ask it.
    ///
    /// # Errors
    /// What is wrong with its URL, or with a network.
    pub fn check(&self) -> Result<(), String> {
        can_be_asked(&self.url, &self.cidrs)
    }
}

/// Whether hubs can ask what is at this URL, in these networks or at a public address.
fn can_be_asked(url: &str, cidrs: &[String]) -> Result<(), String> {
    Url::issuer(url)?;
    Reach::public_or(cidrs.iter().map(String::as_str)).map(drop)
}

/// How the walls between tenants are attacked from within, to see whether they stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformIsolation {
    /// The image of the command line.
    pub image: String,
    /// How often the walls of each tenant are attacked.
    #[serde(default = "a_day")]
    pub interval_seconds: u32,
    /// Tenants that each other one attacks each time, such as a canary.
    #[serde(default)]
    pub neighbours: Vec<String>,
}

fn a_day() -> u32 {
    86_400
}

/// An OpenID Connect issuer that Tenants may name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllowedIssuer {
    /// Its URL, as its tokens have it, to the letter.
    pub url: String,
    /// Networks in which it may be, and nowhere else. Without any it is at a public address.
    #[serde(default)]
    pub cidrs: Vec<String>,
}

impl AllowedIssuer {
    /// Whether hubs can ask it.
    ///
    /// # Errors
    /// What is wrong with its URL, or with a network.
    pub fn check(&self) -> Result<(), String> {
        can_be_asked(&self.url, &self.cidrs)
    }
}

/// Where traces are collected, as in `hub.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformTracing {
    /// Of a collector that speaks OTLP over gRPC, such as `http://collector.monitoring:4317`.
    pub endpoint: String,
    /// The part of the calls that begin a trace at a hub and are collected, from 0 to 1. What its caller collects is, always.
    #[serde(default)]
    pub sample_ratio: f64,
}

impl PlatformTracing {
    /// Host and port, where the endpoint is one.
    #[must_use]
    pub fn address(&self) -> Option<(&str, u16)> {
        let (host, port) = self.endpoint.strip_prefix("http://")?.trim_end_matches('/').rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#']);
        Some((host, port.parse().ok().filter(|port| *port > 0)?)).filter(|_| plain)
    }
}

/// Where the log is, as in `hub.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum PlatformBus {
    /// In the database.
    Postgres,
    /// On Kafka.
    Kafka {
        /// `host:port`, more than one with commas.
        bootstrap_servers: String,
        /// Whether the brokers speak TLS.
        tls: bool,
    },
}

/// Where the rows are, as in `hub.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlatformPostgres {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// As in libpq.
    pub ssl_mode: String,
}

impl Platform {
    /// One that keeps the log in the database, with the names that a cluster gives.
    #[must_use]
    pub fn new(postgres: PlatformPostgres) -> Self {
        Self {
            bus: PlatformBus::Postgres,
            kafka_authorities: None,
            postgres,
            postgres_authorities: None,
            hub_image: format!("acb-hub:{}", env!("CARGO_PKG_VERSION")),
            dns_ports: DNS_PORTS.to_vec(),
            run_as_user: Some(RUN_AS_USER),
            hub_image_repositories: None,
            hub_image_pull_secrets: Vec::new(),
            operator_namespace: "acb-system".to_owned(),
            extra_tls_names: Vec::new(),
            tiers: TierOverrides::new(),
            has_service_accounts: false,
            rollout: MaxConcurrent::Percent(100),
            tracing: None,
            isolation: None,
            allowed_issuers: Some(Vec::new()),
            witness: None,
        }
    }

    /// Whether a Tenant may name this image for its own hub: of the repository of the platform's, or of one that the platform allows.
    #[must_use]
    pub fn allows_hub_image(&self, image: &str) -> bool {
        let Some(repositories) = &self.hub_image_repositories else { return true };
        let image = repository(image);
        image == repository(&self.hub_image) || repositories.iter().any(|allowed| allowed == image)
    }

    /// The issuer of this URL, where a Tenant may name it.
    #[must_use]
    pub fn allowed_issuer(&self, url: &str) -> Option<AllowedIssuer> {
        match &self.allowed_issuers {
            Some(allowed) => allowed.iter().find(|allowed| allowed.url == url).cloned(),
            None => Some(AllowedIssuer { url: url.to_owned(), cidrs: Vec::new() }),
        }
    }

    /// Whether the log is on Kafka.
    #[must_use]
    pub fn has_kafka(&self) -> bool {
        matches!(self.bus, PlatformBus::Kafka { .. })
    }
}

/// An image without its tag and its digest.
fn repository(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(image, _)| image);
    // What is behind a colon before the last slash is a port.
    match image.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_a_host_and_a_port() {
        let address = |endpoint: &str| {
            let tracing = PlatformTracing { endpoint: endpoint.to_owned(), sample_ratio: 0.0 };
            tracing.address().map(|(host, port)| format!("{host} {port}"))
        };
        assert_eq!(address("http://collector.monitoring:4317").as_deref(), Some("collector.monitoring 4317"));
        assert_eq!(address("http://[::1]:4317/").as_deref(), Some("::1 4317"));
        for wrong in
            ["", "collector:4317", "https://collector:4317", "http://collector", "http://:4317", "http://c:0", "http://c/x:1"]
        {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_tenant_names_another_version_and_no_other_program() {
        let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
        let mut platform = Platform::new(postgres);
        assert!(platform.allows_hub_image("canary.example/acb-hub:next"), "no image is run");
        platform.hub_image = "registry.example:5000/acb/acb-hub:0.1.0".to_owned();
        platform.hub_image_repositories = Some(Vec::new());
        let digest = format!("registry.example:5000/acb/acb-hub@sha256:{}", "0".repeat(64));
        for image in ["registry.example:5000/acb/acb-hub:0.2.0", "registry.example:5000/acb/acb-hub", &digest] {
            assert!(platform.allows_hub_image(image), "{image}");
        }
        for image in [
            "",
            "acb-hub:0.1.0",
            "registry.example:5000/acb/acb-hub-evil:0.1.0",
            "registry.example:5000/acb/acb-hub/evil:0.1.0",
            "registry.example/acb/acb-hub:0.1.0",
            "evil.example/registry.example:5000/acb/acb-hub",
        ] {
            assert!(!platform.allows_hub_image(image), "{image}");
        }
        platform.hub_image_repositories = Some(vec!["canary.example/acb-hub".to_owned()]);
        assert!(platform.allows_hub_image("canary.example/acb-hub:next"));
    }
}
