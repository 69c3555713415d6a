//! The custom resources of ACB, group `acb.dev`: their types and schemas, the names derived from them, and the check of a document
//! against them. No I/O.

pub mod agent;
mod cel;
pub mod common;
mod definition;
pub mod document;
pub mod names;
pub mod quota;
pub mod schema;
pub mod tenant;
mod violation;

pub use agent::{Agent, AgentSpec, AgentStatus};
pub use common::{Condition, Limits, Retention};
pub use quota::{Quota, QuotaSpec, QuotaStatus};
pub use tenant::{Tenant, TenantSpec, TenantStatus, Tier};

/// The API version of all three kinds.
pub const API_VERSION: &str = "acb.dev/v1alpha1";
