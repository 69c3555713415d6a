//! The directory: what the operator projected of the tenant and its agents.

use std::{collections::BTreeMap, sync::Arc};

use acb_hub_core::{
    directory::{
        agent::{Agent, AgentId},
        issuer::Issuer,
        limits::{Limits, OperationLimits},
        membership::Membership,
        schema::PayloadSchema,
        snapshot::{ContextType, DirectoryStore, KnownAccount, KnownKey, Snapshot},
        trusted_issuer::{IssuerTerms, TrustedIssuer},
    },
    fault::Fault,
    messages::message::MAX_LIFETIME,
};
use acb_hub_pool::Timestamp;
use async_trait::async_trait;
use sqlx::{Row as _, postgres::PgRow, types::Json};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{directory::api_keys::keys, kit::store::PgStore};

/// A membership that ended longer ago covers no message that still lives; a day more, for clocks that differ.
const MEMBERSHIP_MATTERS: Duration = MAX_LIFETIME.saturating_add(Duration::DAY);

/// The directory's generation: what the operator projected, and what agents registered.
macro_rules! generation {
    () => {
        "generation + coalesce((SELECT r.count FROM acb.registration_count AS r), 0) AS generation"
    };
}

#[async_trait]
impl DirectoryStore for PgStore {
    async fn generation(&self) -> Result<u64, Fault> {
        let query = self.timer.start("tenant.generation");
        let generation: Option<i64> = sqlx::query_scalar(concat!("SELECT ", generation!(), " FROM acb.tenant"))
            .fetch_optional(self.pool())
            .await
            .map_err(|error| query.fault(error))?;
        Ok(generation.ok_or_else(not_projected)?.cast_unsigned())
    }

    async fn load(&self) -> Result<Snapshot, Fault> {
        let query = self.timer.start("directory.load");
        let failed = |error| query.fault(error);
        // One snapshot for all reads: rows of a later generation must not come under an older number.
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let asked_at = OffsetDateTime::now_utc();
        let tenant = sqlx::query(concat!(
            "SELECT ",
            generation!(),
            ", suspended, registration, limits, operation_limits, credential_epoch, clock_timestamp() AS there FROM acb.tenant"
        ))
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?
        .ok_or_else(not_projected)?;
        let answered_at = OffsetDateTime::now_utc();
        let types = sqlx::query("SELECT name, max_message_bytes, schema FROM acb.context_type")
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let agents = sqlx::query(
            "SELECT a.agent_id, a.name, a.type, a.capabilities, a.location, a.metadata, a.role, a.publishes, a.subscribes, a.limits,
                    a.suspended, a.created_at, coalesce(m.groups, '{}') AS groups
             FROM acb.agent a
             LEFT JOIN (SELECT tenant_id, agent_id, array_agg(group_name ORDER BY group_name) AS groups FROM acb.group_member
                        WHERE left_at IS NULL GROUP BY tenant_id, agent_id) m USING (tenant_id, agent_id)",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let registered = sqlx::query(
            "SELECT r.agent_id, r.name, r.type, r.capabilities, r.location, r.metadata, a.role, a.publishes, a.subscribes, a.limits,
                    a.suspended, r.created_at, '{}'::text[] AS groups, r.registered_by
             FROM acb.registered_agent r
             JOIN acb.agent a ON a.tenant_id = r.tenant_id AND a.agent_id = r.registered_by
             JOIN acb.tenant t ON t.tenant_id = r.tenant_id AND t.registration = 'Open'",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        // Who left a group before every message that still lives was sent, is owed nothing by it.
        let memberships = sqlx::query(
            "SELECT group_name, agent_id, joined_at, left_at FROM acb.group_member
             WHERE left_at IS NULL OR left_at > now() - make_interval(secs => $1)",
        )
        .bind(MEMBERSHIP_MATTERS.as_seconds_f64())
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let keys = sqlx::query(concat!("SELECT prefix, agent_id, expires_at, clock_timestamp() AS there FROM ", keys!()))
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let issuer =
            sqlx::query("SELECT issuer, jwks, previous, previous_until, clock_timestamp() AS there FROM acb.cluster_issuer")
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
        let accounts = sqlx::query("SELECT namespace || '/' || name AS account, agent_id, uid FROM acb.service_account")
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let trusted = sqlx::query("SELECT issuer, audiences, agent, role, authorities, networks FROM acb.oidc_issuer")
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        transaction.rollback().await.map_err(failed)?;

        let generation: i64 = tenant.try_get("generation").map_err(failed)?;
        let mut snapshot = Snapshot::new(
            generation.cast_unsigned(),
            readable("an agent", &agents, agent),
            readable("a membership", &memberships, membership),
        )
        .with_registered(readable("a registered agent", &registered, registered_agent));
        snapshot.credential_epoch = tenant.try_get::<i64, _>("credential_epoch").map_err(failed)?.cast_unsigned();
        snapshot.ahead = tenant.try_get::<Timestamp, _>("there").map_err(failed)?.ahead_of(asked_at, answered_at);
        snapshot.suspended = tenant.try_get("suspended").map_err(failed)?;
        snapshot.open_registration = tenant.try_get::<&str, _>("registration").map_err(failed)? == "Open";
        snapshot.limits = tenant.try_get::<Json<Limits>, _>("limits").map_err(failed)?.0;
        snapshot.operation_limits = Arc::new(tenant.try_get::<Json<OperationLimits>, _>("operation_limits").map_err(failed)?.0);
        snapshot.context_types = readable("a context type", &types, context_type).into_iter().collect();
        snapshot.api_keys = readable("an API key", &keys, api_key).into_iter().collect();
        snapshot.issuer = readable("the cluster's issuer", &issuer, cluster_issuer).pop().map(Arc::new);
        let trusted = readable("an OpenID Connect issuer", &trusted, trusted_issuer);
        snapshot.trusted_issuers = trusted.into_iter().map(|issuer| (issuer.terms().url.clone(), Arc::new(issuer))).collect();
        snapshot.accounts = readable("a ServiceAccount", &accounts, service_account).into_iter().collect();
        Ok(snapshot)
    }
}

/// The rows that can be read. One that can't is left out and named in the log: its agent, type or key is refused, as if it were not there.
/// Were the whole directory refused instead, nobody's suspension and no removed key would hold any more.
fn readable<T>(what: &str, rows: &[PgRow], read: impl Fn(&PgRow) -> Result<T, sqlx::Error>) -> Vec<T> {
    let read = |row: &PgRow| {
        let name = || row.try_get::<String, _>(0).or_else(|_| row.try_get::<Uuid, _>(0).map(|id| id.to_string()));
        read(row)
            .inspect_err(|error| {
                let row = name().unwrap_or_default();
                tracing::error!(what, row, %error, "a row of the directory can't be read and is left out");
            })
            .ok()
    };
    rows.iter().filter_map(read).collect()
}

fn not_projected() -> Fault {
    Fault::unavailable(
        "TENANT_NOT_PROJECTED",
        "PostgreSQL has no row for this tenant yet: the operator writes it, see the Tenant's status",
    )
}

fn agent(row: &PgRow) -> Result<Agent, sqlx::Error> {
    Ok(Agent {
        id: AgentId(row.try_get("agent_id")?),
        name: row.try_get("name")?,
        kind: row.try_get("type")?,
        capabilities: row.try_get("capabilities")?,
        groups: row.try_get("groups")?,
        location: row.try_get("location")?,
        metadata: row.try_get::<Json<BTreeMap<String, String>>, _>("metadata")?.0,
        role: row.try_get::<&str, _>("role")?.parse().map_err(|problem: String| sqlx::Error::Decode(problem.into()))?,
        publishes: row.try_get("publishes")?,
        subscribes: row.try_get("subscribes")?,
        limits: row.try_get::<Json<Limits>, _>("limits")?.0,
        suspended: row.try_get("suspended")?,
        created_at: row.try_get::<Timestamp, _>("created_at")?.into(),
    })
}

/// With who registered it.
fn registered_agent(row: &PgRow) -> Result<(Agent, AgentId), sqlx::Error> {
    Ok((agent(row)?, AgentId(row.try_get("registered_by")?)))
}

fn membership(row: &PgRow) -> Result<Membership, sqlx::Error> {
    Ok(Membership {
        group: row.try_get("group_name")?,
        agent: AgentId(row.try_get("agent_id")?),
        joined_at: row.try_get::<Timestamp, _>("joined_at")?.into(),
        left_at: row.try_get::<Option<Timestamp>, _>("left_at")?.map(Into::into),
    })
}

fn context_type(row: &PgRow) -> Result<(String, ContextType), sqlx::Error> {
    let bytes: i32 = row.try_get("max_message_bytes")?;
    let schema: Option<Json<PayloadSchema>> = row.try_get("schema")?;
    let context_type = ContextType {
        max_bytes: usize::try_from(bytes).unwrap_or_default(),
        schema: schema.map(|Json(schema)| Arc::new(schema)),
    };
    Ok((row.try_get("name")?, context_type))
}

fn cluster_issuer(row: &PgRow) -> Result<Issuer, sqlx::Error> {
    let issuer = Issuer::new(row.try_get("issuer")?, &row.try_get::<Json<serde_json::Value>, _>("jwks")?.0);
    let (previous, until): (Option<String>, Option<Timestamp>) = (row.try_get("previous")?, row.try_get("previous_until")?);
    let there: Timestamp = row.try_get("there")?;
    let until = until.map(|until| until.by_clock_of(there, OffsetDateTime::now_utc()));
    Ok(match previous.zip(until) {
        Some((previous, until)) => issuer.after(previous, until),
        None => issuer,
    })
}

fn trusted_issuer(row: &PgRow) -> Result<TrustedIssuer, sqlx::Error> {
    let terms = IssuerTerms {
        url: row.try_get("issuer")?,
        audiences: row.try_get("audiences")?,
        agent: row.try_get("agent")?,
        role: row.try_get("role")?,
        authorities: row.try_get("authorities")?,
        networks: row.try_get("networks")?,
    };
    TrustedIssuer::new(terms).map_err(|problem| sqlx::Error::Decode(problem.into()))
}

fn service_account(row: &PgRow) -> Result<(String, KnownAccount), sqlx::Error> {
    let account = KnownAccount { agent: AgentId(row.try_get("agent_id")?), uid: row.try_get("uid")? };
    Ok((row.try_get("account")?, account))
}

fn api_key(row: &PgRow) -> Result<(String, KnownKey), sqlx::Error> {
    let (expires_at, there): (Option<Timestamp>, Timestamp) = (row.try_get("expires_at")?, row.try_get("there")?);
    // The operator counts by the server's clock, and the door by this machine's.
    let expires_at = expires_at.map(|at| at.by_clock_of(there, OffsetDateTime::now_utc()));
    Ok((row.try_get("prefix")?, KnownKey { agent: AgentId(row.try_get("agent_id")?), expires_at }))
}
