//! What the operator was told about the platform that it serves.

use serde::{Deserialize, Serialize};

use crate::{rollout::MaxConcurrent, tier::TierOverrides};

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
    /// The operator's own namespace, which holds the tenants' authorities.
    pub operator_namespace: String,
    /// Names beside the Service's that hubs are reached by, such as `localhost`.
    pub extra_tls_names: Vec<String>,
    /// What this platform allows differently.
    pub tiers: TierOverrides,
    /// How many tenants roll at a time for the platform's sake.
    pub rollout: MaxConcurrent,
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
            operator_namespace: "acb-system".to_owned(),
            extra_tls_names: Vec::new(),
            tiers: TierOverrides::new(),
            rollout: MaxConcurrent::Percent(100),
        }
    }

    /// Whether the log is on Kafka.
    #[must_use]
    pub fn has_kafka(&self) -> bool {
        matches!(self.bus, PlatformBus::Kafka { .. })
    }
}
