//! What was seen in the stores, as plain data: effects fill it in, deciders read it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

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

/// How a tenant's hub is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedHub {
    /// Replicas that there should be.
    pub replicas: u32,
    /// Those that take traffic, of whichever revision.
    pub ready: u32,
    /// Whether every replica is of the newest revision and takes traffic, and none of an earlier one is left.
    pub rolled_out: bool,
    /// Whether a revision is on its way to that, and not held up.
    pub rolling: bool,
    /// What a replica of the newest revision runs.
    pub image: String,
    /// What it lacks; empty where it is rolled out.
    pub lacks: String,
    /// Why it can't run here at all.
    pub fault: Option<String>,
}

/// What the agents of a tenant have used, by UID. What a registered agent uses is on the account of who registered it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedUsage {
    /// Messages in this calendar month, as far as they are summed.
    pub messages: BTreeMap<String, i64>,
    /// Bytes of contexts.
    pub stored: BTreeMap<String, i64>,
    /// How many contexts those are.
    pub contexts: BTreeMap<String, i64>,
}

/// Who issues the tokens of the cluster's ServiceAccounts, as its API server said lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedIssuer {
    /// What its tokens have as `iss`.
    pub issuer: String,
    /// Its public keys, as a JSON Web Key Set.
    pub jwks: Value,
    /// Whether it was asked so often that what it did not name is given up.
    pub is_settled: bool,
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
    /// Rounds of their hash: by that they are told from those that someone else sets.
    pub credential_rounds: u32,
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
            credential_rounds: 0,
            acls: false,
            quota: KafkaQuota::default(),
            risks: Vec::new(),
        }
    }
}
