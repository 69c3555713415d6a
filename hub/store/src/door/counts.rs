//! What counts at each replica: streams, connections, and requests of the minute.

use std::{collections::HashMap, time::Duration};

use acb_hub_core::{
    directory::agent::AgentId,
    door::{
        open_counts::OpenCounts,
        ports::CountStore,
        replica_counts::ReplicaCounts,
        request_counts::{AccountRequests, RequestCounts},
        rules::Operation,
    },
    fault::Fault,
};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use uuid::Uuid;

use crate::kit::{
    number::{signed, unsigned},
    store::PgStore,
};

/// Column `requests`: those of the minute. Beside them are the connections, which a hub of an earlier version reads past.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Requests {
    minute: i64,
    all: u64,
    accounts: HashMap<Uuid, OfAccount>,
    connections: Connections,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Connections {
    all: u64,
    agents: HashMap<Uuid, u64>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct OfAccount {
    all: u64,
    operations: HashMap<String, u64>,
}

impl From<&ReplicaCounts> for Requests {
    fn from(ReplicaCounts { requests: counts, connections, .. }: &ReplicaCounts) -> Self {
        let of_account = |(id, of): (&AgentId, &AccountRequests)| {
            let operations = of.operations.iter().map(|(operation, count)| (operation.name().to_owned(), *count)).collect();
            (id.0, OfAccount { all: of.all, operations })
        };
        Self {
            minute: counts.minute,
            all: counts.all,
            accounts: counts.accounts.iter().map(of_account).collect(),
            connections: Connections { all: connections.all, agents: by_uuid(connections) },
        }
    }
}

fn by_uuid(counts: &OpenCounts) -> HashMap<Uuid, u64> {
    counts.agents.iter().map(|(agent, open)| (agent.0, *open)).collect()
}

fn counts_of(all: u64, agents: HashMap<Uuid, u64>) -> OpenCounts {
    OpenCounts { all, agents: agents.into_iter().map(|(agent, open)| (AgentId(agent), open)).collect() }
}

impl From<Requests> for RequestCounts {
    /// An operation that only a newer hub knows is left out.
    fn from(kept: Requests) -> Self {
        let of_account = |(id, of): (Uuid, OfAccount)| {
            let operations = of.operations.into_iter().filter_map(|(name, count)| Some((Operation::named(&name)?, count)));
            (AgentId(id), AccountRequests { all: of.all, operations: operations.collect() })
        };
        Self { minute: kept.minute, all: kept.all, accounts: kept.accounts.into_iter().map(of_account).collect() }
    }
}

#[async_trait]
impl CountStore for PgStore {
    async fn exchange(&self, replica: Uuid, own: Option<&ReplicaCounts>, life: Duration) -> Result<Vec<ReplicaCounts>, Fault> {
        let query = self.timer.start("counts.exchange");
        let failed = |error| query.fault(error);
        if let Some(own) = own {
            sqlx::query(
                "WITH dead AS (DELETE FROM acb.stream_count WHERE until < clock_timestamp() - interval '1 hour')
                 INSERT INTO acb.stream_count (tenant_id, replica, until, streams, agents, requests)
                 VALUES (acb.current_tenant(), $1, clock_timestamp() + make_interval(secs => $2), $3, $4, $5)
                 ON CONFLICT (tenant_id, replica) DO UPDATE
                 SET until = excluded.until, streams = excluded.streams, agents = excluded.agents, requests = excluded.requests",
            )
            .bind(replica)
            .bind(life.as_secs_f64())
            .bind(signed(own.streams.all))
            .bind(Json(by_uuid(&own.streams)))
            .bind(Json(Requests::from(own)))
            .execute(self.pool())
            .await
            .map_err(failed)?;
        }
        // One that lasts longer than any that is given out was given out before the server's clock was set back.
        let rows: Vec<(i64, Json<HashMap<Uuid, u64>>, Json<Requests>)> = sqlx::query_as(
            "SELECT streams, agents, requests FROM acb.stream_count
             WHERE replica <> $1 AND until > clock_timestamp() AND until <= clock_timestamp() + make_interval(secs => 2 * $2)",
        )
        .bind(replica)
        .bind(life.as_secs_f64())
        .fetch_all(self.pool())
        .await
        .map_err(failed)?;
        let counts = |(streams, Json(agents), Json(mut requests)): (i64, Json<HashMap<Uuid, u64>>, Json<Requests>)| {
            let Connections { all, agents: connections } = std::mem::take(&mut requests.connections);
            ReplicaCounts {
                streams: counts_of(unsigned(streams), agents),
                connections: counts_of(all, connections),
                requests: requests.into(),
            }
        };
        Ok(rows.into_iter().map(counts).collect())
    }
}
