//! Messages that nobody takes: how fast they become dead letters, and whether that keeps up while more of them come.

use std::time::{Duration, Instant, SystemTime};

use acb_testbed::standalone::Standalone;
use sqlx::{Connection as _, PgConnection};
use tokio::time::sleep;

use crate::{Effort, Failure, TENANT, client::Target, report::Report, tell};

/// What comes while the sweep works.
const PER_SECOND: u32 = 5000;
/// How long that goes on, for each thousand samples.
const SECONDS_PER_THOUSAND: u32 = 6;
const LIFE: Duration = Duration::from_secs(2);
/// What is swept at once expires so long after it was begun, and a millisecond later for each message.
const EXPIRE_WITHIN: Duration = Duration::from_secs(10);
/// Five of these make what is swept at once.
const AT_ONCE: u32 = 5;
/// A look counts all letters: not often, since the sweep is on the same machine.
const LOOK: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(900);

/// The dead letters of the tenant, as their index has them.
#[derive(Clone, Copy, Debug)]
struct Letters {
    count: i64,
    /// From the first to the last, by the times of their log.
    seconds: f64,
    /// The longest that one of them was over before it was a dead letter.
    late: f64,
}

pub(crate) async fn run(standalone: &Standalone, log: &str, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let hub = Target::hub(standalone.tenant(TENANT)?).await?;
    let mut session = PgConnection::connect_with(&standalone.superuser()?).await?;

    let since = now(&mut session).await?;
    let at_once = effort.samples * AT_ONCE;
    // All at one moment, when all were sent: one look of the hub finds them, and no pause between two is measured.
    let expires_at = SystemTime::now() + EXPIRE_WITHIN + Duration::from_millis(at_once.into());
    hub.leave_expiring(at_once, || expires_at, None).await?;
    let (letters, indexed) = all(&mut session, since, at_once).await?;
    let rate = f64::from(at_once) / letters.seconds;
    tell(format!(
        "  {at_once} at once, {log}: {rate:.0} dead letters/s; all are listed {indexed:.1} s after the last was logged"
    ));
    report.at_least(format!("expired messages of 1 KiB that nobody took, to dead letters, {log}"), rate, "messages/s", 5000.0);
    report.value(format!("the same: the last is listed so long after it was logged, {log}"), indexed, "s", 10.0);

    let since = now(&mut session).await?;
    let seconds = (effort.samples / 1000).max(1) * SECONDS_PER_THOUSAND;
    let began = Instant::now();
    hub.leave_expiring(PER_SECOND * seconds, || SystemTime::now() + LIFE, Some(PER_SECOND)).await?;
    let sent = f64::from(PER_SECOND * seconds) / began.elapsed().as_secs_f64();
    let (letters, indexed) = all(&mut session, since, PER_SECOND * seconds).await?;
    tell(format!("  {sent:.0} a second for {seconds} s, {log}: {letters:?}; all are listed {indexed:.1} s after that"));
    report.beside(format!("expired messages of 1 KiB that nobody took, sent for {seconds} s, {log}"), None, sent, "messages/s");
    report.value(format!("the same: the longest from expiry to dead letter, {log} (a look each 30 s)"), letters.late, "s", 60.0);
    Ok(())
}

async fn now(session: &mut PgConnection) -> Result<f64, Failure> {
    Ok(sqlx::query_scalar("SELECT extract(epoch FROM clock_timestamp())::float8").fetch_one(session).await?)
}

/// Waits for so many dead letters since then. And how long after the last one was logged all were listed.
async fn all(session: &mut PgConnection, since: f64, wanted: u32) -> Result<(Letters, f64), Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (count, seconds, late) = sqlx::query_as(
            "SELECT count(*), coalesce(extract(epoch FROM max(dead_at) - min(dead_at)), 0)::float8 AS seconds,
                    coalesce(extract(epoch FROM max(dead_at - expires_at)), 0)::float8 AS late
             FROM acb.dead_letter WHERE sent_at >= to_timestamp($1)",
        )
        .bind(since)
        .fetch_one(&mut *session)
        .await?;
        let letters = Letters { count, seconds, late };
        if letters.count >= i64::from(wanted) {
            let behind = "SELECT extract(epoch FROM clock_timestamp() - max(dead_at))::float8 FROM acb.dead_letter";
            return Ok((letters, sqlx::query_scalar(behind).fetch_one(session).await?));
        }
        if Instant::now() > deadline {
            return Err(Failure(format!(
                "of {wanted} expired messages {letters:?} are dead letters after {} s",
                PATIENCE.as_secs()
            )));
        }
        sleep(LOOK).await;
    }
}
