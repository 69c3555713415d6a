//! Agents that other agents registered.

use acb_hub_core::{
    directory::{agent::AgentId, presence::Registration},
    door::{
        api_key::NewKey,
        ports::RegistrationStore,
        registration::{MAX_REGISTERED, declared},
    },
    fault::{Code, Fault},
};
use acb_hub_pool::Session;
use async_trait::async_trait;
use sqlx::types::Json;
use uuid::Uuid;

use crate::kit::store::PgStore;

#[async_trait]
impl RegistrationStore for PgStore {
    async fn register(&self, by: AgentId, registration: &Registration, key: &NewKey, most: Option<u64>) -> Result<(), Fault> {
        let query = self.timer.start("registered_agent.put");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        count(&mut transaction).await.map_err(failed)?;
        // Whoever closes registration counts, too, and so comes before this or after it.
        let (is_open, is_known): (bool, bool) = sqlx::query_as(
            "SELECT registration = 'Open', EXISTS (SELECT FROM acb.registered_agent WHERE name = $1) FROM acb.tenant",
        )
        .bind(&registration.name)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
        if !is_open {
            return Err(declared());
        }
        let agent: Option<Uuid> = sqlx::query_scalar(
            "INSERT INTO acb.registered_agent AS r (tenant_id, agent_id, name, type, capabilities, location, metadata, registered_by)
             VALUES (acb.current_tenant(), $1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (tenant_id, name) DO UPDATE
                 SET type = excluded.type, capabilities = excluded.capabilities, location = excluded.location, metadata = excluded.metadata
                 WHERE r.registered_by = excluded.registered_by
             RETURNING agent_id",
        )
        .bind(Uuid::now_v7())
        .bind(&registration.name)
        .bind(&registration.kind)
        .bind(&registration.capabilities)
        .bind(&registration.location)
        .bind(Json(&registration.metadata))
        .bind(by.0)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?;
        let Some(agent) = agent else {
            let why = format!("another agent registered {}: choose another name", registration.name);
            return Err(Fault::new(Code::AlreadyExists, "AGENT_EXISTS", why));
        };
        let (registered, declared): (i64, i64) =
            sqlx::query_as("SELECT (SELECT count(*) FROM acb.registered_agent), (SELECT count(*) FROM acb.agent)")
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed)?;
        let all = (registered + declared).unsigned_abs();
        if !is_known && (registered.unsigned_abs() > MAX_REGISTERED.into() || most.is_some_and(|most| all > most)) {
            let most = most.map_or_else(String::new, |most| format!(", of {most} that the tenant may have"));
            let why = format!(
                "there would be {all} agents{most}; at most {MAX_REGISTERED} of them are registered by others: unregister some"
            );
            return Err(Fault::new(Code::ResourceExhausted, "TOO_MANY_AGENTS", why));
        }
        sqlx::query("DELETE FROM acb.registered_key WHERE agent_id = $1")
            .bind(agent)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        sqlx::query(
            "INSERT INTO acb.registered_key (tenant_id, prefix, agent_id, hmac, by_key) VALUES (acb.current_tenant(), $1, $2, $3, $4)",
        )
        .bind(&key.prefix)
        .bind(agent)
        .bind(key.hmac.as_slice())
        .bind(&key.by_key)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn unregister(&self, by: Option<AgentId>, name: &str) -> Result<bool, Fault> {
        let query = self.timer.start("registered_agent.delete");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        let gone: Option<(Uuid, Uuid)> = sqlx::query_as(
            "WITH gone AS (DELETE FROM acb.registered_agent WHERE ($1::uuid IS NULL OR registered_by = $1) AND name = $2
                           RETURNING agent_id, registered_by),
                  unseen AS (DELETE FROM acb.presence WHERE agent_id IN (SELECT agent_id FROM gone))
             SELECT agent_id, registered_by FROM gone",
        )
        .bind(by.map(|by| by.0))
        .bind(name)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?;
        let Some((gone, registrar)) = gone else { return Ok(false) };
        // What it keeps stays on the account of who registered it. Where a hub of an earlier version made it, nobody has said so yet.
        for sql in [
            "UPDATE acb.context SET account = $2 WHERE creator = $1 AND account IS NULL",
            "UPDATE acb.upload SET account = $2 WHERE agent_id = $1 AND account IS NULL",
        ] {
            sqlx::query(sql).bind(gone).bind(registrar).execute(&mut *transaction).await.map_err(failed)?;
        }
        count(&mut transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(true)
    }
}

/// Makes the directory newer. Of two registrations at one time the second waits here for the first: how many agents there are holds until the end.
async fn count(connection: &mut Session) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO acb.registration_count AS r (tenant_id, count) VALUES (acb.current_tenant(), 1)
         ON CONFLICT (tenant_id) DO UPDATE SET count = r.count + 1",
    )
    .execute(connection)
    .await?;
    Ok(())
}
