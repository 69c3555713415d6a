//! Which Secrets a tenant has.

use crate::plan::SecretRef;

/// The Secrets of one tenant, by name and generation.
#[derive(Clone, Debug, PartialEq)]
pub struct HubSecrets {
    /// In the operator's namespace.
    pub authority: SecretRef,
    /// The hub's leaf.
    pub tls: SecretRef,
    /// Signing key, pepper, key of refresh tokens.
    pub keys: SecretRef,
    /// The login to PostgreSQL.
    pub postgres: SecretRef,
    /// The login to Kafka, where it is used.
    pub kafka: Option<SecretRef>,
    /// The names in the leaf.
    pub tls_names: Vec<String>,
    /// Of those, the addresses that a load balancer gave.
    pub tls_addresses: Vec<String>,
}

impl HubSecrets {
    /// Those that the hub itself is given.
    #[must_use]
    pub fn of_hub(&self) -> Vec<&SecretRef> {
        [&self.tls, &self.keys, &self.postgres].into_iter().chain(&self.kafka).collect()
    }
}
