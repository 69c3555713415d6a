//! From an Agent and the world to a plan and a status.

mod decision;
pub mod fetch;
pub mod plan;
mod restraint;
pub mod rotation;
mod rotation_policy;
mod service_account;
pub mod status;
pub mod validate;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use acb_crds::names::TenantId;

pub use self::decision::{Decision, decide};
use crate::{
    plan::{AgentRow, SecretRef},
    tenancy::Census,
};

/// What fetch read before anything is decided about an Agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct World {
    /// Of this one's namespace, and shared with the others there.
    pub census: Arc<Census>,
    /// Its tenant's, as far as PostgreSQL was asked.
    pub tenant_id: Option<TenantId>,
    /// By which it is known: its UID, or that of the one whose place it takes in adopted data.
    pub id: Option<String>,
    /// Secrets that are there: its key, and its tenant's hub keys.
    pub secrets: BTreeSet<SecretRef>,
    /// Whether its key is as old as its rotation policy allows.
    pub is_key_old: bool,
    /// Keys that were replaced and that no longer work.
    pub ended_keys: BTreeSet<SecretRef>,
    /// Whether a key that was replaced still works.
    pub has_replaced_key: bool,
    /// What the requests for rotations are that its keys answer.
    pub asked: BTreeMap<SecretRef, String>,
    /// When its keys were made, in RFC 3339.
    pub made: BTreeMap<SecretRef, String>,
    /// Whether its tenant has a row in PostgreSQL.
    pub tenant_projected: bool,
    /// Its own row in PostgreSQL.
    pub row: Option<AgentRow>,
    /// What PostgreSQL holds of its key.
    pub api_key: StoredApiKey,
    /// The UID of the ServiceAccount that it names, where that is there.
    pub account_uid: Option<String>,
    /// The Agent that has this ServiceAccount already, and that this version can't read.
    pub account_holder: Option<String>,
    /// Whether its tenant's hub knows who issues the tokens of ServiceAccounts.
    pub has_issuer: bool,
}

/// What PostgreSQL holds of an agent's key, compared to the Secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoredApiKey {
    /// None.
    #[default]
    Absent,
    /// That of the Secret.
    Current,
    /// Another.
    Stale,
}
