//! Reads the rows that the operator projected, as the plain rows of the plan.

use std::collections::BTreeMap;

use acb_hub_pool::Session;
use sqlx::{Row as _, postgres::PgRow};
use uuid::Uuid;

use crate::plan::{AgentRow, ContextTypeRow, IssuerRow, OidcIssuerRow, ServiceAccountRow, TenantRow};

/// The tenant's row and its generation, where it has one.
pub(super) async fn tenant_row(connection: &mut Session, id: &[u8]) -> Result<Option<(u64, TenantRow)>, sqlx::Error> {
    let tenant = sqlx::query(
        "SELECT name, tier, registration, suspended, limits, operation_limits, audit_days, generation FROM acb.tenant WHERE tenant_id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = tenant else { return Ok(None) };
    let tenant = TenantRow {
        name: row.try_get("name")?,
        tier: row.try_get("tier")?,
        registration: row.try_get("registration")?,
        suspended: row.try_get("suspended")?,
        limits: row.try_get("limits")?,
        operation_limits: row.try_get::<sqlx::types::Json<_>, _>("operation_limits")?.0,
        audit_days: row.try_get::<i32, _>("audit_days")?.unsigned_abs(),
        context_types: context_types(connection, id).await?,
        issuer: issuer(connection, id).await?,
        oidc_issuers: oidc_issuers(connection, id).await?,
    };
    Ok(Some((number(row.try_get("generation")?), tenant)))
}

/// The agents of a tenant by UID, with their current groups in order: all, or those with these UIDs.
pub(super) async fn agents(
    connection: &mut Session,
    id: &[u8],
    which: Option<&[Uuid]>,
) -> Result<BTreeMap<String, AgentRow>, sqlx::Error> {
    let agents = sqlx::query(
        "SELECT agent_id, a.name, type, capabilities, location, metadata, role, publishes, subscribes, limits, suspended,
                s.namespace AS account_namespace, s.name AS account_name, s.uid AS account_uid,
                ARRAY(SELECT group_name FROM acb.group_member AS m
                      WHERE m.tenant_id = a.tenant_id AND m.agent_id = a.agent_id AND m.left_at IS NULL ORDER BY 1) AS groups
         FROM acb.agent AS a LEFT JOIN acb.service_account AS s USING (tenant_id, agent_id)
         WHERE tenant_id = $1 AND ($2::uuid[] IS NULL OR agent_id = ANY ($2))",
    )
    .bind(id)
    .bind(which)
    .fetch_all(connection)
    .await?;
    agents.iter().map(agent_row).collect()
}

async fn issuer(connection: &mut Session, id: &[u8]) -> Result<Option<IssuerRow>, sqlx::Error> {
    let row: Option<(String, Option<String>, serde_json::Value)> = sqlx::query_as(
        "SELECT issuer, CASE WHEN previous_until > clock_timestamp() THEN previous END, jwks FROM acb.cluster_issuer WHERE tenant_id = $1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(issuer, previous, jwks)| IssuerRow { issuer, previous, jwks }))
}

async fn oidc_issuers(connection: &mut Session, id: &[u8]) -> Result<Vec<OidcIssuerRow>, sqlx::Error> {
    let rows = sqlx::query(
        r#"SELECT issuer, audiences, agent, role, authorities, networks FROM acb.oidc_issuer WHERE tenant_id = $1
           ORDER BY issuer COLLATE "C""#,
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    let read = |row: &PgRow| {
        Ok(OidcIssuerRow {
            issuer: row.try_get("issuer")?,
            audiences: row.try_get("audiences")?,
            agent: row.try_get("agent")?,
            role: row.try_get("role")?,
            authorities: row.try_get("authorities")?,
            networks: row.try_get("networks")?,
        })
    };
    rows.iter().map(read).collect()
}

async fn context_types(connection: &mut Session, id: &[u8]) -> Result<Vec<ContextTypeRow>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT name, partitions, retention_seconds, cleanup, max_message_bytes, schema FROM acb.context_type
         WHERE tenant_id = $1 ORDER BY name",
    )
    .bind(id)
    .fetch_all(connection)
    .await?;
    rows.iter().map(context_type).collect()
}

fn context_type(row: &PgRow) -> Result<ContextTypeRow, sqlx::Error> {
    Ok(ContextTypeRow {
        name: row.try_get("name")?,
        partitions: row.try_get::<i32, _>("partitions")?.unsigned_abs(),
        retention_seconds: number(row.try_get("retention_seconds")?),
        cleanup: row.try_get("cleanup")?,
        max_message_bytes: row.try_get::<i32, _>("max_message_bytes")?.unsigned_abs(),
        schema: row.try_get("schema")?,
    })
}

fn agent_row(row: &PgRow) -> Result<(String, AgentRow), sqlx::Error> {
    let id = row.try_get::<Uuid, _>("agent_id")?.to_string();
    let agent = AgentRow {
        id: id.clone(),
        name: row.try_get("name")?,
        r#type: row.try_get("type")?,
        capabilities: row.try_get("capabilities")?,
        groups: row.try_get("groups")?,
        location: row.try_get("location")?,
        metadata: row.try_get("metadata")?,
        role: row.try_get("role")?,
        publishes: row.try_get("publishes")?,
        subscribes: row.try_get("subscribes")?,
        limits: row.try_get("limits")?,
        suspended: row.try_get("suspended")?,
        service_account: service_account(row)?,
    };
    Ok((id, agent))
}

fn service_account(row: &PgRow) -> Result<Option<ServiceAccountRow>, sqlx::Error> {
    let Some(uid) = row.try_get("account_uid")? else { return Ok(None) };
    Ok(Some(ServiceAccountRow { namespace: row.try_get("account_namespace")?, name: row.try_get("account_name")?, uid }))
}

pub(super) fn number(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}
