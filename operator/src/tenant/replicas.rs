//! How many replicas a hub may have, and what they need. Pure.

use acb_crds::v1alpha1::hub::Hub;

/// How many replicas a hub begins with, and how many it has at most.
pub(crate) fn of_hub(hub: &Hub) -> (u32, u32) {
    let scaled = hub.autoscaling.as_ref();
    let replicas = hub.replicas.or(scaled.and_then(|scaled| scaled.min_replicas)).unwrap_or(1);
    (replicas, scaled.map_or(replicas, |scaled| scaled.max_replicas).max(replicas))
}

/// How many connections to PostgreSQL a hub of at most so many replicas may have: each has seven at most, and during a rollout there is one more.
pub(crate) fn connection_limit(max_replicas: u32) -> u32 {
    max_replicas.saturating_add(1).saturating_mul(7)
}
