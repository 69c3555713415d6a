//! How many Agents and Quotas a tenant's namespace may hold at all. Those beyond the tenant's limit are Stalled, and still each is watched,
//! kept in memory and listed: without a bound one tenant could take the operator's memory from all.

use acb_crds::{names::objects, quantity::Quantity};
use serde_json::{Map, Value, json};

use super::{space::labels, validate::ValidatedTenant};

/// What holds a namespace to a number of objects.
pub const RESOURCE_QUOTA: (&str, &str) = ("v1", "ResourceQuota");
/// Quotas are few, one for each group of agents.
const QUOTAS: i64 = 100;

/// As an API server stores it: `2k` for 2000.
fn count(number: i64) -> String {
    Quantity::Number(number).canonical().unwrap_or_else(|| number.to_string())
}

/// The ResourceQuota of the tenant's namespace. It allows twice the Agents that the tier does, so that all of them can be replaced by
/// others, and what is too much is told by a status rather than by a refusal that no status is left to explain.
#[must_use]
pub fn resource_quota(tenant: &ValidatedTenant) -> Value {
    let mut hard = Map::new();
    hard.insert("count/quotas.acb.dev".to_owned(), json!(count(QUOTAS)));
    if let Some(most) = tenant.ceilings.tenant.max_agents {
        hard.insert("count/agents.acb.dev".to_owned(), json!(count(most.max(1).saturating_mul(2))));
    }
    json!({
        "apiVersion": RESOURCE_QUOTA.0, "kind": RESOURCE_QUOTA.1,
        "metadata": {"name": objects::OBJECT_QUOTA, "namespace": tenant.namespace, "labels": labels(tenant, "tenant")},
        "spec": {"hard": hard},
    })
}
