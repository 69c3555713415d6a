//! What happened to messages.

use std::time::Duration;

use acb_hub_core::{
    fault::Fault,
    log::bus::Epoch,
    messages::{
        position::MessagePlace,
        trace::store::{TracePart, TraceStore, section_of},
    },
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::kit::{
    number::{from_epoch, from_partition, signed, unsigned},
    store::PgStore,
};

/// Bytes that one look reads at most.
const READ_BYTES: i64 = 16 * 1024 * 1024;
/// Rows that one statement removes: few enough that nobody waits for it.
const FORGET: i64 = 5000;
/// What a row takes beside its events, with its places in the indexes.
const ROW_BYTES: i64 = 300;

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

    async fn noted(&self, epoch: Epoch, place: MessagePlace, limit: usize) -> Result<Vec<(String, Bytes)>, Fault> {
        let query = self.timer.start("trace.noted");
        let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
            "SELECT replica, events FROM (
                 SELECT replica, events, noted_at, trace_id, sum(octet_length(events)) OVER (ORDER BY noted_at, trace_id) AS upto
                 FROM acb.message_trace
                 WHERE epoch = $1 AND partition = $2 AND section = $3 AND position($5 IN events) > 0) AS noted
             WHERE upto <= $6 ORDER BY noted_at, trace_id LIMIT $4",
        )
        .bind(from_epoch(epoch))
        .bind(from_partition(place.partition))
        .bind(signed(section_of(place.position)))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(&place.position.to_be_bytes()[..])
        .bind(READ_BYTES)
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(rows.into_iter().map(|(replica, events)| (replica, events.into())).collect())
    }

    async fn forget_traces(&self, older_than: Duration, bytes: u64) -> Result<u64, Fault> {
        let query = self.timer.start("trace.forget");
        let failed = |error| query.fault(error);
        let mut forgotten = 0;
        loop {
            let removed = sqlx::query(
                "DELETE FROM acb.message_trace WHERE (tenant_id, trace_id) IN (
                     SELECT tenant_id, trace_id FROM acb.message_trace
                     WHERE noted_at < (SELECT clock_timestamp()) - make_interval(secs => $1) ORDER BY noted_at LIMIT $2)",
            )
            .bind(older_than.as_secs_f64())
            .bind(FORGET)
            .execute(self.pool())
            .await
            .map_err(failed)?
            .rows_affected();
            forgotten += removed;
            if removed < unsigned(FORGET) {
                break;
            }
        }
        let (held, rows): (i64, i64) =
            sqlx::query_as("SELECT coalesce(sum(octet_length(events) + $1), 0)::bigint, count(*) FROM acb.message_trace")
                .bind(ROW_BYTES)
                .fetch_one(self.pool())
                .await
                .map_err(failed)?;
        // A tenth of them: then there is room again for a while.
        let mut most = if unsigned(held) > bytes { rows / 10 + 1 } else { 0 };
        while most > 0 {
            let removed = sqlx::query(
                "DELETE FROM acb.message_trace WHERE (tenant_id, trace_id) IN (
                     SELECT tenant_id, trace_id FROM acb.message_trace ORDER BY noted_at LIMIT $1)",
            )
            .bind(most.min(FORGET))
            .execute(self.pool())
            .await
            .map_err(failed)?
            .rows_affected();
            forgotten += removed;
            most = if removed == 0 { 0 } else { most - signed(removed) };
        }
        Ok(forgotten)
    }
}
