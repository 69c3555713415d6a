//! Messages a second: one session with many messages in flight, and many senders at once. Each message is counted when its recipient has it.

use acb_testbed::{kafka::Kafka, standalone::Standalone};

use crate::{
    Effort, Failure, TENANT,
    bare::Bare,
    broker::Broker,
    client::{Load, Target},
    inserts::Inserts,
    report::Report,
    samples::median,
    tell,
};

/// As many as the SDKs have.
const ONE: Load = Load { sessions: 1, in_flight: 256 };
const MANY: Load = Load { sessions: 64, in_flight: 1 };

/// Over Kafka, against the bare server.
pub(crate) async fn on_kafka(standalone: &Standalone, kafka: &Kafka, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let bare = Bare::start(&Broker::of(kafka)).await?;
    let hub = Target::hub(standalone.tenant(TENANT)?).await?;
    let (mut of_hub, mut of_bare, mut of_one) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..effort.runs {
        of_one.push(rate(&hub, ONE, effort, run, "one session, Kafka").await?);
        let hub_first = run % 2 == 0;
        for hub_next in [hub_first, !hub_first] {
            if hub_next {
                of_hub.push(rate(&hub, MANY, effort, run, "64 senders, Kafka").await?);
            } else {
                of_bare.push(rate(&bare.target, MANY, effort, run, "64 senders, bare").await?);
            }
        }
    }
    let (hub, bare) = (median(of_hub), median(of_bare));
    report.at_least("one session, 256 messages of 1 KiB in flight, Kafka", median(of_one), "messages/s", 10_000.0);
    report.at_least("64 senders of 1 KiB over Kafka, of the bare server's rate", hub / bare, "times", 0.6);
    report.beside("64 senders of 1 KiB over Kafka", None, hub, "messages/s");
    report.beside("the same, the bare server", None, bare, "messages/s");
    Ok(())
}

/// With the log on PostgreSQL.
pub(crate) async fn on_postgres(standalone: &Standalone, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let hub = Target::hub(standalone.tenant(TENANT)?).await?;
    let mut inserts = Inserts::start(standalone).await?;
    let (mut of_one, mut of_many, mut of_inserts, mut batches) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..effort.runs {
        of_one.push(rate(&hub, ONE, effort, run, "one session, PostgreSQL").await?);
        let since = inserts.clock().await?;
        of_many.push(rate(&hub, MANY, effort, run, "64 senders, PostgreSQL").await?);
        // As many rows in a transaction as the run had, which is known only after it.
        let batch = inserts.batch(since).await?;
        of_inserts.push(inserts.rate(&batch, effort.samples).await?);
        batches.push(batch.rows as f64);
        tell(format!("  run {} {batch}: {:.0} rows/s", run + 1, of_inserts[of_inserts.len() - 1]));
    }
    let (many, inserted) = (median(of_many), median(of_inserts));
    report.at_least("one session, 256 messages of 1 KiB in flight, PostgreSQL", median(of_one), "messages/s", 5_000.0);
    report.at_least("64 senders of 1 KiB with the log on PostgreSQL, of the rate of INSERTs", many / inserted, "times", 0.5);
    report.beside("64 senders of 1 KiB with the log on PostgreSQL", None, many, "messages/s");
    report.beside("the same bytes, INSERTs in batches of the same size", None, inserted, "rows/s");
    report.beside("the same, rows of a batch", None, median(batches), "rows");
    Ok(())
}

async fn rate(target: &Target, load: Load, effort: Effort, run: u32, what: &str) -> Result<f64, Failure> {
    let seconds = target.load(load, effort.samples).await?.as_secs_f64();
    let rate = f64::from(effort.samples) / seconds;
    tell(format!("  run {} {what}: {rate:.0} messages/s", run + 1));
    Ok(rate)
}
