//! Timers, by the clock of PostgreSQL.

use std::time::Duration;

use acb_hub_core::{
    fault::Fault,
    timers::ports::{Added, Backlog, Bounds, Cancelled, Due, KNOWN, LIST_BYTES, NewTimer, Outcomes, RESERVED, Timer, TimerStore},
};
use acb_hub_pool::{Timestamp, Transaction};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::{Row as _, postgres::PgRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::kit::{number::unsigned, query_timer::QueryTimer, store::PgStore};

/// Timers that are taken together.
const CLAIM: i64 = 16;
/// Rows of timers that are done with that one statement removes.
const FORGET: i64 = 1000;

/// How long a timer that another replica has is left to it, until the next look.
const HELD: Duration = Duration::from_millis(200);

struct PgDue {
    transaction: Transaction,
    timer: QueryTimer,
    timers: Vec<Timer>,
    now: OffsetDateTime,
}

fn decode(row: &PgRow) -> Result<Timer, sqlx::Error> {
    let time = |column: &str| row.try_get::<Timestamp, _>(column).map(OffsetDateTime::from);
    let content: &[u8] = row.try_get("content")?;
    let attempted: Option<f64> = row.try_get("attempted")?;
    Ok(Timer {
        id: row.try_get("timer_id")?,
        kind: row.try_get("kind")?,
        subject: row.try_get("subject")?,
        due_at: time("due_at")?,
        made_at: time("made_at")?,
        // A clock that was set back since shows less than nothing.
        attempted: attempted.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default()),
        content: Bytes::copy_from_slice(content),
    })
}

/// What is there under the key of a timer.
const KNOWN_BY_KEY: &str = "SELECT timer_id, due_at, digest FROM acb.timer WHERE kind = $1 AND subject = $2 AND key = $3";

fn known((id, due_at, digest): (Uuid, Timestamp, Vec<u8>)) -> Result<Added, sqlx::Error> {
    let digest = digest.try_into().map_err(|_| sqlx::Error::Decode("a timer has a damaged digest".into()))?;
    Ok(Added::Known { id, due_at: due_at.into(), digest })
}

/// What waits, where what follows says so.
macro_rules! due {
    () => {
        "SELECT timer_id, kind, subject, due_at, made_at, content, clock_timestamp() AS now,
                extract(epoch FROM clock_timestamp() - attempted_at)::float8 AS attempted
         FROM acb.timer WHERE settled_at IS NULL AND kind = ANY ($1) AND "
    };
}

#[async_trait]
impl TimerStore for PgStore {
    async fn add(&self, timer: &NewTimer, bounds: Bounds) -> Result<Added, Fault> {
        let query = self.timer.start("timer.add");
        let failed = |error| query.fault(error);
        let by_key = async || {
            let found = sqlx::query_as(KNOWN_BY_KEY).bind(timer.kind).bind(timer.subject).bind(&timer.key);
            found.fetch_optional(self.pool()).await.map_err(failed)
        };
        if !timer.key.is_empty()
            && let Some(row) = by_key().await?
        {
            return known(row).map_err(failed);
        }
        let (each, all): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE subject = $2), count(*) FROM acb.timer WHERE kind = $1 AND settled_at IS NULL",
        )
        .bind(timer.kind)
        .bind(timer.subject)
        .fetch_one(self.pool())
        .await
        .map_err(failed)?;
        if unsigned(each) >= bounds.each || unsigned(all) >= bounds.all {
            return Ok(Added::Full { of_subject: unsigned(each) >= bounds.each });
        }
        let made: Option<(Timestamp,)> = sqlx::query_as(
            "INSERT INTO acb.timer (tenant_id, timer_id, kind, subject, key, digest, content, made_at, due_at, try_at)
             SELECT acb.current_tenant(), $1, $2, $3, $4, $5, $6, t.now, t.now + make_interval(secs => $7), t.now + make_interval(secs => $7)
             FROM (SELECT clock_timestamp() AS now) AS t
             ON CONFLICT (tenant_id, kind, subject, key) WHERE key <> '' DO NOTHING RETURNING due_at",
        )
        .bind(timer.id)
        .bind(timer.kind)
        .bind(timer.subject)
        .bind(&timer.key)
        .bind(&timer.digest[..])
        .bind(&timer.content[..])
        .bind(timer.after.as_secs_f64())
        .fetch_optional(self.pool())
        .await
        .map_err(failed)?;
        match made {
            Some((due_at,)) => Ok(Added::Made { due_at: due_at.into() }),
            // Another call with the key came first.
            None => match by_key().await? {
                Some(row) => known(row).map_err(failed),
                None => Err(Fault::unavailable("POSTGRES_UNAVAILABLE", "the key was taken a moment ago: try again")),
            },
        }
    }

    async fn claim(&self, kinds: &[&str], about_to: &[Uuid]) -> Result<Option<Box<dyn Due>>, Fault> {
        let query = self.timer.start("timer.claim");
        let failed = |error| query.fault(error);
        let mut transaction = self.pool().begin().await.map_err(failed)?;
        // Whoever dies with these gives them back at once: the lock of a row ends with its connection.
        let mut rows = Vec::new();
        if !about_to.is_empty() {
            rows = sqlx::query(concat!(due!(), "timer_id = ANY ($3) ORDER BY try_at LIMIT $2 FOR UPDATE SKIP LOCKED"))
                .bind(kinds)
                .bind(CLAIM)
                .bind(about_to)
                .fetch_all(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        if rows.is_empty() {
            // The time is read once: a condition that may differ from row to row is one that no index is searched by, and every timer would be read.
            rows = sqlx::query(concat!(
                due!(),
                "try_at <= (SELECT clock_timestamp()) ORDER BY try_at LIMIT $2 FOR UPDATE SKIP LOCKED"
            ))
            .bind(kinds)
            .bind(CLAIM)
            .fetch_all(&mut *transaction)
            .await
            .map_err(failed)?;
        }
        let Some(last) = rows.last() else {
            transaction.rollback().await.map_err(failed)?;
            return Ok(None);
        };
        let now = last.try_get::<Timestamp, _>("now").map_err(failed)?.into();
        let timers = rows.iter().map(decode).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Some(Box::new(PgDue { transaction, timer: self.timer.clone(), timers, now })))
    }

    async fn waiting(&self, kinds: &[&str]) -> Result<Backlog, Fault> {
        let query = self.timer.start("timer.waiting");
        let failed = |error| query.fault(error);
        sqlx::query(
            "DELETE FROM acb.timer WHERE ctid = ANY (ARRAY(
                 SELECT ctid FROM acb.timer WHERE settled_at < (SELECT clock_timestamp()) - make_interval(secs => $1)
                 ORDER BY settled_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        )
        .bind(KNOWN.as_secs_f64())
        .bind(FORGET)
        .execute(self.pool())
        .await
        .map_err(failed)?;
        let (count, next, overdue): (i64, Option<f64>, Option<f64>) = sqlx::query_as(
            "SELECT count(*), extract(epoch FROM min(try_at) - clock_timestamp())::float8,
                    extract(epoch FROM clock_timestamp() - min(due_at))::float8
             FROM acb.timer
             WHERE settled_at IS NULL AND kind = ANY ($1)",
        )
        .bind(kinds)
        .fetch_one(self.pool())
        .await
        .map_err(failed)?;
        // What is due is somebody else's, who may die with it.
        let wait = |next: f64| if next > 0.0 { Duration::try_from_secs_f64(next).unwrap_or(Duration::MAX) } else { HELD };
        let next = next.map(wait);
        // What is due in the future is less than nothing.
        let overdue = overdue.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default();
        Ok(Backlog { count: unsigned(count), next, overdue })
    }

    async fn list(
        &self,
        kind: &str,
        subject: Option<Uuid>,
        after: Option<(OffsetDateTime, Uuid)>,
        limit: usize,
    ) -> Result<Vec<Timer>, Fault> {
        let query = self.timer.start("timer.list");
        let (after, last) = after.unzip();
        let rows = sqlx::query(
            "SELECT * FROM (
                 SELECT timer_id, kind, subject, due_at, made_at, content,
                        extract(epoch FROM clock_timestamp() - attempted_at)::float8 AS attempted,
                        sum(octet_length(content)) OVER (ORDER BY due_at, timer_id) - octet_length(content) AS before
                 FROM acb.timer
                 WHERE settled_at IS NULL AND kind = $1 AND ($2::uuid IS NULL OR subject = $2)
                   AND ($3::timestamptz IS NULL OR (due_at, timer_id) > ($3, $4))
                 ORDER BY due_at, timer_id LIMIT $5) AS page
             WHERE before < $6 ORDER BY due_at, timer_id",
        )
        .bind(kind)
        .bind(subject)
        .bind(after)
        .bind(last)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(i64::try_from(LIST_BYTES).unwrap_or(i64::MAX))
        .fetch_all(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        rows.iter().map(decode).collect::<Result<_, _>>().map_err(|error| query.fault(error))
    }

    async fn find(&self, kind: &str, id: Uuid) -> Result<Option<Timer>, Fault> {
        let query = self.timer.start("timer.find");
        let row = sqlx::query(
            "SELECT timer_id, kind, subject, due_at, made_at, content,
                    extract(epoch FROM clock_timestamp() - attempted_at)::float8 AS attempted
             FROM acb.timer WHERE settled_at IS NULL AND kind = $1 AND timer_id = $2",
        )
        .bind(kind)
        .bind(id)
        .fetch_optional(self.pool())
        .await
        .map_err(|error| query.fault(error))?;
        row.map(|row| decode(&row)).transpose().map_err(|error| query.fault(error))
    }

    async fn cancel(&self, kind: &str, subject: Option<Uuid>, id: Uuid) -> Result<Cancelled, Fault> {
        let query = self.timer.start("timer.cancel");
        let failed = |error| query.fault(error);
        // Where a replica has it, this waits until that one is done, and then finds it settled, or not. What was begun may be carried out although its
        // row does not say so: to call that cancelled would be wrong.
        let cancelled = sqlx::query(
            "UPDATE acb.timer SET settled_at = clock_timestamp(), cancelled = true, content = ''
             WHERE timer_id = $1 AND kind = $2 AND ($3::uuid IS NULL OR subject = $3) AND settled_at IS NULL
               AND attempted_at IS NULL",
        )
        .bind(id)
        .bind(kind)
        .bind(subject)
        .execute(self.pool())
        .await
        .map_err(failed)?;
        if cancelled.rows_affected() > 0 {
            return Ok(Cancelled::Now);
        }
        let found: Option<(bool,)> = sqlx::query_as(
            "SELECT cancelled FROM acb.timer WHERE timer_id = $1 AND kind = $2 AND ($3::uuid IS NULL OR subject = $3)",
        )
        .bind(id)
        .bind(kind)
        .bind(subject)
        .fetch_optional(self.pool())
        .await
        .map_err(failed)?;
        Ok(match found {
            Some((true,)) => Cancelled::Before,
            Some((false,)) => Cancelled::TooLate,
            None => Cancelled::Unknown,
        })
    }
}

#[async_trait]
impl Due for PgDue {
    fn timers(&self) -> &[Timer] {
        &self.timers
    }

    fn now(&self) -> OffsetDateTime {
        self.now
    }

    async fn settle(self: Box<Self>, outcomes: &Outcomes) -> Result<(), Fault> {
        let Self { mut transaction, timer, .. } = *self;
        let query = timer.start("timer.settle");
        let failed = |error| query.fault(error);
        sqlx::query("UPDATE acb.timer SET settled_at = clock_timestamp(), content = '' WHERE timer_id = ANY ($1)")
            .bind(&outcomes.done)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let (ids, pauses): (Vec<Uuid>, Vec<f64>) =
            outcomes.later.iter().chain(&outcomes.untouched).map(|(id, pause)| (*id, pause.as_secs_f64())).unzip();
        sqlx::query(
            "UPDATE acb.timer AS t SET try_at = clock_timestamp() + make_interval(secs => l.pause)
             FROM unnest($1::uuid[], $2::float8[]) AS l (id, pause) WHERE t.timer_id = l.id",
        )
        .bind(ids)
        .bind(pauses)
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        let untouched: Vec<Uuid> = outcomes.untouched.iter().map(|(id, _)| *id).collect();
        sqlx::query("UPDATE acb.timer SET attempted_at = NULL WHERE timer_id = ANY ($1)")
            .bind(untouched)
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        sqlx::query(
            "UPDATE acb.timer AS t SET attempted_at = n.now, try_at = n.now + make_interval(secs => $2)
             FROM (SELECT clock_timestamp() AS now) AS n WHERE timer_id = ANY ($1)",
        )
        .bind(&outcomes.attempted)
        .bind(RESERVED.as_secs_f64())
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)
    }
}
