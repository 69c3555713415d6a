//! The operator: Tenants, Agents and Quotas become topics, logins, rows and hubs. Every reconcile is a pipeline: fetch, validate,
//! plan, effects, status. What decides is pure; what acts is small and can be repeated.

pub mod agent;
pub mod bootstrap;
pub mod condition;
mod defaults;
mod difference;
pub mod effect;
pub mod local_postgres;
mod local_postgres_binaries;
pub mod metrics_text;
pub mod observed;
pub mod orphans;
pub mod plan;
mod plan_text;
pub mod platform;
pub mod preview;
pub mod quota;
mod reconcile;
pub mod rollout;
pub mod runtime;
pub mod tenancy;
pub mod tenant;
pub mod tier;
pub mod usage;
