//! Who was seen.

use std::collections::HashMap;

use acb_hub_core::{
    directory::{
        agent::AgentId,
        presence::{Presence, PresenceStore},
    },
    fault::Fault,
};
use acb_hub_pool::Timestamp;
use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::kit::store::PgStore;

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
}
