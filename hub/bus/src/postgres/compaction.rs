//! Compacting: of what is older than its topic's retention, the last record of each key stays, and a deletion goes too. It leaves holes
//! between offsets, as on Kafka. The last record of a partition always stays: a reader that sees nothing below the end would take that
//! for a loss.

use super::log::Log;

/// Rows removed by one statement: short enough that nobody notices.
pub(super) const STEP: usize = 1000;
/// The longest retention that is counted with, a hundred years. PostgreSQL has no time that is much longer ago than its first day.
pub(super) const LONGEST_SECONDS: i64 = 100 * 365 * 86_400;
/// Records that one search finds at most: their offsets are in memory.
const FOUND: i64 = 100_000;

pub(super) async fn compact_topic(log: &Log, topic: &str, removed: &mut u64) -> Result<(), sqlx::Error> {
    let partitions: Vec<i32> =
        sqlx::query_scalar("SELECT partition FROM acb.bus_partition WHERE tenant_id = $1 AND topic = $2 ORDER BY partition")
            .bind(&log.tenant[..])
            .bind(topic)
            .fetch_all(&log.pool)
            .await?;
    for partition in partitions {
        loop {
            let outdated = outdated(log, topic, partition).await?;
            for step in outdated.chunks(STEP) {
                let delete = sqlx::query(
                    r#"DELETE FROM acb.bus_record
                       WHERE tenant_id = $1 AND topic = $2 AND partition = $3 AND "offset" = ANY ($4)"#,
                );
                let deleted = delete.bind(&log.tenant[..]).bind(topic).bind(partition).bind(step).execute(&log.pool).await?;
                *removed += deleted.rows_affected();
            }
            if outdated.len() < usize::try_from(FOUND).unwrap_or(usize::MAX) {
                break;
            }
        }
    }
    Ok(())
}

/// Of the oldest. A record without a key is the last of none, and stays.
async fn outdated(log: &Log, topic: &str, partition: i32) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        r#"SELECT r."offset"
           FROM acb.bus_topic t JOIN acb.bus_partition p USING (tenant_id, topic) JOIN acb.bus_record r USING (tenant_id, topic, partition)
           WHERE t.tenant_id = $1 AND t.topic = $2 AND p.partition = $3 AND t.cleanup = 'compact' AND r.key IS NOT NULL
             AND r.log_time < now() - make_interval(secs => least(t.retention_seconds, $4)) AND r."offset" < p.next_offset - 1
             AND (r.value IS NULL OR EXISTS (
                 SELECT FROM acb.bus_record n
                 WHERE n.tenant_id = $1 AND n.topic = $2 AND n.partition = $3 AND n.key = r.key AND n."offset" > r."offset"))
           ORDER BY r."offset" LIMIT $5"#,
    )
    .bind(&log.tenant[..])
    .bind(topic)
    .bind(partition)
    .bind(LONGEST_SECONDS)
    .bind(FOUND)
    .fetch_all(&log.pool)
    .await
}
