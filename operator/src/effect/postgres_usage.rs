//! Reads what the agents of a tenant have used: the sums that its hub keeps, and its contexts.

use acb_hub_pool::Pool;
use uuid::Uuid;

use super::{
    EffectError,
    postgres::{failed, tenant_bytes},
};
use crate::observed::ObservedUsage;

/// What was sent in this calendar month (UTC), by whose account it is on.
const MESSAGES: &str = "
    SELECT agent_id, messages FROM acb.usage_sum
    WHERE tenant_id = $1 AND period = 'month' AND starts_at = date_trunc('month', now(), 'UTC')";

/// What is kept, by the same: bytes, and contexts. An account that was written down stays, also when who is on it is unregistered.
const KEPT: &str = "
    SELECT coalesce(kept.account, r.registered_by, kept.agent_id), sum(kept.size)::bigint, count(*)
    FROM (SELECT account, creator AS agent_id, size FROM acb.context WHERE tenant_id = $1
          UNION ALL SELECT account, agent_id, size FROM acb.upload WHERE tenant_id = $1 AND context_id IS NULL) AS kept
    LEFT JOIN acb.registered_agent AS r ON r.tenant_id = $1 AND r.agent_id = kept.agent_id
    GROUP BY 1";

/// Reads it.
///
/// # Errors
/// What PostgreSQL answered.
pub async fn usage(operator: &Pool, tenant_id: &str) -> Result<ObservedUsage, EffectError> {
    let id = tenant_bytes(tenant_id)?;
    let failed = |error: sqlx::Error| failed(&format!("reading the usage of tenant {tenant_id}"), &error);
    let messages: Vec<(Uuid, i64)> = sqlx::query_as(MESSAGES).bind(&id[..]).fetch_all(operator).await.map_err(failed)?;
    let kept: Vec<(Uuid, i64, i64)> = sqlx::query_as(KEPT).bind(&id[..]).fetch_all(operator).await.map_err(failed)?;
    Ok(ObservedUsage {
        messages: messages.into_iter().map(|(agent, sent)| (agent.to_string(), sent)).collect(),
        stored: kept.iter().map(|(agent, bytes, _)| (agent.to_string(), *bytes)).collect(),
        contexts: kept.iter().map(|(agent, _, contexts)| (agent.to_string(), *contexts)).collect(),
    })
}
