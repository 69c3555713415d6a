//! Mailboxes stay small, and one that is full is found among many others.

use std::time::Duration;

use acb_testbed::standalone::Standalone;
use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;

use crate::{
    Effort, Failure, TENANT,
    client::{Load, Target},
    report::Report,
    samples::Percentiles,
    tell,
};

const ONE: Load = Load { sessions: 1, in_flight: 256 };
/// What is acknowledged has no row this long after.
const SETTLED: Duration = Duration::from_secs(1);
const UNREAD: u32 = 10_000;
const OTHERS: u32 = 1_000_000;
/// Pages of each run.
const PAGES: u32 = 500;

pub(crate) async fn run(standalone: &Standalone, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let hub = Target::hub(standalone.tenant(TENANT)?).await?;
    let mut session = PgConnection::connect_with(&standalone.superuser()?).await?;
    let seconds = hub.load(ONE, effort.acknowledged).await?.as_secs_f64();
    sleep(SETTLED).await;
    let rows = rows(&mut session).await?;
    tell(format!("  {} messages in {seconds:.0} s, {rows} rows a second later", effort.acknowledged));
    let what = format!("rows of mailboxes a second after {} acknowledged messages", effort.acknowledged);
    report.value(what, rows as f64, "rows", 1000.0);

    hub.leave(UNREAD).await?;
    add_others(&mut session).await?;
    let mut of_pages = Vec::new();
    for run in 0..effort.runs {
        let pages = hub.look(effort.samples.min(PAGES)).await?.percentiles();
        tell(format!("  run {} a page of unread messages: p50 {:.2}, p99 {:.2} ms", run + 1, pages.p50, pages.p99));
        of_pages.push(pages);
    }
    let Percentiles { p50, p99, .. } = Percentiles::median(&of_pages);
    report.value(format!("first page of {UNREAD} unread among {OTHERS} rows of others, p99"), p99, "ms", 20.0);
    report.beside("the same, p50", None, p50, "ms");
    Ok(())
}

async fn rows(session: &mut PgConnection) -> Result<i64, Failure> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM acb.mailbox").fetch_one(session).await?)
}

/// Rows of agents that read nothing, as the hub writes them, and what autovacuum knows of a table after a while.
async fn add_others(session: &mut PgConnection) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO acb.mailbox (tenant_id, address, epoch, partition, position, log_time, expires_at, sender)
         SELECT c.tenant_id, 'a:' || others.ids[1 + n % cardinality(others.ids)], c.epoch, n % 8, n, now(), now() + interval '6 days', NULL
         FROM generate_series(1, $1) AS n,
              (SELECT tenant_id, epoch FROM acb.mailbox_checkpoint LIMIT 1) AS c,
              (SELECT array_agg(agent_id::text) AS ids FROM acb.agent WHERE name LIKE 'sender-%') AS others",
    )
    .bind(i32::try_from(OTHERS).unwrap_or(i32::MAX))
    .execute(&mut *session)
    .await?;
    sqlx::query("VACUUM ANALYZE acb.mailbox").execute(session).await?;
    Ok(())
}
