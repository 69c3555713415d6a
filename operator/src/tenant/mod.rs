//! From a Tenant and the world to a plan and a status.

pub mod access;
pub mod adoption;
pub mod bandwidth;
pub mod fetch;
pub mod hub;
pub mod hub_secrets;
pub mod namespace;
pub mod network;
pub mod object_quota;
pub mod opening;
mod orphan;
pub mod plan;
mod quantity;
pub mod rotation;
pub mod scaling;
pub mod space;
pub mod status;
pub mod validate;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    effect::{
        kubernetes::{ObjectKey, SecretDetails},
        postgres_observe::{LoginState, ObservedTenant},
    },
    plan::{KafkaQuota, SecretRef, TopicSpec},
    tenancy::Tenancy,
};

/// What fetch read before anything is decided about a Tenant.
#[derive(Clone, Debug)]
pub struct World {
    /// The other Tenants, and the Agents and Quotas in this one's namespace.
    pub tenancy: Tenancy,
    /// Whose data it has, as far as PostgreSQL was asked.
    pub identity: Option<adoption::Identity>,
    /// Objects that are there, as far as the plan may name them.
    pub objects: BTreeMap<ObjectKey, Value>,
    /// Secrets that are there.
    pub secrets: BTreeSet<SecretRef>,
    /// What is known of them.
    pub details: BTreeMap<SecretRef, SecretDetails>,
    /// Of those, what no longer serves: another generation is to take its place.
    pub outdated: BTreeSet<SecretRef>,
    /// Namespaces whose Secrets may not be read yet: what is in `secrets` is not all there is.
    pub closed: BTreeSet<String>,
    /// What PostgreSQL holds of it.
    pub postgres: ObservedTenant,
    /// What became of logging in to PostgreSQL as the tenant, with the newest Secret.
    pub login: LoginState,
    /// The same with the Secret before it, where the newest was refused.
    pub previous_login: LoginState,
    /// Whether every replica of the hub is of the newest revision of its Deployment, and ready.
    pub rolled_out: bool,
    /// What Kafka holds of it; `None` where the log is in PostgreSQL.
    pub kafka: Option<ObservedKafka>,
    /// Another tenant's data under the same name.
    pub retained: Option<RetainedData>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            tenancy: Tenancy::default(),
            identity: None,
            objects: BTreeMap::new(),
            secrets: BTreeSet::new(),
            details: BTreeMap::new(),
            outdated: BTreeSet::new(),
            closed: BTreeSet::new(),
            postgres: ObservedTenant::default(),
            login: LoginState::Refused,
            previous_login: LoginState::Refused,
            rolled_out: false,
            kafka: None,
            retained: None,
        }
    }
}

/// What Kafka holds of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedKafka {
    /// By name.
    pub topics: BTreeMap<String, TopicSpec>,
    /// Of those, the ones with a setting that no plan gives them.
    pub misconfigured: BTreeSet<String>,
    /// What became of logging in as the tenant, with the newest Secret.
    pub user: LoginState,
    /// The same with the Secret before it, where the newest was refused.
    pub previous: LoginState,
    /// Whether there are credentials of the tenant's user at all.
    pub has_user: bool,
    /// Whether its ACLs are exactly those that it should have.
    pub acls: bool,
    /// What its user may take of each broker.
    pub quota: KafkaQuota,
    /// What of the brokers' settings puts its data at risk.
    pub risks: Vec<String>,
}

impl Default for ObservedKafka {
    fn default() -> Self {
        Self {
            topics: BTreeMap::new(),
            misconfigured: BTreeSet::new(),
            user: LoginState::Refused,
            previous: LoginState::Refused,
            has_user: false,
            acls: false,
            quota: KafkaQuota::default(),
            risks: Vec::new(),
        }
    }
}

/// Data that an earlier Tenant of the same name left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedData {
    /// Its id.
    pub tenant_id: String,
    /// Where, such as `PostgreSQL` or `Kafka topics acb.acme.*`.
    pub place: String,
}

impl World {
    /// The newest generation of a Secret that is there, or the first; the next one where that no longer serves.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str) -> SecretRef {
        let newest = newest(&self.secrets, namespace, name);
        let generation = newest.generation + u64::from(self.outdated.contains(&newest));
        SecretRef { generation, ..newest }
    }
}

/// The newest generation of a Secret that is there, or the first.
#[must_use]
pub fn newest(secrets: &BTreeSet<SecretRef>, namespace: &str, name: &str) -> SecretRef {
    let known = secrets.iter().filter(|secret| secret.namespace == namespace && secret.name == name);
    let generation = known.map(|secret| secret.generation).max().unwrap_or(1);
    SecretRef { namespace: namespace.to_owned(), name: name.to_owned(), generation }
}
