//! How many streams are open at each replica.

use std::{collections::HashMap, time::Duration};

use acb_hub_core::{
    directory::agent::AgentId,
    door::{ports::StreamStore, stream_counts::StreamCounts},
    fault::Fault,
};
use async_trait::async_trait;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    PgStore,
    number::{signed, unsigned},
};

#[async_trait]
impl StreamStore for PgStore {
    async fn exchange(&self, replica: Uuid, own: Option<&StreamCounts>, life: Duration) -> Result<StreamCounts, Fault> {
        let query = self.timer.start("streams.exchange");
        let failed = |error| query.fault(error);
        if let Some(own) = own {
            let agents: HashMap<Uuid, u64> = own.agents.iter().map(|(agent, open)| (agent.0, *open)).collect();
            sqlx::query(
                "WITH dead AS (DELETE FROM acb.stream_count WHERE until < clock_timestamp() - interval '1 hour')
                 INSERT INTO acb.stream_count (tenant_id, replica, until, streams, agents)
                 VALUES (acb.current_tenant(), $1, clock_timestamp() + make_interval(secs => $2), $3, $4)
                 ON CONFLICT (tenant_id, replica) DO UPDATE
                 SET until = excluded.until, streams = excluded.streams, agents = excluded.agents",
            )
            .bind(replica)
            .bind(life.as_secs_f64())
            .bind(signed(own.all))
            .bind(Json(agents))
            .execute(self.pool())
            .await
            .map_err(failed)?;
        }
        // One that lasts longer than any that is given out was given out before the server's clock was set back.
        let rows: Vec<(i64, Json<HashMap<Uuid, u64>>)> = sqlx::query_as(
            "SELECT streams, agents FROM acb.stream_count
             WHERE replica <> $1 AND until > clock_timestamp() AND until <= clock_timestamp() + make_interval(secs => 2 * $2)",
        )
        .bind(replica)
        .bind(life.as_secs_f64())
        .fetch_all(self.pool())
        .await
        .map_err(failed)?;
        let mut others = StreamCounts::default();
        for (streams, Json(agents)) in rows {
            others.all = others.all.saturating_add(unsigned(streams));
            for (agent, open) in agents {
                let known = others.agents.entry(AgentId(agent)).or_default();
                *known = known.saturating_add(open);
            }
        }
        Ok(others)
    }
}
