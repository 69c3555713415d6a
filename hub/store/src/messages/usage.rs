//! What agents have sent, summed by hour and month.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration as StdDuration,
};

use acb_hub_core::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::Epoch,
    messages::{
        ports::Moved,
        position::Position,
        sent::Sent,
        usage::month_began,
        usage_store::{Begun, Period, Rebuild, SumFilter, Unexported, UsageAdvance, UsageGap, UsageStore, UsageSum, Whose},
    },
};
use acb_hub_pool::{Session, Timestamp};
use async_trait::async_trait;
use sqlx::{Postgres, QueryBuilder};
use time::{Duration, OffsetDateTime, UtcOffset};
use uuid::Uuid;

use crate::{
    kit::{
        number::{from_epoch, from_partition, signed, unsigned},
        store::PgStore,
    },
    messages::checkpoint::Checkpoints,
};

const HOUR: &str = "hour";
const MONTH: &str = "month";
/// Days whose hours are added up by one statement.
const DAYS: i64 = 32;

pub(crate) type Row = (Timestamp, Uuid, String, i64, i64);

pub(crate) fn sum((starts_at, agent, name, messages, bytes): Row) -> UsageSum {
    let sent = Sent { messages: unsigned(messages), bytes: unsigned(bytes) };
    UsageSum { starts_at: starts_at.into(), agent: AgentId(agent), name, sent }
}

#[async_trait]
impl UsageStore for PgStore {
    async fn begin(&self, epoch: Epoch, indexed: &[Position], since: OffsetDateTime) -> Result<Begun, Fault> {
        let query = self.timer.start("usage.begin");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        // Held until the sums are read, as those below are: nobody adds to them in between.
        let known: Vec<(i64, i32)> =
            sqlx::query_as("SELECT epoch, partition FROM acb.usage_checkpoint ORDER BY epoch, partition FOR UPDATE")
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
        // Asked behind the lock, which waits for whoever ends this life: its rows have another epoch then, and must not be taken for another log's.
        let is_over: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM acb.log_cut WHERE ended = $1)")
            .bind(from_epoch(epoch))
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        if is_over {
            return Err(Fault::unavailable("LOG_LIFE_OVER", "this life of the messages log has just ended: try again"));
        }
        let is_cut = !known.is_empty()
            && known.iter().all(|(of, _)| *of != from_epoch(epoch))
            && follow_cut(&mut transaction, epoch, indexed).await.map_err(failed)?;
        let is_another_log = !is_cut && known.iter().any(|(of, _)| *of != from_epoch(epoch));
        let first: Vec<i64> = indexed.iter().map(|next| if is_another_log { 0 } else { signed(*next) }).collect();
        sqlx::query(
            "INSERT INTO acb.usage_checkpoint (tenant_id, epoch, partition, next_position)
             SELECT acb.current_tenant(), $1, ordinality - 1, next FROM unnest($2::bigint[]) WITH ORDINALITY AS first (next)
             ON CONFLICT DO NOTHING",
        )
        .bind(from_epoch(epoch))
        .bind(&first)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        if is_another_log {
            // Once: who comes next finds no row of another log.
            sqlx::raw_sql(
                "INSERT INTO acb.usage_gap (tenant_id, what) VALUES (acb.current_tenant(),
                     'the messages log was made anew: what was sent just before that may be in no sum')",
            )
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
            sqlx::query("DELETE FROM acb.usage_checkpoint WHERE epoch <> $1")
                .bind(from_epoch(epoch))
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        let next: HashMap<i32, i64> =
            sqlx::query_as("SELECT partition, next_position FROM acb.usage_checkpoint WHERE epoch = $1 FOR UPDATE")
                .bind(from_epoch(epoch))
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?
                .into_iter()
                .collect();
        let months: Vec<Row> = sqlx::query_as(
            "SELECT starts_at, agent_id, agent, messages, bytes FROM acb.usage_sum
             WHERE period = $1
               AND starts_at >= least($2, (SELECT max(starts_at) - interval '1 month' FROM acb.usage_sum WHERE period = $1))
             ORDER BY starts_at",
        )
        .bind(MONTH)
        .bind(since)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let gaps = gaps_lately(&mut transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        let next = (0..indexed.len()).map(|partition| {
            i32::try_from(partition).ok().and_then(|partition| next.get(&partition)).map_or(0, |next| unsigned(*next))
        });
        Ok(Begun { next: next.collect(), months: months.into_iter().map(sum).collect(), gaps })
    }

    async fn add(&self, epoch: Epoch, advances: &[UsageAdvance]) -> Result<(Vec<Moved>, u64), Fault> {
        let query = self.timer.start("usage.add");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        let partitions = advances.iter().map(|advance| advance.partition);
        let checkpoints = Checkpoints::lock(
            &mut transaction,
            "SELECT partition, next_position FROM acb.usage_checkpoint WHERE epoch = $1 AND partition = ANY($2)
             ORDER BY partition FOR UPDATE",
            epoch,
            partitions,
        );
        let checkpoints = checkpoints.await.map_err(failed)?;
        let moved = |advance: &UsageAdvance| checkpoints.judge(advance.partition, advance.from);
        let won: Vec<&UsageAdvance> = advances.iter().filter(|advance| moved(advance) == Moved::Won).collect();
        if !won.is_empty() {
            write(&mut transaction, epoch, &won).await.map_err(failed)?;
        }
        let gaps = gaps_lately(&mut transaction).await.map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        Ok((advances.iter().map(moved).collect(), gaps))
    }

    async fn sums(&self, filter: &SumFilter, limit: usize) -> Result<Vec<UsageSum>, Fault> {
        let query = self.timer.start("usage.list");
        // A page begins with the period that the one before ended in.
        let from = filter.after.map(|(at, _)| at).into_iter().chain(filter.from).max().unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let to = if filter.by == Period::Day { filter.to.map(end_of_days) } else { filter.to };
        let failed = |error| query.fault(error);
        if filter.by != Period::Day {
            return self.page_of_sums(filter, (from, to), limit).await.map_err(failed);
        }
        // A few days at a time: all hours of a year would be added up for a page of its first days.
        let (mut sums, mut from, mut days) = (Vec::new(), from, 1);
        while sums.len() < limit
            && let Some(first) = self.first_hour(filter, (from, to)).await.map_err(failed)?
        {
            let begin = from.max(first.to_offset(UtcOffset::UTC).date().midnight().assume_utc());
            let end = end_of_days(begin.saturating_add(Duration::days(days)));
            let end = to.map_or(end, |to| to.min(end));
            sums.extend(self.page_of_sums(filter, (begin, Some(end)), limit - sums.len()).await.map_err(failed)?);
            (from, days) = (end, (days * 2).min(DAYS));
        }
        Ok(sums)
    }

    async fn gaps_lately(&self) -> Result<u64, Fault> {
        let query = self.timer.start("usage.gaps_lately");
        let mut session = self.pool().acquire().await.map_err(|error| query.fault(error))?;
        gaps_lately(&mut session).await.map_err(|error| query.fault(error))
    }

    /// A gap is found after the time that it is about: as late as the log keeps records, which is 7 days.
    async fn gaps(&self, from: Option<OffsetDateTime>, to: Option<OffsetDateTime>, limit: usize) -> Result<Vec<UsageGap>, Fault> {
        let query = self.timer.start("usage.gaps");
        let rows: Vec<(Timestamp, String, Option<i64>)> = sqlx::query_as(
            "SELECT found_at, what, records FROM acb.usage_gap
             WHERE found_at >= coalesce($1, '-infinity') AND found_at < coalesce($2 + interval '8 days', 'infinity')
             ORDER BY found_at DESC LIMIT $3",
        )
        .bind(from)
        .bind(to)
        .bind(to_limit(limit))
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        let gap = |(found_at, what, records): (Timestamp, String, Option<i64>)| UsageGap {
            found_at: found_at.into(),
            what,
            records: records.map(unsigned),
        };
        Ok(rows.into_iter().map(gap).collect())
    }

    async fn forget_hours(&self, before: OffsetDateTime, limit: usize) -> Result<u64, Fault> {
        let query = self.timer.start("usage.forget");
        let gone = sqlx::query(
            "DELETE FROM acb.usage_sum AS s USING (
                 SELECT starts_at, agent_id FROM acb.usage_sum WHERE period = $1 AND starts_at < $2 ORDER BY starts_at, agent_id LIMIT $3) AS old
             WHERE s.period = $1 AND s.starts_at = old.starts_at AND s.agent_id = old.agent_id",
        )
        .bind(HOUR)
        .bind(before)
        .bind(to_limit(limit))
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(gone.rows_affected())
    }

    async fn unexported(&self, epoch: Epoch, topic: Epoch, close_after: StdDuration, limit: usize) -> Result<Unexported, Fault> {
        self.unexported_hours(epoch, topic, close_after, limit).await
    }

    async fn exported(&self, topic: Epoch, hours: &[UsageSum]) -> Result<(), Fault> {
        self.hours_exported(topic, hours).await
    }

    async fn rebuild(&self, epoch: Epoch, from: &[Position]) -> Result<Option<Box<dyn Rebuild>>, Fault> {
        self.begin_rebuild(epoch, from).await
    }
}

type Range = (OffsetDateTime, Option<OffsetDateTime>);

impl PgStore {
    /// When the first hour begins in this range.
    async fn first_hour(&self, filter: &SumFilter, range: Range) -> Result<Option<OffsetDateTime>, sqlx::Error> {
        let mut select = QueryBuilder::<Postgres>::new("SELECT min(starts_at) FROM acb.usage_sum WHERE period = ");
        push_range(&mut select, filter, range);
        let first: Option<Timestamp> = select.build_query_scalar().fetch_one(self.pool()).await?;
        Ok(first.map(Into::into))
    }

    /// Sums of this range, at most `limit`.
    async fn page_of_sums(&self, filter: &SumFilter, range: Range, limit: usize) -> Result<Vec<UsageSum>, sqlx::Error> {
        let mut select = QueryBuilder::<Postgres>::new(match filter.by {
            // The names of a day are those of its hours: one of them is shown.
            Period::Day => {
                "SELECT date_trunc('day', starts_at, 'UTC') AS starts_at, agent_id, max(agent), sum(messages)::bigint, sum(bytes)::bigint
                 FROM acb.usage_sum WHERE period = "
            }
            Period::Hour | Period::Month => {
                "SELECT starts_at, agent_id, agent, messages, bytes FROM acb.usage_sum WHERE period = "
            }
        });
        push_range(&mut select, filter, range);
        if filter.by == Period::Day {
            select.push(" GROUP BY 1, 2");
        }
        if let Some((at, agent)) = filter.after {
            let behind = if filter.by == Period::Day {
                " HAVING (date_trunc('day', starts_at, 'UTC'), agent_id) > ("
            } else {
                " AND (starts_at, agent_id) > ("
            };
            select.push(behind).push_bind(at).push(", ").push_bind(agent.0).push(")");
        }
        select.push(" ORDER BY 1, 2 LIMIT ").push_bind(to_limit(limit));
        let rows: Vec<Row> = select.build_query_as().fetch_all(self.pool()).await?;
        Ok(rows.into_iter().map(sum).collect())
    }
}

fn push_range(select: &mut QueryBuilder<Postgres>, filter: &SumFilter, (from, to): Range) {
    select.push_bind(if filter.by == Period::Month { MONTH } else { HOUR });
    select.push(" AND starts_at >= ").push_bind(from);
    if let Some(to) = to {
        select.push(" AND starts_at < ").push_bind(to);
    }
    match &filter.whose {
        Whose::All => {}
        Whose::Agent(agent) => {
            select.push(" AND agent_id = ").push_bind(agent.0);
        }
        Whose::Named(name) => {
            select.push(" AND agent = ").push_bind(name);
        }
    }
}

/// The end of the last day that begins before this time.
fn end_of_days(to: OffsetDateTime) -> OffsetDateTime {
    let midnight = to.to_offset(UtcOffset::UTC).date().midnight().assume_utc();
    if to == midnight { to } else { midnight.saturating_add(Duration::DAY) }
}

/// What the advances hold, by period: each hour is a part of its month.
fn rows(won: &[&UsageAdvance]) -> BTreeMap<(&'static str, OffsetDateTime, Uuid), (String, Sent)> {
    let mut rows: BTreeMap<(&'static str, OffsetDateTime, Uuid), (String, Sent)> = BTreeMap::new();
    for sum in won.iter().flat_map(|advance| &advance.hours) {
        for (period, starts_at) in [(HOUR, sum.starts_at), (MONTH, month_began(sum.starts_at))] {
            let (name, sent) = rows.entry((period, starts_at, sum.agent.0)).or_default();
            name.clone_from(&sum.name);
            sent.messages = sent.messages.saturating_add(sum.sent.messages);
            sent.bytes = sent.bytes.saturating_add(sum.sent.bytes);
        }
    }
    rows
}

async fn write(connection: &mut Session, epoch: Epoch, won: &[&UsageAdvance]) -> Result<(), sqlx::Error> {
    let partitions: Vec<i32> = won.iter().map(|advance| from_partition(advance.partition)).collect();
    let next: Vec<i64> = won.iter().map(|advance| signed(advance.to)).collect();
    let (hours, places): (Vec<Option<OffsetDateTime>>, Vec<Option<i64>>) =
        won.iter().map(|advance| advance.latest.map(|(hour, from)| (hour, signed(from))).unzip()).unzip();
    sqlx::query(
        "UPDATE acb.usage_checkpoint AS c
         SET next_position = a.next, last_hour = greatest(c.last_hour, a.hour),
             hour_from = CASE WHEN a.hour > c.last_hour THEN a.hour_from ELSE c.hour_from END
         FROM unnest($2::int[], $3::bigint[], $4::timestamptz[], $5::bigint[]) AS a (partition, next, hour, hour_from)
         WHERE c.epoch = $1 AND c.partition = a.partition",
    )
    .bind(from_epoch(epoch))
    .bind(&partitions)
    .bind(&next)
    .bind(&hours)
    .bind(&places)
    .execute(&mut *connection)
    .await?;
    // In the order of the key, so that two that add to the same rows at once wait for each other, and not both.
    let rows = rows(won);
    if !rows.is_empty() {
        let (keys, sums): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
        sqlx::query(
            "INSERT INTO acb.usage_sum AS s (tenant_id, period, starts_at, agent_id, agent, messages, bytes)
             SELECT acb.current_tenant(), * FROM unnest($1::text[], $2::timestamptz[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[])
             ON CONFLICT (tenant_id, period, starts_at, agent_id) DO UPDATE
             SET messages = s.messages + excluded.messages, bytes = s.bytes + excluded.bytes,
                 agent = CASE WHEN excluded.agent = '' THEN s.agent ELSE excluded.agent END",
        )
        .bind(keys.iter().map(|(period, _, _)| *period).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, starts_at, _)| *starts_at).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, _, agent)| *agent).collect::<Vec<_>>())
        .bind(sums.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
        .bind(sums.iter().map(|(_, sent)| signed(sent.messages)).collect::<Vec<_>>())
        .bind(sums.iter().map(|(_, sent)| signed(sent.bytes)).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    }
    for advance in won.iter().filter(|advance| advance.missing > 0) {
        sqlx::query("INSERT INTO acb.usage_gap (tenant_id, what, records) VALUES (acb.current_tenant(), $1, $2)")
            .bind(format!("partition {}: the log forgot records before they were summed", advance.partition))
            .bind(signed(advance.missing))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Moves the checkpoints of a life of the log that a hub ended which knows no sums, and left them behind. Where they would go on in the life that came
/// after it nobody has said: what is indexed already is in no sum then, which is better than to have it in two. False where they are of another log.
async fn follow_cut(connection: &mut Session, epoch: Epoch, indexed: &[Position]) -> Result<bool, sqlx::Error> {
    let moved = sqlx::query(
        "WITH RECURSIVE lives AS (
             SELECT ended, epoch FROM acb.log_cut UNION SELECT l.ended, c.epoch FROM lives AS l JOIN acb.log_cut AS c ON c.ended = l.epoch)
         UPDATE acb.usage_checkpoint AS u
         SET epoch = $1, next_position = least(u.next_position, i.next), hour_from = least(u.hour_from, i.next)
         FROM lives AS l, unnest($2::bigint[]) WITH ORDINALITY AS i (next, number)
         WHERE l.epoch = $1 AND u.epoch = l.ended AND u.partition = i.number - 1",
    )
    .bind(from_epoch(epoch))
    .bind(indexed.iter().map(|next| signed(*next)).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?
    .rows_affected();
    if moved > 0 {
        sqlx::raw_sql(
            "INSERT INTO acb.usage_gap (tenant_id, what) VALUES (acb.current_tenant(),
                 'the messages log lost its last records, and a hub of an earlier version went on: what was sent around then may be in no sum')",
        )
        .execute(connection)
        .await?;
    }
    Ok(moved > 0)
}

async fn gaps_lately(connection: &mut Session) -> Result<u64, sqlx::Error> {
    let gaps: i64 = sqlx::query_scalar("SELECT count(*) FROM acb.usage_gap WHERE found_at > now() - interval '1 day'")
        .fetch_one(connection)
        .await?;
    Ok(unsigned(gaps))
}

pub(crate) fn to_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
