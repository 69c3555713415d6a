//! What a cluster and a single machine do differently.

use std::collections::BTreeSet;

use acb_crds::{
    schema::ObjectRef,
    tenant::{Endpoint, IsolationStatus},
};
use async_trait::async_trait;
use serde_json::Value;

use super::{deletion::Ending, news::News};
use crate::{
    effect::{EffectError, kafka::KafkaEffect, kubernetes::Objects, postgres::PostgresEffect},
    observed::ObservedHub,
    platform::Platform,
    tenancy::Tenancy,
    tenant::{
        fetch::{Hubs, PostgresReader},
        validate::ValidatedTenant,
    },
};

/// PostgreSQL, to read and to write.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    /// Reads as `acb_operator`.
    pub(crate) reader: PostgresReader,
    /// Writes with the leader's epoch.
    pub(crate) effect: PostgresEffect,
}

/// Where resources come from, where their status goes, and through what the world is changed. An error is about everything that was
/// asked for: nothing of it may be taken as done.
#[async_trait]
pub(crate) trait Runtime: Hubs {
    /// What the operator was told.
    fn platform(&self) -> &Platform;
    /// Every Tenant, and the Agents and Quotas of a namespace, those on their way out too.
    fn tenancy(&self, namespace: &str) -> Result<Tenancy, EffectError>;
    /// The objects of the plan.
    fn objects(&self) -> &dyn Objects;
    /// PostgreSQL, once this process may write to it.
    async fn database(&self) -> Result<Database, EffectError>;
    /// Kafka, where the log is on it.
    fn kafka(&self) -> Result<Option<KafkaEffect>, EffectError>;
    /// Fails where this process may no longer change anything. Every effect that another system does not fence asks again by itself.
    fn may_act(&self) -> Result<(), EffectError>;
    /// Makes sure that the resource with this UID can't go before it is taken down. Comes before anything is made for it, and fails where it
    /// is gone already.
    async fn hold(&self, object: &ObjectRef, uid: &str) -> Result<(), EffectError>;
    /// Lets the resource with this UID go that is on its way out; not another that came under its name.
    async fn let_go(&self, object: &ObjectRef, uid: &str, ending: &Ending) -> Result<(), EffectError>;
    /// Sets the status of the resource with this UID, where it differs, and nothing else of it; not of another that came under its name.
    async fn set_status(&self, object: &ObjectRef, uid: &str, status: Value) -> Result<(), EffectError>;
    /// Tells people. Never an error: news that is lost is in the status, too.
    async fn tell(&self, object: &ObjectRef, news: News);
    /// Whether the resource is not looked at, because its document was refused.
    fn is_refused(&self, object: &ObjectRef) -> bool;
    /// How what the plan runs is doing.
    fn hub(&self, tenant: &ValidatedTenant) -> ObservedHub;
    /// Each way to the hub.
    fn endpoints(&self, tenant: &ValidatedTenant) -> Vec<Endpoint>;
    /// What of a tenant others change each time that it was set right, and who.
    fn conflicts(&self, _: &ValidatedTenant) -> Vec<String> {
        Vec::new()
    }
    /// What attacks on the walls of the Tenant with this UID found, where that may be newer than its status.
    fn isolation(&self, _uid: &str) -> Option<IsolationStatus> {
        None
    }
    /// Has these namespaces looked at soon.
    fn wake(&self, _: BTreeSet<String>) {}
    /// After attempts over so long a deletion ends, whatever is left behind; `None`: it is tried for ever.
    fn deletion_bound(&self) -> Option<std::time::Duration>;
}
