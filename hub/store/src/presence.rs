//! Who was seen, and agents that others registered.

use std::collections::{BTreeMap, HashMap};

use acb_hub_core::{
    directory::{
        agent::AgentId,
        presence::{Presence, PresenceStore, RegisteredRow, Registration},
    },
    fault::{Code, Fault},
};
use acb_hub_pool::Timestamp;
use async_trait::async_trait;
use sqlx::{Row as _, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::PgStore;

const REGISTERED: &str =
    "SELECT agent_id, name, type, capabilities, location, metadata, registered_by, created_at FROM acb.registered_agent";
const REGISTERED_AS: &str = "SELECT agent_id, name, type, capabilities, location, metadata, registered_by, created_at FROM acb.registered_agent WHERE name = $1";

#[async_trait]
impl PresenceStore for PgStore {
    async fn note(&self, agent: AgentId, online: bool) -> Result<(), Fault> {
        let query = self.timer.start("presence.note");
        sqlx::query(
            "INSERT INTO acb.presence (tenant_id, agent_id, online) VALUES (acb.current_tenant(), $1, $2)
             ON CONFLICT (tenant_id, agent_id) DO UPDATE SET online = excluded.online, last_seen_at = now()",
        )
        .bind(agent.0)
        .bind(online)
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(())
    }

    async fn presence(&self, agents: &[AgentId]) -> Result<HashMap<AgentId, Presence>, Fault> {
        let query = self.timer.start("presence.list");
        let rows: Vec<(Uuid, bool, Timestamp, Timestamp)> = sqlx::query_as(
            "SELECT agent_id, online, last_seen_at, clock_timestamp() FROM acb.presence WHERE agent_id = ANY ($1)",
        )
        .bind(agents.iter().map(|agent| agent.0).collect::<Vec<_>>())
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        let here = OffsetDateTime::now_utc();
        let seen = |(agent, online, last_seen_at, there): (Uuid, bool, Timestamp, Timestamp)| {
            (AgentId(agent), Presence { online, last_seen_at: last_seen_at.by_clock_of(there, here) })
        };
        Ok(rows.into_iter().map(seen).collect())
    }

    async fn registered(&self) -> Result<Vec<RegisteredRow>, Fault> {
        let query = self.timer.start("registered_agent.list");
        let failed = |error| query.fault(error);
        let rows = sqlx::query(REGISTERED).fetch_all(self.pool()).await.map_err(failed)?;
        rows.iter().map(|row| registered(row).map_err(failed)).collect()
    }

    async fn registered_as(&self, name: &str) -> Result<Option<RegisteredRow>, Fault> {
        let query = self.timer.start("registered_agent.get");
        let failed = |error| query.fault(error);
        let row = sqlx::query(REGISTERED_AS).bind(name).fetch_optional(self.pool()).await.map_err(failed)?;
        row.map(|row| registered(&row).map_err(failed)).transpose()
    }

    async fn register(&self, by: AgentId, registration: &Registration) -> Result<RegisteredRow, Fault> {
        let query = self.timer.start("registered_agent.put");
        let failed = |error| query.fault(error);
        let row = sqlx::query(
            "INSERT INTO acb.registered_agent AS r (tenant_id, agent_id, name, type, capabilities, location, metadata, registered_by)
             VALUES (acb.current_tenant(), $1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant_id, name) DO UPDATE
                 SET type = excluded.type, capabilities = excluded.capabilities, location = excluded.location, metadata = excluded.metadata
                 WHERE r.registered_by = excluded.registered_by
             RETURNING agent_id, name, type, capabilities, location, metadata, registered_by, created_at",
        )
        .bind(Uuid::now_v7())
        .bind(&registration.name)
        .bind(&registration.kind)
        .bind(&registration.capabilities)
        .bind(&registration.location)
        .bind(Json(&registration.metadata))
        .bind(by.0)
        .fetch_optional(self.pool())
        .await
        .map_err(failed)?;
        match row {
            Some(row) => registered(&row).map_err(failed),
            None => Err(Fault::new(
                Code::AlreadyExists,
                "AGENT_EXISTS",
                format!("another agent registered {}: choose another name", registration.name),
            )),
        }
    }

    async fn unregister(&self, by: AgentId, name: &str) -> Result<bool, Fault> {
        let query = self.timer.start("registered_agent.delete");
        let gone: Option<(Uuid,)> = sqlx::query_as(
            "WITH gone AS (DELETE FROM acb.registered_agent WHERE registered_by = $1 AND name = $2 RETURNING agent_id),
                  unseen AS (DELETE FROM acb.presence WHERE agent_id IN (SELECT agent_id FROM gone))
             SELECT agent_id FROM gone",
        )
        .bind(by.0)
        .bind(name)
        .fetch_optional(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(gone.is_some())
    }
}

fn registered(row: &PgRow) -> Result<RegisteredRow, sqlx::Error> {
    Ok(RegisteredRow {
        id: AgentId(row.try_get("agent_id")?),
        registration: Registration {
            name: row.try_get("name")?,
            kind: row.try_get("type")?,
            capabilities: row.try_get("capabilities")?,
            metadata: row.try_get::<Json<BTreeMap<String, String>>, _>("metadata")?.0,
            location: row.try_get("location")?,
        },
        by: AgentId(row.try_get("registered_by")?),
        created_at: row.try_get::<Timestamp, _>("created_at")?.into(),
    })
}
