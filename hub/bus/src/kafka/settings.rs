//! How the brokers are reached.

use std::fmt;

use zeroize::Zeroizing;

/// Where the brokers are, and who asks. Debug shows no password.
#[derive(Clone)]
pub struct KafkaSettings {
    /// `host:port`, more than one with commas.
    pub bootstrap_servers: String,
    /// The tenant's name, which begins the names of its topics and of its group.
    pub tenant: String,
    /// Of SCRAM-SHA-512.
    pub username: String,
    /// Of SCRAM-SHA-512.
    pub password: Zeroizing<String>,
    /// The authorities (PEM) that sign the brokers' certificates, where they speak TLS.
    pub authorities: Option<String>,
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bootstrap_servers, tenant, username, authorities, .. } = self;
        f.debug_struct("KafkaSettings")
            .field("bootstrap_servers", bootstrap_servers)
            .field("tenant", tenant)
            .field("username", username)
            .field("tls", &authorities.is_some())
            .finish_non_exhaustive()
    }
}
