//! Public keys of agents.

use std::collections::HashMap;

use acb_hub_core::{
    directory::{
        agent::AgentId,
        encryption_keys::{EncryptionKey, EncryptionKeyStore, KeyId},
    },
    fault::{Code, Fault},
};
use acb_hub_pool::Timestamp;
use async_trait::async_trait;
use uuid::Uuid;

use crate::kit::store::PgStore;

#[async_trait]
impl EncryptionKeyStore for PgStore {
    async fn publish(&self, agent: AgentId, id: KeyId, suite: &str, public: &[u8], most: usize) -> Result<bool, Fault> {
        let query = self.timer.start("encryption_key.publish");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        sqlx::query(
            "DELETE FROM acb.encryption_key AS k WHERE NOT EXISTS (SELECT FROM acb.agent AS a WHERE a.agent_id = k.agent_id)
                 AND NOT EXISTS (SELECT FROM acb.registered_agent AS r WHERE r.agent_id = k.agent_id)",
        )
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        // Two at once may both be the last one: that makes one more, and the next is refused.
        let published = sqlx::query(
            "INSERT INTO acb.encryption_key (tenant_id, agent_id, key_id, suite, public_key)
             SELECT acb.current_tenant(), $1, $2, $3, $4
             WHERE (SELECT count(*) FROM acb.encryption_key WHERE agent_id = $1 AND key_id <> $2) < $5
             ON CONFLICT (tenant_id, agent_id, key_id) DO UPDATE SET published_at = excluded.published_at",
        )
        .bind(agent.0)
        .bind(&id[..])
        .bind(suite)
        .bind(public)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok(published.rows_affected() == 1)
    }

    async fn withdraw(&self, agent: AgentId, id: KeyId) -> Result<bool, Fault> {
        let query = self.timer.start("encryption_key.withdraw");
        let removed = sqlx::query("DELETE FROM acb.encryption_key WHERE agent_id = $1 AND key_id = $2")
            .bind(agent.0)
            .bind(&id[..])
            .execute(self.pool())
            .await
            .map_err(|error| query.fault(error))?;
        Ok(removed.rows_affected() == 1)
    }

    async fn keys(&self, agents: &[AgentId]) -> Result<HashMap<AgentId, Vec<EncryptionKey>>, Fault> {
        let query = self.timer.start("encryption_key.keys");
        let ids: Vec<Uuid> = agents.iter().map(|agent| agent.0).collect();
        let rows: Vec<(Uuid, Vec<u8>, String, Vec<u8>, Timestamp)> = sqlx::query_as(
            "SELECT agent_id, key_id, suite, public_key, published_at FROM acb.encryption_key WHERE agent_id = ANY ($1)
             ORDER BY published_at DESC, key_id",
        )
        .bind(ids)
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        let mut keys: HashMap<AgentId, Vec<EncryptionKey>> = HashMap::new();
        for (agent, id, suite, public, published_at) in rows {
            let id = id
                .try_into()
                .map_err(|_| Fault::new(Code::Internal, "ENCRYPTION_KEY_DAMAGED", "a stored key's id has the wrong length"))?;
            keys.entry(AgentId(agent)).or_default().push(EncryptionKey { id, suite, public, published_at: published_at.into() });
        }
        Ok(keys)
    }
}
