//! What the topic of usage was told of the sums, and what they take back from it.

use std::time::Duration;

use acb_hub_core::{
    fault::Fault,
    log::bus::Epoch,
    messages::{
        position::Position,
        usage_store::{Complete, Rebuild, Unexported, UsageSum},
    },
};
use acb_hub_pool::{Session, Timestamp, Transaction};
use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    kit::{
        number::{from_epoch, signed, unsigned},
        query_timer::QueryTimer,
        store::PgStore,
    },
    messages::usage::{Row, sum, to_limit},
};

/// Hours that are marked as not told in one statement.
const UNMARKED: usize = 5000;
/// No life of the topic of usage: those are drawn by chance from all numbers.
const NO_TOPIC: i64 = -1;

impl PgStore {
    pub(crate) async fn unexported_hours(
        &self,
        epoch: Epoch,
        topic: Epoch,
        close_after: Duration,
        limit: usize,
    ) -> Result<Unexported, Fault> {
        let query = self.timer.start("usage.unexported");
        let failed = |error| query.fault(error);
        let close_after = close_after.as_secs_f64();
        let mut session = self.pool().acquire().await.map_err(failed)?;
        let told = told_topic(&mut session).await.map_err(failed)?;
        drop(session);
        if told != Some(topic) {
            self.tell_anew(topic).await.map_err(failed)?;
        }
        // Mostly there is nothing to tell. Who finds that must lock nothing: a lock is a write.
        let has_any: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM acb.usage_sum WHERE period = 'hour' AND exported < messages
                            AND starts_at <= date_trunc('hour', now() - make_interval(secs => $1), 'UTC'))",
        )
        .bind(close_after)
        .fetch_one(self.pool())
        .await
        .map_err(failed)?;
        if !has_any {
            return Ok(Unexported::default());
        }
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        // Whoever adds to the sums holds these until it has: both are of one moment.
        let places: Vec<(i64, Option<i64>, Timestamp)> = sqlx::query_as(
            "SELECT c.next_position,
                    CASE WHEN c.last_hour <= h.last THEN c.next_position WHEN c.last_hour - interval '1 hour' <= h.last THEN c.hour_from END,
                    h.last
             FROM acb.usage_checkpoint AS c, LATERAL (SELECT date_trunc('hour', now() - make_interval(secs => $2), 'UTC') AS last) AS h
             WHERE c.epoch = $1 ORDER BY c.partition FOR SHARE OF c",
        )
        .bind(from_epoch(epoch))
        .bind(close_after)
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        let Some((_, _, through)) = places.first() else { return Ok(Unexported::default()) };
        let through = OffsetDateTime::from(*through);
        // Another replica knows of another life of the topic: what is marked is not about this one.
        if told_topic(&mut transaction).await.map_err(failed)? != Some(topic) {
            return Ok(Unexported::default());
        }
        let mut rows: Vec<Row> = sqlx::query_as(
            "SELECT starts_at, agent_id, agent, messages, bytes FROM acb.usage_sum
             WHERE period = 'hour' AND exported < messages AND starts_at <= $1 ORDER BY starts_at, agent_id LIMIT $2",
        )
        .bind(through)
        .bind(to_limit(limit.saturating_add(1)))
        .fetch_all(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        // Where it is not known that the hours of a partition are closed, nothing of it is complete.
        let below = places.iter().map(|(_, closed, _)| unsigned(closed.unwrap_or_default())).collect();
        Ok(Unexported {
            hours: rows.into_iter().map(sum).collect(),
            next: places.iter().map(|(next, _, _)| unsigned(*next)).collect(),
            complete: (!has_more).then_some(Complete { through, below }),
        })
    }

    pub(crate) async fn hours_exported(&self, topic: Epoch, hours: &[UsageSum]) -> Result<(), Fault> {
        let query = self.timer.start("usage.exported");
        // Not where the topic was made anew meanwhile. In the order of the key, as who adds to the sums: two wait for each other, and not both.
        sqlx::query(
            "UPDATE acb.usage_sum AS s SET exported = told.messages
             FROM (SELECT u.starts_at, u.agent_id, e.messages FROM acb.usage_sum AS u
                   JOIN unnest($1::timestamptz[], $2::uuid[], $3::bigint[]) AS e (starts_at, agent_id, messages)
                     ON u.period = 'hour' AND u.starts_at = e.starts_at AND u.agent_id = e.agent_id
                   WHERE u.exported < e.messages AND EXISTS (SELECT FROM acb.usage_export WHERE topic_epoch = $4)
                   ORDER BY u.starts_at, u.agent_id FOR UPDATE OF u) AS told
             WHERE s.period = 'hour' AND s.starts_at = told.starts_at AND s.agent_id = told.agent_id",
        )
        .bind(hours.iter().map(|sum| sum.starts_at).collect::<Vec<_>>())
        .bind(hours.iter().map(|sum| sum.agent.0).collect::<Vec<_>>())
        .bind(hours.iter().map(|sum| signed(sum.sent.messages)).collect::<Vec<_>>())
        .bind(from_epoch(topic))
        .execute(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        Ok(())
    }

    /// A topic that is another one than was told has nothing. That touches every hour that there is, and so a few at a time: no statement lasts long, and
    /// who adds to the sums waits for none of them.
    async fn tell_anew(&self, topic: Epoch) -> Result<(), sqlx::Error> {
        // Until all of them are unmarked, what is marked is about no topic.
        self.told(NO_TOPIC).await?;
        let mut after = (OffsetDateTime::UNIX_EPOCH, Uuid::nil());
        loop {
            let unmarked: Vec<(Timestamp, Uuid)> = sqlx::query_as(
                "WITH marked AS (
                     SELECT starts_at, agent_id FROM acb.usage_sum
                     WHERE period = 'hour' AND exported > 0 AND (starts_at, agent_id) > ($1, $2)
                     ORDER BY starts_at, agent_id LIMIT $3 FOR UPDATE
                 ), unmarked AS (
                     UPDATE acb.usage_sum AS s SET exported = 0 FROM marked AS m
                     WHERE s.period = 'hour' AND s.starts_at = m.starts_at AND s.agent_id = m.agent_id
                 )
                 SELECT starts_at, agent_id FROM marked ORDER BY starts_at, agent_id",
            )
            .bind(after.0)
            .bind(after.1)
            .bind(to_limit(UNMARKED))
            .fetch_all(self.pool())
            .await?;
            match unmarked.last() {
                Some((starts_at, agent)) if unmarked.len() >= UNMARKED => after = ((*starts_at).into(), *agent),
                _ => break,
            }
        }
        self.told(from_epoch(topic)).await
    }

    /// From now on the marks on the sums are about this life of the topic.
    async fn told(&self, topic: i64) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO acb.usage_export (tenant_id, topic_epoch) VALUES (acb.current_tenant(), $1)
             ON CONFLICT (tenant_id) DO UPDATE SET topic_epoch = excluded.topic_epoch",
        )
        .bind(topic)
        .execute(self.pool())
        .await
        .map(drop)
    }

    pub(crate) async fn begin_rebuild(&self, epoch: Epoch, from: &[Position]) -> Result<Option<Box<dyn Rebuild>>, Fault> {
        let query = self.timer.start("usage.rebuild");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        let next: Vec<i64> =
            sqlx::query_scalar("SELECT next_position FROM acb.usage_checkpoint WHERE epoch = $1 ORDER BY partition FOR UPDATE")
                .bind(from_epoch(epoch))
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
        if !next.iter().map(|next| unsigned(*next)).eq(from.iter().copied()) {
            return Ok(None);
        }
        let last_hour: Option<Timestamp> = sqlx::query_scalar("SELECT max(starts_at) FROM acb.usage_sum WHERE period = 'hour'")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        let last_hour = last_hour.map(Into::into);
        Ok(Some(Box::new(PgRebuild { transaction, timer: self.timer.clone(), epoch, last_hour })))
    }
}

/// The life of the topic that the marks on the sums are about.
async fn told_topic(connection: &mut Session) -> Result<Option<Epoch>, sqlx::Error> {
    let told: Option<i64> = sqlx::query_scalar("SELECT topic_epoch FROM acb.usage_export").fetch_optional(connection).await?;
    Ok(told.map(i64::cast_unsigned))
}

struct PgRebuild {
    transaction: Transaction,
    timer: QueryTimer,
    epoch: Epoch,
    last_hour: Option<OffsetDateTime>,
}

#[async_trait]
impl Rebuild for PgRebuild {
    fn last_hour(&self) -> Option<OffsetDateTime> {
        self.last_hour
    }

    /// What was told of them stays as it is: they are told again, with the places that they are of now.
    async fn raise(&mut self, hours: &[UsageSum]) -> Result<(), Fault> {
        let query = self.timer.start("usage.raise");
        let (starts, agents): (Vec<OffsetDateTime>, Vec<Uuid>) = hours.iter().map(|sum| (sum.starts_at, sum.agent.0)).unzip();
        sqlx::query(
            "WITH raised AS (
                 SELECT e.starts_at, e.agent_id, e.agent, greatest(e.messages - coalesce(s.messages, 0), 0) AS messages,
                        greatest(e.bytes - coalesce(s.bytes, 0), 0) AS bytes
                 FROM unnest($1::timestamptz[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[]) AS e (starts_at, agent_id, agent, messages, bytes)
                 LEFT JOIN acb.usage_sum AS s ON s.period = 'hour' AND s.starts_at = e.starts_at AND s.agent_id = e.agent_id)
             INSERT INTO acb.usage_sum AS s (tenant_id, period, starts_at, agent_id, agent, messages, bytes)
             SELECT acb.current_tenant(), p.period, p.starts_at, r.agent_id, max(r.agent), sum(r.messages)::bigint, sum(r.bytes)::bigint
             FROM raised AS r, LATERAL (VALUES ('hour', r.starts_at), ('month', date_trunc('month', r.starts_at, 'UTC'))) AS p (period, starts_at)
             WHERE r.messages > 0 OR r.bytes > 0
             GROUP BY p.period, p.starts_at, r.agent_id ORDER BY p.period, p.starts_at, r.agent_id
             ON CONFLICT (tenant_id, period, starts_at, agent_id) DO UPDATE
             SET messages = s.messages + excluded.messages, bytes = s.bytes + excluded.bytes,
                 agent = CASE WHEN excluded.agent = '' THEN s.agent ELSE excluded.agent END",
        )
        .bind(starts)
        .bind(agents)
        .bind(hours.iter().map(|sum| sum.name.as_str()).collect::<Vec<_>>())
        .bind(hours.iter().map(|sum| signed(sum.sent.messages)).collect::<Vec<_>>())
        .bind(hours.iter().map(|sum| signed(sum.sent.bytes)).collect::<Vec<_>>())
        .execute(&mut *self.transaction)
        .await
        .map_err(|error| query.fault(error))?;
        Ok(())
    }

    async fn done(self: Box<Self>, next: &[Position], through: OffsetDateTime) -> Result<(), Fault> {
        let Self { mut transaction, timer, epoch, .. } = *self;
        let query = timer.start("usage.rebuilt");
        let failed = |error| query.fault(error);
        sqlx::query(
            "UPDATE acb.usage_checkpoint AS c SET next_position = n.next, last_hour = greatest(c.last_hour, $3)
             FROM unnest($2::bigint[]) WITH ORDINALITY AS n (next, number)
             WHERE c.epoch = $1 AND c.partition = n.number - 1 AND c.next_position < n.next",
        )
        .bind(from_epoch(epoch))
        .bind(next.iter().map(|next| signed(*next)).collect::<Vec<_>>())
        .bind(through)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }
}
