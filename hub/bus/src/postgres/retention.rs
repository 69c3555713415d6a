//! Forgetting what is older than its topic's retention, or compacting it. Each topic for itself: one that fails holds up no other.

use acb_hub_core::log::bus::BusError;

use super::{
    compaction::{LONGEST_SECONDS, STEP, compact_topic},
    log::{Log, unavailable},
};

pub(super) async fn prune(log: &Log) -> Result<u64, BusError> {
    let topics: Vec<(String, bool)> =
        sqlx::query_as("SELECT topic, cleanup = 'compact' FROM acb.bus_topic WHERE tenant_id = $1 ORDER BY topic")
            .bind(&log.tenant[..])
            .fetch_all(&log.pool)
            .await
            .map_err(|error| unavailable("prune the log", &error))?;
    let (mut removed, mut failed) = (0, None);
    for (topic, is_compacted) in topics {
        let pruned = if is_compacted {
            compact_topic(log, &topic, &mut removed).await
        } else {
            prune_topic(log, &topic, &mut removed).await
        };
        match pruned {
            Ok(()) => {}
            Err(error @ sqlx::Error::Database(_)) => {
                tracing::warn!(topic, %error, "a topic was not pruned, the others are");
                failed = Some(unavailable(&format!("prune {topic}"), &error));
            }
            // There is no session for any topic.
            Err(error) => return Err(unavailable("prune the log", &error)),
        }
    }
    failed.map_or(Ok(removed), Err)
}

async fn prune_topic(log: &Log, topic: &str, removed: &mut u64) -> Result<(), sqlx::Error> {
    // Both numbers from one snapshot: with a `next_offset` read later, a record committed in between would go too.
    let cuts: Vec<(i32, i64)> = sqlx::query_as(
        r#"SELECT p.partition, coalesce((
               SELECT min(r."offset") FROM acb.bus_record r
               WHERE r.tenant_id = $1 AND r.topic = $2 AND r.partition = p.partition
                 AND r.log_time >= now() - make_interval(secs => least(t.retention_seconds, $3))
           ), p.next_offset)
           FROM acb.bus_partition p JOIN acb.bus_topic t USING (tenant_id, topic)
           WHERE p.tenant_id = $1 AND p.topic = $2 AND t.cleanup = 'delete'"#,
    )
    .bind(&log.tenant[..])
    .bind(topic)
    .bind(LONGEST_SECONDS)
    .fetch_all(&log.pool)
    .await?;
    for (partition, cut) in cuts {
        // The bound moves first: what is below it is gone for readers, whenever its rows go.
        sqlx::query(
            "UPDATE acb.bus_partition SET first_offset = $4
             WHERE tenant_id = $1 AND topic = $2 AND partition = $3 AND first_offset < $4",
        )
        .bind(&log.tenant[..])
        .bind(topic)
        .bind(partition)
        .bind(cut)
        .execute(&log.pool)
        .await?;
        loop {
            let step = sqlx::query(
                r#"DELETE FROM acb.bus_record WHERE tenant_id = $1 AND topic = $2 AND partition = $3 AND "offset" = ANY (ARRAY(
                       SELECT "offset" FROM acb.bus_record
                       WHERE tenant_id = $1 AND topic = $2 AND partition = $3 AND "offset" < $4
                       ORDER BY "offset" LIMIT $5))"#,
            )
            .bind(&log.tenant[..])
            .bind(topic)
            .bind(partition)
            .bind(cut)
            .bind(i64::try_from(STEP).unwrap_or(i64::MAX))
            .execute(&log.pool)
            .await?
            .rows_affected();
            *removed += step;
            if step < STEP as u64 {
                break;
            }
        }
    }
    Ok(())
}
