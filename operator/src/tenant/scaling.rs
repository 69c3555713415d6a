//! How many replicas a hub has, and how few at a time of maintenance.

use acb_crds::names::objects;
use serde_json::{Value, json};

use super::{hub::selector, space::labels, validate::ValidatedTenant};

/// What scales a hub.
pub const AUTOSCALER: (&str, &str) = ("autoscaling/v2", "HorizontalPodAutoscaler");
/// What keeps replicas from going all at once.
pub const DISRUPTION_BUDGET: (&str, &str) = ("policy/v1", "PodDisruptionBudget");

/// Percent of the requested CPU, where the spec does not say.
const TARGET_CPU: u32 = 70;
/// A replica that goes sends its agents to the others: not for every short lull.
const DOWN_AFTER_SECONDS: u32 = 300;

/// At most one replica goes at a time. Never more than it: a hub with one replica must not keep a node from being drained.
#[must_use]
pub fn disruption_budget(tenant: &ValidatedTenant) -> Value {
    json!({
        "apiVersion": DISRUPTION_BUDGET.0, "kind": DISRUPTION_BUDGET.1,
        "metadata": {"name": objects::HUB, "namespace": tenant.name.hub_namespace(), "labels": labels(tenant, "hub")},
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(tenant)},
        },
    })
}

/// The HorizontalPodAutoscaler, where the spec gives a range.
#[must_use]
pub fn autoscaler(tenant: &ValidatedTenant) -> Option<Value> {
    let (min, max) = tenant.range?;
    let target = tenant.hub.autoscaling.as_ref().and_then(|range| range.target_cpu_utilization_percentage).unwrap_or(TARGET_CPU);
    Some(json!({
        "apiVersion": AUTOSCALER.0, "kind": AUTOSCALER.1,
        "metadata": {"name": objects::HUB, "namespace": tenant.name.hub_namespace(), "labels": labels(tenant, "hub")},
        "spec": {
            "minReplicas": min,
            "maxReplicas": max,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": objects::HUB},
            "metrics": [{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}},
            }],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": DOWN_AFTER_SECONDS}},
        },
    }))
}

/// How many replicas the Deployment is applied with. In a range it is what there is: how many is the autoscaler's to say, and a field that
/// is left out would fall back to 1 with the first apply that leaves it out.
#[must_use]
pub fn replicas(tenant: &ValidatedTenant, found: Option<&Value>) -> u32 {
    let Some((min, max)) = tenant.range else { return tenant.replicas };
    let there = found.and_then(|found| found.pointer("/spec/replicas")?.as_u64()).and_then(|count| u32::try_from(count).ok());
    there.unwrap_or(min).clamp(min, max.max(min))
}
