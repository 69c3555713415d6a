//! Everything that PostgreSQL holds of tenants, whoever they are.

use std::collections::BTreeMap;

use acb_crds::names::TenantId;
use acb_hub_pool::Pool;

use super::{EffectError, postgres::failed};

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresInventory {
    /// The logins, and whether each may log in.
    pub logins: BTreeMap<TenantId, bool>,
    /// The name of the tenant of each row.
    pub rows: BTreeMap<TenantId, String>,
}

/// Lists it.
///
/// # Errors
/// What PostgreSQL answered.
pub async fn inventory(operator: &Pool) -> Result<PostgresInventory, EffectError> {
    let what = "listing every tenant";
    let logins: Vec<(String, bool)> =
        sqlx::query_as("SELECT substr(rolname, 7), rolcanlogin FROM pg_catalog.pg_roles WHERE rolname ~ '^acb_t_[0-9a-f]{20}$'")
            .fetch_all(operator)
            .await
            .map_err(|error| failed(what, &error))?;
    let rows: Vec<(String, String)> = sqlx::query_as("SELECT encode(tenant_id, 'hex'), name FROM acb.tenant")
        .fetch_all(operator)
        .await
        .map_err(|error| failed(what, &error))?;
    Ok(PostgresInventory {
        logins: logins.into_iter().filter_map(|(id, enabled)| Some((TenantId::from_hex(&id)?, enabled))).collect(),
        rows: rows.into_iter().filter_map(|(id, name)| Some((TenantId::from_hex(&id)?, name))).collect(),
    })
}
