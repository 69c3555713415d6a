//! What was seen in the stores, as plain data: effects fill it in, deciders read it.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{KafkaQuota, TopicSpec};

/// What became of logging in with a password: no store gives one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginState {
    /// The password is right.
    Works,
    /// It is wrong, or the login is barred or missing.
    Refused,
    /// The store did not say.
    Unknown,
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
