//! Reads what the agents of a tenant have used: the sums that its hub keeps, and its contexts.

use std::collections::BTreeMap;

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

/// What is kept, by the same.
const STORED: &str = "
    SELECT coalesce(r.registered_by, kept.agent_id), sum(kept.size)::bigint
    FROM (SELECT creator AS agent_id, size FROM acb.context WHERE tenant_id = $1
          UNION ALL SELECT agent_id, size FROM acb.upload WHERE tenant_id = $1 AND context_id IS NULL) AS kept
    LEFT JOIN acb.registered_agent AS r ON r.tenant_id = $1 AND r.agent_id = kept.agent_id
    GROUP BY 1";

/// Reads it.
///
/// # Errors
/// What PostgreSQL answered.
pub async fn usage(operator: &Pool, tenant_id: &str) -> Result<ObservedUsage, EffectError> {
    let id = tenant_bytes(tenant_id)?;
    let read = async |sql: &'static str| -> Result<BTreeMap<String, i64>, EffectError> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(sql)
            .bind(&id[..])
            .fetch_all(operator)
            .await
            .map_err(|error| failed(&format!("reading the usage of tenant {tenant_id}"), &error))?;
        Ok(rows.into_iter().map(|(agent, used)| (agent.to_string(), used)).collect())
    };
    Ok(ObservedUsage { messages: read(MESSAGES).await?, stored: read(STORED).await? })
}
