//! From a Tenant and the world to a plan and a status.

pub mod access;
pub mod adoption;
pub mod bandwidth;
mod decision;
pub mod fetch;
pub mod hub;
pub(crate) mod hub_names;
pub mod hub_secrets;
mod hub_spec;
pub mod isolation;
pub mod issuer;
mod label;
pub mod namespace;
pub mod network;
pub mod object_quota;
mod oidc;
pub mod opening;
pub(crate) mod orphan;
pub mod owned;
pub mod plan;
pub mod proved_logins;
mod read;
mod removal;
pub(crate) mod replicas;
mod restraint;
pub mod retirement;
pub mod rollout;
pub mod rotation;
pub mod scaling;
pub mod space;
pub mod status;
pub mod validate;
pub mod verification;

use std::collections::{BTreeMap, BTreeSet};

use acb_crds::{Tenant, names::TenantName};
use serde_json::Value;

pub use self::{
    decision::{Decision, decide},
    read::Read,
    removal::Stage,
};
use crate::{
    effect::{
        EffectError,
        kubernetes::{ObjectKey, SecretDetails},
        postgres_observe::ObservedTenant,
    },
    observed::{LoginState, ObservedIssuer, ObservedKafka},
    plan::{IssuerRow, SecretRef, TenantRow, TopicSpec},
    platform::Platform,
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
    /// Of those, what can't wait for a turn: certificates that are close to their end.
    pub overdue: BTreeSet<SecretRef>,
    /// Namespaces whose Secrets may not be read yet: what is in `secrets` is not all there is.
    pub closed: BTreeSet<String>,
    /// Whether the API server told of every namespace: only then is what is in `objects` and `secrets` all there is.
    pub kubernetes: Read<()>,
    /// What PostgreSQL holds of it.
    pub postgres: Read<ObservedTenant>,
    /// What became of logging in to PostgreSQL as the tenant, with the newest Secret.
    pub login: LoginState,
    /// The same with the Secret before it, where the newest was refused.
    pub previous_login: LoginState,
    /// Whether every replica of the hub is of the newest revision of its Deployment, and ready.
    pub rolled_out: bool,
    /// What Kafka holds of it; nothing where the log is in PostgreSQL.
    pub kafka: Read<ObservedKafka>,
    /// Why it is not known whether a password works: its Secret can't be read, or the store did not say.
    pub unanswered: Vec<EffectError>,
    /// Another tenant's data under the same name.
    pub retained: Option<RetainedData>,
    /// Whether its hub waits for its turn to roll for the platform's sake: until then it stays as it is.
    pub held: bool,
    /// Who issues the tokens of ServiceAccounts, as far as that is known.
    pub issuer: Option<ObservedIssuer>,
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
            overdue: BTreeSet::new(),
            closed: BTreeSet::new(),
            kubernetes: Read::default(),
            postgres: Read::default(),
            login: LoginState::Refused,
            previous_login: LoginState::Refused,
            rolled_out: false,
            kafka: Read::default(),
            unanswered: Vec::new(),
            retained: None,
            held: false,
            issuer: None,
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
    /// Whose data a Tenant has: as it was read or, where nothing was, as it follows from the Tenant itself.
    #[must_use]
    pub fn identity(&self, tenant: &Tenant) -> adoption::Identity {
        let known = self.identity.clone();
        known.unwrap_or_else(|| adoption::identity(tenant, adoption::asked(tenant), &self.tenancy.tenants, None))
    }

    /// Who is to be known to issue the tokens of ServiceAccounts, where this row is there now. As long as the cluster was not asked, it is who it was.
    fn issuer(&self, row: Option<&IssuerRow>) -> Option<IssuerRow> {
        self.issuer.as_ref().map(|seen| issuer::following(row, seen)).or_else(|| row.cloned())
    }

    /// The tenant's topics, on whichever bus they are; `None` while that is away.
    #[must_use]
    pub fn topics(&self, platform: &Platform) -> Option<&BTreeMap<String, TopicSpec>> {
        if platform.has_kafka() {
            self.kafka.known().map(|kafka| &kafka.topics)
        } else {
            self.postgres.known().map(|postgres| &postgres.topics)
        }
    }

    /// The topics of context types, each with its type: not ACB's own, and none that keeps the last of each key for good.
    pub(crate) fn context_topics<'a>(
        &'a self,
        name: &TenantName,
        platform: &Platform,
    ) -> impl Iterator<Item = (&'a str, &'a TopicSpec)> + use<'a> {
        let prefix = name.topic_prefix();
        self.topics(platform).into_iter().flatten().filter_map(move |(topic, spec)| {
            let context_type = topic.strip_prefix(prefix.as_str())?;
            (!context_type.contains('.') && spec.cleanup == "delete").then_some((context_type, spec))
        })
    }

    /// The context types that have such a topic. While the log is away, those that PostgreSQL knows of: nobody is let in because it is.
    #[must_use]
    pub fn existing_types(&self, name: &TenantName, platform: &Platform) -> BTreeSet<String> {
        if self.topics(platform).is_some() {
            return self.context_topics(name, platform).map(|(context_type, _)| context_type.to_owned()).collect();
        }
        let prefix = name.topic_prefix();
        let retired = self.postgres.known().into_iter().flat_map(|known| known.retired.keys());
        let retired = retired.filter_map(|topic| topic.strip_prefix(prefix.as_str())).map(str::to_owned);
        let asked = self.row().into_iter().flat_map(|row| &row.context_types).map(|row| row.name.clone());
        retired.chain(asked).collect()
    }

    /// The tenant's row, where PostgreSQL has one.
    #[must_use]
    pub fn row(&self) -> Option<&TenantRow> {
        self.postgres.known()?.tenant.as_ref()
    }

    /// Why some of it is not known: systems that are away, and logins that were not answered.
    #[must_use]
    pub fn away(&self) -> Vec<EffectError> {
        let systems = [self.kubernetes.away(), self.postgres.away(), self.kafka.away()];
        systems.into_iter().flatten().chain(&self.unanswered).cloned().collect()
    }

    /// The newest generation of a Secret that is there, or the first; the next one where that no longer serves.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str) -> SecretRef {
        let newest = newest(&self.secrets, namespace, name);
        let generation = newest.generation + u64::from(self.outdated.contains(&newest) && !self.held);
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
