//! ACB on a live Kubernetes API: watches wake tenancies, one leader at a time reconciles them, and every write is fenced by the system
//! that it goes to or, where that can't, by the lease. See docs/adr/0005-one-schedule-of-tenancies.md.

mod cache;
mod callers;
mod claims;
mod cluster;
pub mod config;
mod conflicts;
mod database;
mod election;
mod events;
mod hub;
mod isolation;
mod issuer;
mod kinds;
mod lease;
pub mod metrics;
mod objects;
pub mod ops;
mod pause;
mod plan_server;
mod plans;
#[cfg(test)]
mod plans_tests;
mod pulse;
mod requests;
pub mod run;
mod secrets;
mod server;
mod sessions;
mod sweep;
mod tally;
#[cfg(test)]
mod tests;
mod wake;
mod watch;

/// Who wrote a field.
const FIELD_MANAGER: &str = "acb-operator";
use acb_crds::names::FINALIZER;
