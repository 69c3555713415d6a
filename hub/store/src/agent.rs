//! The directory: what the operator projected of the tenant and its agents.

use std::{collections::BTreeMap, sync::Arc};

use acb_hub_core::{
    agent::{Agent, AgentId},
    directory::{ContextType, DirectoryStore, KnownKey, Membership, Snapshot},
    fault::Fault,
    payload_schema::PayloadSchema,
};
use async_trait::async_trait;
use sqlx::{Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::PgStore;

type TypeRow = (String, i32, Option<Json<PayloadSchema>>);

#[async_trait]
impl DirectoryStore for PgStore {
    async fn generation(&self) -> Result<u64, Fault> {
        let query = self.timer.start("tenant.generation");
        let generation: Option<i64> = sqlx::query_scalar("SELECT generation FROM acb.tenant")
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
        let tenant = sqlx::query("SELECT generation, suspended, registration FROM acb.tenant")
            .fetch_optional(&mut *transaction)
            .await
            .map_err(failed)?
            .ok_or_else(not_projected)?;
        let types: Vec<TypeRow> = sqlx::query_as("SELECT name, max_message_bytes, schema FROM acb.context_type")
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let agents = sqlx::query(
            "SELECT a.agent_id, a.name, a.type, a.capabilities, a.location, a.metadata, a.role, a.publishes, a.subscribes, a.suspended,
                    a.created_at,
                    ARRAY(SELECT m.group_name FROM acb.group_member m
                          WHERE m.tenant_id = a.tenant_id AND m.agent_id = a.agent_id AND m.left_at IS NULL
                          ORDER BY m.group_name) AS groups
             FROM acb.agent a",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let memberships = sqlx::query("SELECT group_name, agent_id, joined_at, left_at FROM acb.group_member")
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        let keys: Vec<(String, Uuid, Option<OffsetDateTime>)> =
            sqlx::query_as("SELECT prefix, agent_id, expires_at FROM acb.api_key")
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
        transaction.rollback().await.map_err(failed)?;

        let generation: i64 = tenant.try_get("generation").map_err(failed)?;
        let agents = agents.iter().map(agent).collect::<Result<_, _>>().map_err(failed)?;
        let memberships = memberships.iter().map(membership).collect::<Result<_, _>>().map_err(failed)?;
        let mut snapshot = Snapshot::new(generation.cast_unsigned(), agents, memberships);
        snapshot.suspended = tenant.try_get("suspended").map_err(failed)?;
        snapshot.open_registration = tenant.try_get::<&str, _>("registration").map_err(failed)? == "Open";
        snapshot.context_types = types
            .into_iter()
            .map(|(name, bytes, schema)| {
                let schema = schema.map(|Json(schema)| Arc::new(schema));
                (name, ContextType { max_bytes: usize::try_from(bytes).unwrap_or_default(), schema })
            })
            .collect();
        let known = |agent, expires_at| KnownKey { agent: AgentId(agent), expires_at };
        snapshot.api_keys = keys.into_iter().map(|(prefix, agent, expires_at)| (prefix, known(agent, expires_at))).collect();
        Ok(snapshot)
    }
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
        suspended: row.try_get("suspended")?,
        created_at: row.try_get("created_at")?,
    })
}

fn membership(row: &PgRow) -> Result<Membership, sqlx::Error> {
    Ok(Membership {
        group: row.try_get("group_name")?,
        agent: AgentId(row.try_get("agent_id")?),
        joined_at: row.try_get("joined_at")?,
        left_at: row.try_get("left_at")?,
    })
}
