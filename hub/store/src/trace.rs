//! What happened to messages.

use std::time::Duration;

use acb_hub_core::{
    fault::Fault,
    log::bus::{Epoch, Partition},
    messages::trace::store::{TracePart, TraceStore},
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    PgStore,
    number::{from_epoch, from_partition, signed, unsigned},
};

/// Rows that one look removes of what is too old.
const FORGET: i64 = 10_000;

#[async_trait]
impl TraceStore for PgStore {
    async fn note(&self, epoch: Epoch, replica: &str, parts: &[TracePart]) -> Result<(), Fault> {
        let query = self.timer.start("trace.note");
        let partitions: Vec<i32> = parts.iter().map(|part| from_partition(part.partition)).collect();
        let sections: Vec<i64> = parts.iter().map(|part| signed(part.section)).collect();
        let events: Vec<&[u8]> = parts.iter().map(|part| part.events.as_ref()).collect();
        sqlx::query(
            "INSERT INTO acb.message_trace (tenant_id, epoch, partition, section, replica, events)
             SELECT acb.current_tenant(), $1, p.partition, p.section, $2, p.events
             FROM unnest($3::integer[], $4::bigint[], $5::bytea[]) AS p (partition, section, events)",
        )
        .bind(from_epoch(epoch))
        .bind(replica)
        .bind(partitions)
        .bind(sections)
        .bind(events)
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(())
    }

    async fn noted(&self, epoch: Epoch, partition: Partition, section: u64, limit: usize) -> Result<Vec<(String, Bytes)>, Fault> {
        let query = self.timer.start("trace.noted");
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "SELECT replica, events FROM acb.message_trace WHERE epoch = $1 AND partition = $2 AND section = $3
             ORDER BY noted_at LIMIT $4",
        )
        .bind(from_epoch(epoch))
        .bind(from_partition(partition))
        .bind(signed(section))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(rows.into_iter().map(|(replica, events)| (replica, events.into())).collect())
    }

    async fn forget_traces(&self, older_than: Duration, bytes: u64) -> Result<u64, Fault> {
        let query = self.timer.start("trace.forget");
        let failed = |error| query.fault(error);
        let old = sqlx::query(
            "DELETE FROM acb.message_trace WHERE (tenant_id, trace_id) IN (
                 SELECT tenant_id, trace_id FROM acb.message_trace
                 WHERE noted_at < clock_timestamp() - make_interval(secs => $1) ORDER BY noted_at LIMIT $2)",
        )
        .bind(older_than.as_secs_f64())
        .bind(FORGET)
        .execute(self.pool())
        .await
        .map_err(failed)?
        .rows_affected();
        let (held, rows): (i64, i64) =
            sqlx::query_as("SELECT coalesce(sum(octet_length(events)), 0)::bigint, count(*) FROM acb.message_trace")
                .fetch_one(self.pool())
                .await
                .map_err(failed)?;
        if unsigned(held) <= bytes {
            return Ok(old);
        }
        // A tenth of them at a time: soon there is room again, and no one waits long for it.
        let most = sqlx::query(
            "DELETE FROM acb.message_trace WHERE (tenant_id, trace_id) IN (
                 SELECT tenant_id, trace_id FROM acb.message_trace ORDER BY noted_at LIMIT $1)",
        )
        .bind(rows / 10 + 1)
        .execute(self.pool())
        .await
        .map_err(failed)?;
        Ok(old + most.rows_affected())
    }
}
