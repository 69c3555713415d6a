//! The main job, as a user would do it: two tenants from `config/samples`, hubs, agents, a stream through a killed replica, and the other
//! tenant kept out. Ends with a table and `target/demo/report.json`; exits non-zero if anything in it is not as it must be.

mod attacks;
mod documents;
mod event;
mod failure;
mod latency;
mod output;
mod report;
mod stage;
mod stream;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;

use crate::{
    event::{Event, Recorder},
    failure::Failure,
    output::tell,
    report::Report,
    stage::Stage,
};

/// Runs the main job of ACB on this machine, and checks what happened.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Uses a real Kafka as the bus, instead of PostgreSQL. It is started for the demo and stopped after it.
    #[arg(long)]
    kafka: bool,
    /// Where the record and the report go.
    #[arg(long, default_value = "target/demo")]
    target: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match demo(&arguments).await {
        Ok(faults) if faults.is_empty() => {
            tell(format!("\nall is as it must be: {}", arguments.target.join("report.json").display()));
            ExitCode::SUCCESS
        }
        Ok(faults) => {
            for fault in faults {
                tell(format!("FAULT  {fault}"));
            }
            ExitCode::FAILURE
        }
        Err(failure) => {
            tell(format!("the demo failed: {failure}"));
            ExitCode::FAILURE
        }
    }
}

async fn demo(arguments: &Arguments) -> Result<Vec<String>, Failure> {
    fs::create_dir_all(&arguments.target).map_err(|error| Failure(format!("{}: {error}", arguments.target.display())))?;
    let record = arguments.target.join("events.jsonl");
    let recorder = Recorder::create(&record)?;
    let stage = Stage::start(arguments.kafka, &arguments.target, &recorder).await?;
    let played = play(&stage, &recorder).await;
    stage.stop().await?;
    played?;
    recorder.record(Event::Finished { seconds: recorder.seconds() })?;
    recorder.flush()?;
    write_report(&record, &arguments.target.join("report.json"))?;
    check(&record, &arguments.target.join("report.json"))
}

async fn play(stage: &Stage, recorder: &Recorder) -> Result<(), Failure> {
    let acme = stage.tenant("acme")?;
    documents::run(&acme, recorder).await?;
    latency::run(&acme, recorder).await?;
    let streamed = stream::run(stage, &acme, recorder).await?;
    attacks::run(stage, &streamed, recorder).await?;
    Ok(())
}

fn write_report(record: &Path, path: &Path) -> Result<(), Failure> {
    let report = Report::of(&event::read(record)?);
    let json = serde_json::to_string_pretty(&report).map_err(|error| Failure(error.to_string()))?;
    fs::write(path, json + "\n").map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    tell("");
    let resumed = report.resumed_from_chunk.map_or_else(|| "never".to_owned(), |chunk| chunk.to_string());
    let latency = report.latency_ms;
    for (what, value) in [
        ("messages sent", report.messages_sent.to_string()),
        ("messages delivered", report.messages_delivered.to_string()),
        ("duplicates delivered", report.duplicates_delivered.to_string()),
        ("latency p50 / p95 / p99", format!("{:.2} / {:.2} / {:.2} ms", latency.p50, latency.p95, latency.p99)),
        ("streamed", format!("{} MiB", report.stream_bytes >> 20)),
        ("SHA-256 of what was read back", if report.stream_sha256_ok { "the same" } else { "DIFFERENT" }.to_owned()),
        ("resumed from chunk", resumed),
        ("stream, in and out", format!("{:.1} MB/s", report.stream_mb_per_s)),
        ("attacks refused", format!("{} of {}", report.cross_tenant_refused, report.cross_tenant_attempts)),
        ("time", format!("{:.1} s", report.seconds)),
    ] {
        tell(format!("  {what:<30}  {value:>24}"));
    }
    Ok(())
}

/// Reads both files again: the report must be what the record says, and the record must be as it must be.
fn check(record: &Path, path: &Path) -> Result<Vec<String>, Failure> {
    let entries = event::read(record)?;
    let text = fs::read_to_string(path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let written: Report = serde_json::from_str(&text).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    let mut faults = report::faults(&entries, &written);
    if written != Report::of(&entries) {
        faults.push("the report is not what the record says".to_owned());
    }
    Ok(faults)
}
