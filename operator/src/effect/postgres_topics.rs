//! Topics that no resource asks for any more: when that began, on either bus, and their end on that of PostgreSQL.

use super::{
    EffectError,
    postgres::{PostgresEffect, tenant_bytes},
};
use crate::plan::FOR_EVER;

/// Records that go at once: one may have 1 MiB.
const RECORDS: i64 = 2_000;

impl PostgresEffect {
    /// The first time counts: repeating it begins nothing anew, and may only make it longer.
    pub(super) async fn retire_topic(&self, tenant_id: &str, topic: &str, retention_seconds: u64) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        self.within(&format!("topic {topic}"), async |connection| {
            sqlx::query(
                "INSERT INTO acb.retired_topic AS retired (tenant_id, topic, retention_seconds) VALUES ($1, $2, $3)
                 ON CONFLICT (tenant_id, topic) DO UPDATE
                 SET retention_seconds = greatest(retired.retention_seconds, excluded.retention_seconds)",
            )
            .bind(&id)
            .bind(topic)
            .bind(i64::try_from(retention_seconds.clamp(1, FOR_EVER)).unwrap_or(i64::MAX))
            .execute(connection)
            .await
            .map(drop)
        })
        .await
    }

    pub(super) async fn revive_topic(&self, tenant_id: &str, topic: &str) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        self.within(&format!("topic {topic}"), async |connection| {
            sqlx::query("DELETE FROM acb.retired_topic WHERE tenant_id = $1 AND topic = $2")
                .bind(&id)
                .bind(topic)
                .execute(connection)
                .await
                .map(drop)
        })
        .await
    }

    /// In parts, so that nothing waits for one statement over everything. The mark goes with the topic: as long as it is there, the rest follows.
    pub(super) async fn remove_topic(&self, tenant_id: &str, topic: &str) -> Result<(), EffectError> {
        let id = tenant_bytes(tenant_id)?;
        let what = format!("removing topic {topic}");
        loop {
            let removed = self
                .within(&what, async |connection| {
                    let sql = "DELETE FROM acb.bus_record WHERE ctid = ANY (ARRAY(
                                   SELECT ctid FROM acb.bus_record WHERE tenant_id = $1 AND topic = $2 LIMIT $3))";
                    let query = sqlx::query(sql).bind(&id).bind(topic).bind(RECORDS);
                    query.execute(connection).await.map(|done| done.rows_affected())
                })
                .await?;
            if removed == 0 {
                break;
            }
        }
        self.within(&what, async |connection| {
            for sql in [
                "DELETE FROM acb.bus_topic WHERE tenant_id = $1 AND topic = $2",
                "DELETE FROM acb.retired_topic WHERE tenant_id = $1 AND topic = $2",
            ] {
                sqlx::query(sql).bind(&id).bind(topic).execute(&mut *connection).await?;
            }
            Ok(())
        })
        .await
    }
}
