//! Forgetting what is older than its topic's retention.

use acb_hub_core::log::bus::BusError;

use super::log::{Log, unavailable};

/// Rows removed by one statement: short enough that nobody notices.
const STEP: i64 = 1000;

pub(super) async fn prune(log: &Log) -> Result<u64, BusError> {
    let failed = |error| unavailable("prune the log", &error);
    // Both numbers from one snapshot: with a `next_offset` read later, a record committed in between would go too. As on Kafka, a topic
    // that is compacted forgets nothing for its age.
    let cuts: Vec<(String, i32, i64)> = sqlx::query_as(
        r#"SELECT p.topic, p.partition, coalesce((
               SELECT min(r."offset") FROM acb.bus_record r
               WHERE r.tenant_id = $1 AND r.topic = p.topic AND r.partition = p.partition
                 AND r.log_time >= now() - make_interval(secs => t.retention_seconds)
           ), p.next_offset)
           FROM acb.bus_partition p JOIN acb.bus_topic t USING (tenant_id, topic)
           WHERE p.tenant_id = $1 AND t.cleanup = 'delete'"#,
    )
    .bind(&log.tenant[..])
    .fetch_all(&log.pool)
    .await
    .map_err(failed)?;

    let mut removed = 0;
    for (topic, partition, cut) in cuts {
        // The bound moves first: what is below it is gone for readers, whenever its rows go.
        sqlx::query(
            "UPDATE acb.bus_partition SET first_offset = $4
             WHERE tenant_id = $1 AND topic = $2 AND partition = $3 AND first_offset < $4",
        )
        .bind(&log.tenant[..])
        .bind(&topic)
        .bind(partition)
        .bind(cut)
        .execute(&log.pool)
        .await
        .map_err(failed)?;
        loop {
            let step = sqlx::query(
                r#"DELETE FROM acb.bus_record WHERE tenant_id = $1 AND topic = $2 AND partition = $3 AND "offset" = ANY (ARRAY(
                       SELECT "offset" FROM acb.bus_record
                       WHERE tenant_id = $1 AND topic = $2 AND partition = $3 AND "offset" < $4
                       ORDER BY "offset" LIMIT $5))"#,
            )
            .bind(&log.tenant[..])
            .bind(&topic)
            .bind(partition)
            .bind(cut)
            .bind(STEP)
            .execute(&log.pool)
            .await
            .map_err(failed)?
            .rows_affected();
            removed += step;
            if step < STEP.cast_unsigned() {
                break;
            }
        }
    }
    Ok(removed)
}
