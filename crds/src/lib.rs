//! The custom resources of ACB, group `acb.dev`: their types and schemas, the names derived from them, and the check of a document
//! against them. No I/O.

mod cel;
mod confirmation;
mod definition;
pub mod document;
pub mod names;
pub mod schema;
pub mod v1alpha1;
mod violation;

pub use v1alpha1::{
    affinity,
    agent::{self, Agent, AgentSpec, AgentStatus},
    common::{self, Condition, Retention},
    context_type, hub,
    limits::{self, AgentLimits, QuotaLimits, TenantLimits},
    network, quantity,
    quota::{self, Quota, QuotaSpec, QuotaStatus},
    resources, selector,
    tenant::{self, Tenant, TenantSpec, TenantStatus, Tier},
};

/// The API version of all three kinds.
pub const API_VERSION: &str = "acb.dev/v1alpha1";
