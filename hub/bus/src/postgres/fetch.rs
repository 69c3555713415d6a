//! Reading the log: shapes, bounds and runs of records.

use acb_hub_core::log::bus::{Bounds, BusError, Epoch, Logged, Offset, Partition, Record, TopicInfo, TopicName};
use acb_hub_pool::Timestamp;
use bytes::Bytes;
use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;

use super::log::{Log, unavailable};

/// What a fetch takes from one partition at most, beside its first record: a reader's memory is bounded by this, times partitions.
const FETCH_BYTES: i64 = 1024 * 1024;

/// A topic as it is now.
pub(super) struct State {
    pub(super) epoch: Epoch,
    pub(super) bounds: Vec<Bounds>,
}

pub(super) async fn info(log: &Log, topic: &TopicName) -> Result<TopicInfo, BusError> {
    let row: Option<(i64, i32)> =
        sqlx::query_as("SELECT epoch, partitions FROM acb.bus_topic WHERE tenant_id = $1 AND topic = $2")
            .bind(&log.tenant[..])
            .bind(topic.as_str())
            .fetch_optional(&log.pool)
            .await
            .map_err(|error| unavailable("describe the topic", &error))?;
    let (epoch, partitions) = row.ok_or_else(|| BusError::NoSuchTopic(topic.clone()))?;
    Ok(TopicInfo { epoch: epoch.cast_unsigned(), partitions: partitions.cast_unsigned() })
}

pub(super) async fn state(log: &Log, topic: &TopicName) -> Result<State, BusError> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT t.epoch, p.first_offset, p.next_offset
         FROM acb.bus_topic t JOIN acb.bus_partition p USING (tenant_id, topic)
         WHERE t.tenant_id = $1 AND t.topic = $2 AND p.partition < t.partitions ORDER BY p.partition",
    )
    .bind(&log.tenant[..])
    .bind(topic.as_str())
    .fetch_all(&log.pool)
    .await
    .map_err(|error| unavailable("tell what the topic holds", &error))?;
    let epoch = rows.first().ok_or_else(|| BusError::NoSuchTopic(topic.clone()))?.0.cast_unsigned();
    let bounds = rows.iter().map(|&(_, first, next)| Bounds { first: first.cast_unsigned(), next: next.cast_unsigned() });
    Ok(State { epoch, bounds: bounds.collect() })
}

/// Up to `limit` records of each partition, from its offset on; in the order of partition and offset.
pub(super) async fn records(
    log: &Log,
    topic: &TopicName,
    from: &[(Partition, Offset)],
    limit: usize,
) -> Result<Vec<Logged>, BusError> {
    let partitions: Vec<i32> = from.iter().map(|&(partition, _)| partition.cast_signed()).collect();
    let offsets: Vec<i64> = from.iter().map(|&(_, offset)| offset.cast_signed()).collect();
    let rows = sqlx::query(
        r#"SELECT r.partition, r."offset", r.key, r.headers, r.value, r.log_time
           FROM unnest($3::int4[], $4::int8[]) AS f(partition, "offset"),
           LATERAL (
               SELECT s.* FROM (
                   SELECT b.*, sum(coalesce(octet_length(b.value), 0)) OVER (ORDER BY b."offset")
                               - coalesce(octet_length(b.value), 0) AS bytes_before
                   FROM (
                       SELECT * FROM acb.bus_record
                       WHERE tenant_id = $1 AND topic = $2 AND partition = f.partition AND "offset" >= f."offset"
                       ORDER BY "offset" LIMIT $5
                   ) b
               ) s WHERE s.bytes_before < $6
           ) r
           ORDER BY r.partition, r."offset""#,
    )
    .bind(&log.tenant[..])
    .bind(topic.as_str())
    .bind(partitions)
    .bind(offsets)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .bind(FETCH_BYTES)
    .fetch_all(&log.pool)
    .await
    .map_err(|error| unavailable("read the log", &error))?;
    rows.iter().map(logged).collect::<Result<_, _>>().map_err(|error| unavailable("read the log", &error))
}

pub(super) async fn offsets_at(log: &Log, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
    let offsets: Vec<i64> = sqlx::query_scalar(
        r#"SELECT coalesce((
               SELECT min(r."offset") FROM acb.bus_record r
               WHERE r.tenant_id = $1 AND r.topic = $2 AND r.partition = p.partition AND r."offset" >= p.first_offset
                 AND r.log_time = (
                   SELECT min(m.log_time) FROM acb.bus_record m
                   WHERE m.tenant_id = $1 AND m.topic = $2 AND m.partition = p.partition AND m.log_time >= $3
                     AND m."offset" >= p.first_offset)
           ), p.next_offset)
           FROM acb.bus_partition p JOIN acb.bus_topic t USING (tenant_id, topic)
           WHERE p.tenant_id = $1 AND p.topic = $2 AND p.partition < t.partitions ORDER BY p.partition"#,
    )
    .bind(&log.tenant[..])
    .bind(topic.as_str())
    .bind(time)
    .fetch_all(&log.pool)
    .await
    .map_err(|error| unavailable("search the log by time", &error))?;
    if offsets.is_empty() {
        return Err(BusError::NoSuchTopic(topic.clone()));
    }
    Ok(offsets.into_iter().map(i64::cast_unsigned).collect())
}

fn logged(row: &PgRow) -> Result<Logged, sqlx::Error> {
    let partition: i32 = row.try_get(0)?;
    let offset: i64 = row.try_get(1)?;
    let key: Option<Vec<u8>> = row.try_get(2)?;
    let pairs: Vec<Vec<u8>> = row.try_get(3)?;
    let value: Option<Vec<u8>> = row.try_get(4)?;
    let log_time: Timestamp = row.try_get(5)?;
    let mut pairs = pairs.into_iter();
    let mut headers = Vec::with_capacity(pairs.len() / 2);
    while let (Some(name), Some(value)) = (pairs.next(), pairs.next()) {
        headers.push((String::from_utf8_lossy(&name).into_owned(), Bytes::from(value)));
    }
    Ok(Logged {
        partition: partition.cast_unsigned(),
        offset: offset.cast_unsigned(),
        log_time: log_time.into(),
        record: Record { key: key.map(Bytes::from), headers, value: value.map(Bytes::from) },
    })
}
