//! Records what the operator does to a tenant's rows, in the transaction that does it: the hub's sink of the audit trail takes it from there.

use std::collections::BTreeMap;

use acb_hub_pool::Session;
use uuid::Uuid;

use super::{
    act::{self, Act, AgentState},
    postgres_rows::agents,
};
use crate::plan::AgentRow;

/// Acts of one tenant that may wait for its hub. The last of them says that no more are recorded: nobody is kept from being shut out because a hub is away.
const WAITING: i64 = 10_000;

/// What came after the last act that found room.
const NOT_RECORDED: &str = "ActsNotRecorded";

/// Agents that a change touches, as they are before it.
pub(super) struct AgentsBefore {
    ids: Vec<Uuid>,
    states: BTreeMap<String, AgentState>,
}

impl AgentsBefore {
    /// The agent itself, and those that have what its new row has: its name, or its ServiceAccount.
    pub(super) async fn read(
        connection: &mut Session,
        id: &[u8],
        agent_id: Uuid,
        row: Option<&AgentRow>,
    ) -> Result<Self, sqlx::Error> {
        let account = row.and_then(|row| row.service_account.as_ref());
        let mut ids: Vec<Uuid> = sqlx::query_scalar(
            "SELECT agent_id FROM acb.agent AS a LEFT JOIN acb.service_account AS s USING (tenant_id, agent_id)
             WHERE tenant_id = $1 AND agent_id <> $2 AND (a.name = $3 OR (s.namespace = $4 AND s.name = $5))",
        )
        .bind(id)
        .bind(agent_id)
        .bind(row.map(|row| &row.name))
        .bind(account.map(|account| &account.namespace))
        .bind(account.map(|account| &account.name))
        .fetch_all(&mut *connection)
        .await?;
        ids.push(agent_id);
        let states = states(connection, id, &ids).await?;
        Ok(Self { ids, states })
    }

    /// What has been done to them since.
    pub(super) async fn acts(&self, connection: &mut Session, id: &[u8]) -> Result<Vec<Act>, sqlx::Error> {
        Ok(act::of_agents(&self.states, &states(connection, id, &self.ids).await?))
    }
}

async fn states(connection: &mut Session, id: &[u8], ids: &[Uuid]) -> Result<BTreeMap<String, AgentState>, sqlx::Error> {
    let rows = agents(connection, id, Some(ids)).await?;
    let mut states: BTreeMap<String, AgentState> =
        rows.into_iter().map(|(id, row)| (id, AgentState { row, keys: BTreeMap::new() })).collect();
    let keys: Vec<(Uuid, String, bool)> = sqlx::query_as(
        "SELECT agent_id, prefix, expires_at IS NULL FROM acb.api_key
         WHERE tenant_id = $1 AND agent_id = ANY ($2) AND (expires_at IS NULL OR expires_at > clock_timestamp())",
    )
    .bind(id)
    .bind(ids)
    .fetch_all(connection)
    .await?;
    for (agent_id, prefix, lasting) in keys {
        if let Some(state) = states.get_mut(&agent_id.to_string()) {
            state.keys.insert(prefix, lasting);
        }
    }
    Ok(states)
}

/// Records acts, and lets go of those that are in the tree since an hour.
pub(super) async fn record(connection: &mut Session, id: &[u8], operator: &str, mut acts: Vec<Act>) -> Result<(), sqlx::Error> {
    if acts.is_empty() {
        return Ok(());
    }
    // PostgreSQL lets no others go, whatever is asked for.
    sqlx::query(
        "DELETE FROM acb.operator_act WHERE tenant_id = $1 AND act IN (
             SELECT act FROM acb.operator_act_kept WHERE tenant_id = $1 AND at < now() - interval '1 hour')",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    let waiting: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
             SELECT FROM acb.operator_act AS a WHERE tenant_id = $1
             AND NOT EXISTS (SELECT FROM acb.operator_act_kept AS k WHERE k.tenant_id = a.tenant_id AND k.act = a.act) LIMIT $2) AS waiting",
    )
    .bind(id)
    .bind(WAITING)
    .fetch_one(&mut *connection)
    .await?;
    let room = usize::try_from(WAITING - waiting).unwrap_or_default();
    if acts.len() >= room {
        tracing::warn!(waiting, "acts of the operator are not in a tenant's audit trail: its hub takes none");
        let Some(before) = room.checked_sub(1) else { return Ok(()) };
        acts.truncate(before);
        let change =
            format!("{WAITING} acts waited for the hub: what the operator did between this one and the next is not recorded");
        acts.push(Act::new(NOT_RECORDED, "audit trail", change));
    }
    let (operations, (objects, changes)): (Vec<&str>, (Vec<&str>, Vec<&str>)) =
        acts.iter().map(|act| (act.operation, (act.object.as_str(), act.change.as_str()))).unzip();
    sqlx::query(
        "INSERT INTO acb.operator_act (tenant_id, operator, operation, object, change)
         SELECT $1, $2, operation, object, change
         FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY AS act (operation, object, change, place) ORDER BY place",
    )
    .bind(id)
    .bind(operator)
    .bind(operations)
    .bind(objects)
    .bind(changes)
    .execute(connection)
    .await
    .map(drop)
}
