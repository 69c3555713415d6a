//! Who attacks, with what; and whom, by what anyone may know of it.

use std::fmt;

/// The attacking tenant: its own credentials.
#[derive(Debug)]
pub struct Attacker {
    /// Its name.
    pub tenant: String,
    /// 20 hex digits.
    pub tenant_id: String,
    /// Its hub.
    pub hub: HubAccess,
    /// What its hub logs in to PostgreSQL with.
    pub postgres: PostgresAccess,
    /// What its hub logs in to Kafka with, where Kafka is the bus.
    pub kafka: Option<KafkaAccess>,
    /// The logins of its neighbours' hubs, where whoever runs the attacks has them. Nothing is attacked with them: they tell whether there was anything
    /// to find where nothing was found.
    pub witnesses: Vec<PostgresAccess>,
}

/// A hub, and what lets one of the tenant's agents in.
pub struct HubAccess {
    /// `https://host:port`, one for each replica.
    pub endpoints: Vec<String>,
    /// The tenant's CA.
    pub ca_pem: String,
    /// An agent's API key. Without one, `signing_key` makes a token for an agent that PostgreSQL names.
    pub api_key: Option<String>,
    /// What the hub signs its tokens with (PKCS#8 PEM).
    pub signing_key: Option<String>,
}

impl fmt::Debug for HubAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubAccess").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// A login of PostgreSQL.
#[derive(Clone)]
pub struct PostgresAccess {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// The tenant's own login.
    pub username: String,
    /// Its password.
    pub password: String,
    /// As in libpq.
    pub ssl_mode: String,
    /// The server's CA, where no public authority signed its certificate.
    pub ca_pem: Option<String>,
}

impl fmt::Debug for PostgresAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresAccess").field("port", &self.port).field("username", &self.username).finish_non_exhaustive()
    }
}

/// A user of Kafka.
#[derive(Clone)]
pub struct KafkaAccess {
    /// `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// The brokers' CA, where they speak TLS.
    pub ca_pem: Option<String>,
    /// The tenant's own user.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for KafkaAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaAccess").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The tenant under attack. Everything here can be guessed, overheard or read in a log; none of it is a secret.
#[derive(Clone, Debug)]
pub struct Victim {
    /// Its name.
    pub tenant: String,
    /// 20 hex digits.
    pub tenant_id: String,
    /// `https://host:port` of its hub. None: it can't be connected to, and its door is not tried.
    pub hub_endpoints: Vec<String>,
    /// Its CA, which is public.
    pub ca_pem: String,
    /// One of its agents.
    pub agent: String,
    /// One of its groups.
    pub group: String,
    /// One of its context types.
    pub context_type: String,
    /// The id of one of its contexts.
    pub context_id: String,
    /// The id of one of its uploads.
    pub upload_id: String,
    /// What of these names and ids is invented: the neighbour has none, or nobody has named one.
    pub invented: Vec<Thing>,
}

/// Something of a neighbour's that is called by its name or id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// An agent.
    Agent,
    /// A group.
    Group,
    /// A context.
    Context,
    /// An upload.
    Upload,
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Group => "group",
            Self::Context => "context",
            Self::Upload => "upload",
        })
    }
}
