//! Receiving sessions, and what they acknowledged.

use std::collections::HashMap;

use acb_hub_core::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{Epoch, Partition},
    messages::{
        cursor::CursorState,
        ports::{Attempts, CursorFlush, CursorStore, LEASE, Opened, OpenedMailbox, Opening},
    },
};
use acb_hub_pool::Session;
use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::types::Json;
use uuid::Uuid;

use crate::kit::{
    number::{from_epoch, from_partition, signed, to_partition, unsigned},
    store::PgStore,
};

/// The newest session of each of these agents.
macro_rules! newest {
    () => {
        "SELECT agent_id, session_epoch FROM acb.presence WHERE agent_id = ANY($1)"
    };
}

const NEWEST: &str = newest!();

#[async_trait]
impl CursorStore for PgStore {
    async fn open(&self, epoch: Epoch, agent: AgentId, opening: &Opening) -> Result<Opened, Fault> {
        let query = self.timer.start("cursor.open");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        // Made first, so that there is a row to lock: of two first sessions at once, one waits here and then sees the other.
        sqlx::query("INSERT INTO acb.presence (tenant_id, agent_id) VALUES (acb.current_tenant(), $1) ON CONFLICT DO NOTHING")
            .bind(agent.0)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let (receiving, receiver, lease, newest): (bool, Option<String>, Option<Uuid>, i64) =
            sqlx::query_as("SELECT receiving, receiver, lease, session_epoch FROM acb.presence WHERE agent_id = $1 FOR UPDATE")
                .bind(agent.0)
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed)?;
        let own = !opening.receiver.is_empty() && receiver.as_deref() == Some(opening.receiver.as_str());
        if let Some(lease) = lease.filter(|_| !own && !opening.take_over) {
            // Asked apart: a statement that waited for the row does not see what was written meanwhile.
            // One that ends later than any that is given out was given out before the server's clock was set back. It would hold the agent for as long.
            let lives = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM acb.lease WHERE lease = $1 AND until > clock_timestamp()
                                AND until <= clock_timestamp() + make_interval(secs => 2 * $2))",
            );
            if lives.bind(lease).bind(LEASE.as_secs_f64()).fetch_one(&mut *transaction).await.map_err(failed)? {
                transaction.rollback().await.map_err(failed)?;
                return Ok(Opened::Held { lease, session_epoch: unsigned(newest) });
            }
        }
        renew(&mut transaction, opening.lease).await.map_err(failed)?;
        let (session_epoch,): (i64,) = sqlx::query_as(
            "UPDATE acb.presence SET online = true, last_seen_at = now(), session_epoch = session_epoch + 1, receiving = true, replica = $2,
                 receiver = $3, lease = $4
             WHERE agent_id = $1 RETURNING session_epoch",
        )
        .bind(agent.0)
        .bind(&opening.replica)
        .bind(&opening.receiver)
        .bind(opening.lease)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
        let cursors: Vec<(i32, i64, Vec<i64>)> =
            sqlx::query_as("SELECT partition, acknowledged_below, exceptions FROM acb.cursor WHERE agent_id = $1 AND epoch = $2")
                .bind(agent.0)
                .bind(from_epoch(epoch))
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
        let attempts: Vec<(i32, i64, i32)> =
            sqlx::query_as("SELECT partition, position, attempts FROM acb.delivery WHERE agent_id = $1 AND epoch = $2")
                .bind(agent.0)
                .bind(from_epoch(epoch))
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(Opened::Begun(OpenedMailbox {
            session_epoch: unsigned(session_epoch),
            clean: !receiving,
            cursors: cursors
                .into_iter()
                .map(|(partition, watermark, exceptions)| (to_partition(partition), state(watermark, exceptions)))
                .collect(),
            attempts: attempts
                .into_iter()
                .map(|(partition, position, attempts)| Attempts {
                    partition: to_partition(partition),
                    position: unsigned(position),
                    attempts: Some(u32::try_from(attempts).unwrap_or(0)),
                })
                .collect(),
        }))
    }

    async fn renew(&self, lease: Uuid, open: &[(AgentId, u64)]) -> Result<Vec<(AgentId, u64)>, Fault> {
        let query = self.timer.start("cursor.renew");
        let failed = |error| query.fault(error);
        let mut connection = self.pool().acquire().await.map_err(failed)?;
        renew(&mut connection, lease).await.map_err(failed)?;
        let (agents, sessions): (Vec<Uuid>, Vec<i64>) =
            open.iter().map(|(agent, session_epoch)| (agent.0, signed(*session_epoch))).unzip();
        sqlx::query(
            "UPDATE acb.presence SET lease = NULL
             WHERE lease = $1 AND last_seen_at NOT BETWEEN now() - make_interval(secs => $4) AND now() + make_interval(secs => $4)
               AND NOT EXISTS (SELECT FROM unnest($2::uuid[], $3::bigint[]) AS open (agent_id, session_epoch)
                               WHERE open.agent_id = presence.agent_id AND open.session_epoch = presence.session_epoch)",
        )
        .bind(lease)
        .bind(&agents)
        .bind(sessions)
        .bind(LEASE.as_secs_f64())
        .execute(&mut connection)
        .await
        .map_err(failed)?;
        let newest = sqlx::query_as(NEWEST).bind(agents).fetch_all(&mut connection).await.map_err(failed)?;
        let newest = by_agent(newest);
        let forgotten: Vec<(AgentId, u64)> = open.iter().filter(|session| is_forgotten(session, &newest)).copied().collect();
        tell_again(&mut connection, &forgotten).await.map_err(failed)?;
        Ok(open.iter().filter(|session| is_superseded(session, &newest)).copied().collect())
    }

    async fn flush(&self, epoch: Epoch, flushes: Vec<CursorFlush>) -> Result<Vec<(AgentId, u64)>, Fault> {
        let query = self.timer.start("cursor.flush");
        let failed = |error| query.fault(error);
        let writes = |flush: &CursorFlush| flush.closing || !flush.cursors.is_empty() || !flush.attempts.is_empty();
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        let mut newest: HashMap<Uuid, u64> = HashMap::new();
        // Whose session only asks is not locked: a thousand idle agents cost one read.
        let (writing, asking): (Vec<&CursorFlush>, Vec<&CursorFlush>) = flushes.iter().partition(|flush| writes(flush));
        for (agents, query) in [(asking, NEWEST), (writing, concat!(newest!(), " ORDER BY agent_id FOR NO KEY UPDATE"))] {
            if !agents.is_empty() {
                let agents: Vec<Uuid> = agents.iter().map(|flush| flush.agent.0).collect();
                newest.extend(by_agent(sqlx::query_as(query).bind(agents).fetch_all(&mut *transaction).await.map_err(failed)?));
            }
        }
        let session = |flush: &CursorFlush| (flush.agent, flush.session_epoch);
        let (superseded, current): (Vec<&CursorFlush>, Vec<&CursorFlush>) =
            flushes.iter().partition(|flush| is_superseded(&session(flush), &newest));
        let forgotten: Vec<(AgentId, u64)> =
            current.iter().map(|flush| session(flush)).filter(|session| is_forgotten(session, &newest)).collect();
        tell_again(&mut transaction, &forgotten).await.map_err(failed)?;
        write(&mut transaction, epoch, &current).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(superseded.into_iter().map(session).collect())
    }

    async fn cursors(
        &self,
        epoch: Epoch,
        agents: &[AgentId],
        partitions: &[Partition],
    ) -> Result<Vec<(AgentId, Partition, CursorState)>, Fault> {
        let query = self.timer.start("cursor.cursors");
        let rows: Vec<(Uuid, i32, i64, Vec<i64>)> = sqlx::query_as(
            "SELECT agent_id, partition, acknowledged_below, exceptions FROM acb.cursor
             WHERE agent_id = ANY($1) AND epoch = $2 AND partition = ANY($3)",
        )
        .bind(agents.iter().map(|agent| agent.0).collect::<Vec<_>>())
        .bind(from_epoch(epoch))
        .bind(partitions.iter().copied().map(from_partition).collect::<Vec<_>>())
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        let cursor =
            |(agent, partition, watermark, exceptions)| (AgentId(agent), to_partition(partition), state(watermark, exceptions));
        Ok(rows.into_iter().map(cursor).collect())
    }
}

fn by_agent(rows: Vec<(Uuid, i64)>) -> HashMap<Uuid, u64> {
    rows.into_iter().map(|(agent, session_epoch)| (agent, unsigned(session_epoch))).collect()
}

/// Only a newer session ends one, or that its agent is gone.
fn is_superseded((agent, session_epoch): &(AgentId, u64), newest: &HashMap<Uuid, u64>) -> bool {
    newest.get(&agent.0).is_none_or(|newest| newest > session_epoch)
}

/// An older number means that PostgreSQL went back: what it has forgotten, it is told again.
fn is_forgotten((agent, session_epoch): &(AgentId, u64), newest: &HashMap<Uuid, u64>) -> bool {
    newest.get(&agent.0).is_some_and(|newest| newest < session_epoch)
}

async fn tell_again(connection: &mut Session, forgotten: &[(AgentId, u64)]) -> Result<(), sqlx::Error> {
    if forgotten.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE acb.presence AS p SET session_epoch = x.session_epoch, receiving = true, online = true
         FROM unnest($1::uuid[], $2::bigint[]) AS x (agent_id, session_epoch)
         WHERE p.agent_id = x.agent_id AND p.session_epoch < x.session_epoch",
    )
    .bind(forgotten.iter().map(|(agent, _)| agent.0).collect::<Vec<_>>())
    .bind(forgotten.iter().map(|(_, session_epoch)| signed(*session_epoch)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// With it, what is long over is removed.
async fn renew(connection: &mut Session, lease: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH over AS (DELETE FROM acb.lease WHERE until < clock_timestamp() - interval '1 day')
         INSERT INTO acb.lease (tenant_id, lease, until)
         VALUES (acb.current_tenant(), $1, clock_timestamp() + make_interval(secs => $2))
         ON CONFLICT (tenant_id, lease) DO UPDATE SET until = excluded.until",
    )
    .bind(lease)
    .bind(LEASE.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

async fn write(connection: &mut Session, epoch: Epoch, flushes: &[&CursorFlush]) -> Result<(), sqlx::Error> {
    let mut cursors: Vec<Value> = Vec::new();
    let mut deliveries: Vec<Value> = Vec::new();
    let mut done: Vec<Value> = Vec::new();
    let mut closing: Vec<Uuid> = Vec::new();
    let mut clean: Vec<Uuid> = Vec::new();
    for flush in flushes {
        let agent = flush.agent.0;
        for (partition, state) in &flush.cursors {
            cursors.push(
                json!({"agent_id": agent, "partition": partition, "watermark": state.watermark, "exceptions": state.exceptions}),
            );
        }
        for row in &flush.attempts {
            let value =
                json!({"agent_id": agent, "partition": row.partition, "position": row.position, "attempts": row.attempts});
            if row.attempts.is_none() { done.push(value) } else { deliveries.push(value) }
        }
        if flush.closing {
            closing.push(agent);
            if flush.clean {
                clean.push(agent);
            }
        }
    }
    let epoch = from_epoch(epoch);
    if !cursors.is_empty() {
        sqlx::query(
            "INSERT INTO acb.cursor (tenant_id, agent_id, epoch, partition, acknowledged_below, exceptions)
             SELECT acb.current_tenant(), agent_id, $1, partition, watermark, exceptions
             FROM jsonb_to_recordset($2) AS x (agent_id uuid, partition int, watermark bigint, exceptions bigint[])
             WHERE NOT EXISTS (SELECT FROM acb.log_cut WHERE ended = $1)
             ON CONFLICT (tenant_id, agent_id, epoch, partition)
             DO UPDATE SET acknowledged_below = excluded.acknowledged_below, exceptions = excluded.exceptions",
        )
        .bind(epoch)
        .bind(Json(cursors))
        .execute(&mut *connection)
        .await?;
    }
    if !deliveries.is_empty() {
        sqlx::query(
            "INSERT INTO acb.delivery (tenant_id, agent_id, epoch, partition, position, attempts)
               SELECT acb.current_tenant(), agent_id, $1, partition, position, attempts
               FROM jsonb_to_recordset($2) AS x (agent_id uuid, partition int, position bigint, attempts int)
               WHERE NOT EXISTS (SELECT FROM acb.log_cut WHERE ended = $1)
               ON CONFLICT (tenant_id, agent_id, epoch, partition, position) DO UPDATE SET attempts = excluded.attempts",
        )
        .bind(epoch)
        .bind(Json(deliveries))
        .execute(&mut *connection)
        .await?;
    }
    if !done.is_empty() {
        sqlx::query(
            "DELETE FROM acb.delivery AS d
               USING jsonb_to_recordset($2) AS x (agent_id uuid, partition int, position bigint)
               WHERE d.epoch = $1 AND d.agent_id = x.agent_id AND d.partition = x.partition AND d.position = x.position",
        )
        .bind(epoch)
        .bind(Json(done))
        .execute(&mut *connection)
        .await?;
    }
    if !closing.is_empty() {
        sqlx::query(
            // In a life of the log that is over nothing of what the session has to say was written.
            "UPDATE acb.presence SET online = false, last_seen_at = now(), lease = NULL,
                 receiving = receiving AND NOT (agent_id = ANY($2) AND NOT EXISTS (SELECT FROM acb.log_cut WHERE ended = $3))
             WHERE agent_id = ANY($1)",
        )
        .bind(closing)
        .bind(clean)
        .bind(epoch)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

fn state(watermark: i64, exceptions: Vec<i64>) -> CursorState {
    let mut exceptions: Vec<u64> = exceptions.into_iter().map(unsigned).collect();
    exceptions.sort_unstable();
    CursorState { watermark: unsigned(watermark), exceptions }
}
