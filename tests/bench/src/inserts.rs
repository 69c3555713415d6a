//! What the log on PostgreSQL is compared with: `INSERT`s of the same bytes, in transactions of the same size, into a table of their own on the
//! same server. One session, as the appender of a hub has one.

use std::{fmt, time::Instant};

use acb_testbed::standalone::Standalone;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::Failure;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS public.bench_insert (
    partition integer NOT NULL, \"offset\" bigint NOT NULL, value bytea, log_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, \"offset\"))";

pub(crate) struct Inserts {
    session: PgConnection,
    next: i64,
}

/// What a transaction of the hub took, on average.
pub(crate) struct Batch {
    pub(crate) rows: u32,
    bytes: u32,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INSERTs of {} rows of {} bytes", self.rows, self.bytes)
    }
}

impl Inserts {
    pub(crate) async fn start(standalone: &Standalone) -> Result<Self, Failure> {
        let mut session = PgConnection::connect_with(&standalone.superuser()?).await?;
        sqlx::query(TABLE).execute(&mut session).await?;
        Ok(Self { session, next: 0 })
    }

    /// The time of the log, in microseconds.
    pub(crate) async fn clock(&mut self) -> Result<i64, Failure> {
        let clock = sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint");
        Ok(clock.fetch_one(&mut self.session).await?)
    }

    /// Of what the messages log took since then: `xmin` tells its transactions apart.
    pub(crate) async fn batch(&mut self, since: i64) -> Result<Batch, Failure> {
        let row = sqlx::query(
            "SELECT count(*)::float8, count(DISTINCT xmin::text)::float8, coalesce(avg(octet_length(value)), 0)::float8
             FROM acb.bus_record
             WHERE topic LIKE '%.sys.messages' AND log_time >= to_timestamp($1 / 1000000.0::float8)",
        )
        .bind(since)
        .fetch_one(&mut self.session)
        .await?;
        let (rows, transactions, bytes): (f64, f64, f64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let whole = |number: f64| number.round().clamp(1.0, f64::from(u32::MAX)) as u32;
        Ok(Batch { rows: whole(rows / transactions.max(1.0)), bytes: whole(bytes) })
    }

    /// Rows a second.
    pub(crate) async fn rate(&mut self, batch: &Batch, rows: u32) -> Result<f64, Failure> {
        let value = vec![0x5A_u8; batch.bytes as usize];
        let start = Instant::now();
        let mut left = rows;
        while left > 0 {
            let now = left.min(batch.rows);
            let (offsets, values): (Vec<i64>, Vec<&[u8]>) =
                (self.next..).take(now as usize).map(|at| (at, value.as_slice())).unzip();
            sqlx::query(
                "INSERT INTO public.bench_insert (partition, \"offset\", value)
                 SELECT at % 8, at, value FROM unnest($1::bigint[], $2::bytea[]) AS r (at, value)",
            )
            .bind(offsets)
            .bind(values)
            .execute(&mut self.session)
            .await?;
            self.next += i64::from(now);
            left -= now;
        }
        Ok(f64::from(rows) / start.elapsed().as_secs_f64())
    }
}
