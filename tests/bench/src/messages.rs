//! A message of 1 KiB over Kafka: the hub, the bare server, and Kafka alone.

use acb_testbed::{kafka::Kafka, standalone::Standalone};

use crate::{Effort, Failure, TENANT, bare::Bare, broker::Broker, client::Target, report::Report, samples::Percentiles, tell};

const RAW_TOPIC: &str = "bench-raw";
const BARE: &str = "a bare tonic server on the same Kafka";

pub(crate) async fn run(standalone: &Standalone, kafka: &Kafka, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let broker = Broker::of(kafka);
    let bare = Bare::start(&broker).await?;
    let hub = Target::hub(standalone.tenant(TENANT)?).await?;
    broker.topic(RAW_TOPIC).await?;
    let (mut of_hub, mut of_bare, mut of_raw) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..effort.runs {
        // Whatever the machine does meanwhile must not always hit the same one.
        let hub_first = run % 2 == 0;
        for hub_next in [hub_first, !hub_first] {
            let (name, target, runs) = if hub_next { ("hub", &hub, &mut of_hub) } else { ("bare", &bare.target, &mut of_bare) };
            runs.push(target.run(effort.samples).await?.percentiles());
            say(run, name, runs);
        }
        of_raw.push(broker.run(RAW_TOPIC, effort.samples).await?.percentiles());
        say(run, "raw", &of_raw);
    }
    let [hub, bare, raw] = [of_hub, of_bare, of_raw].map(|runs| Percentiles::median(&runs));
    report.ratio("message of 1 KiB over Kafka, p50", BARE, (hub.p50, bare.p50), 1.25);
    report.ratio("message of 1 KiB over Kafka, p95", BARE, (hub.p95, bare.p95), 1.4);
    report.value("the same, p50: added by the hub", hub.p50 - bare.p50, "ms", 0.08);
    for (name, hub, bare, raw, floor) in [
        ("p50", hub.p50, bare.p50, raw.p50, "required: under 10 ms"),
        ("p95", hub.p95, bare.p95, raw.p95, "required: under 30 ms"),
        ("p99", hub.p99, bare.p99, raw.p99, "required: under 50 ms"),
    ] {
        report.beside(format!("message of 1 KiB over Kafka, {name}"), Some(floor), hub, "ms");
        report.beside(format!("the same, the bare server, {name}"), None, bare, "ms");
        report.beside(format!("the same, Kafka alone, produce to consume, {name}"), None, raw, "ms");
    }
    Ok(())
}

fn say(run: u32, name: &str, runs: &[Percentiles]) {
    if let Some(Percentiles { p50, p95, p99 }) = runs.last() {
        tell(format!("  run {} {name:<4}  p50 {p50:.3}  p95 {p95:.3}  p99 {p99:.3} ms", run + 1));
    }
}
