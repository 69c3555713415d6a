//! Measures the figures of `docs/figures.md`, and writes `target/bench/report.json`. To be built with `--release`.

mod agents;
mod bare;
mod bare_tls;
mod broker;
mod client;
mod dev;
mod effort;
mod failure;
mod hub;
mod inserts;
mod mailboxes;
mod messages;
mod nats;
mod operator;
mod output;
mod report;
mod samples;
mod streams;
mod sweep;
mod tenant;
mod throughput;

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use acb_testbed::{
    kafka::{Kafka, KafkaListener},
    standalone::{Home, Standalone},
};
use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    effort::Effort,
    failure::Failure,
    output::tell,
    report::Report,
    tenant::{RECEIVER, SENDER, TENANT},
};

/// Measures ACB on this machine.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Messages in each run.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Runs of each measurement; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Tenants of the operator, with ten agents each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=900))]
    tenants: u32,
    /// Numbers of tenants for the part `scale` with the log on Kafka, the smallest first: the others are compared with it. 0: none.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000])]
    sizes: Vec<u32>,
    /// The same, with the log on PostgreSQL.
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 2000, 5000])]
    sizes_on_postgres: Vec<u32>,
    /// Agents that are connected at once, beside ten.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=1000))]
    agents: u32,
    /// Messages that are acknowledged before the rows of mailboxes are counted.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    acknowledged: u32,
    /// Measures only this. Can be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<Part>,
    /// Measures this, too, which needs a cluster. Can be repeated.
    #[arg(long, value_name = "NAME")]
    also: Vec<Part>,
    /// Where the report and the logs go.
    #[arg(long, default_value = "target/bench")]
    target: PathBuf,
    #[command(subcommand)]
    command: Option<Internal>,
}

#[derive(Debug, Subcommand)]
enum Internal {
    /// The server that the hub is compared with. Its settings come on standard input.
    #[command(hide = true)]
    Bare,
    /// The server that takes TLS connections, and nothing else. Its certificate comes on standard input.
    #[command(hide = true)]
    BareTls,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A message, sender to recipient, over Kafka.
    Messages,
    /// Messages a second, with many in flight.
    Throughput,
    /// 64 MiB in and out, one stream and eight at once.
    Streams,
    /// A thousand connected agents: memory, a message to one of them, a replica started again.
    Agents,
    /// Rows of mailboxes after many messages, and a page of unread ones among many others.
    Mailboxes,
    /// Expired messages that nobody took, to the dead letters.
    Sweep,
    /// NATS JetStream beside the log on PostgreSQL.
    Nats,
    /// Memory and start of an idle hub.
    Hub,
    /// `acb dev`: start, and a tenant added.
    Dev,
    /// The operator with many tenants. Only where it is named: it needs a control plane.
    Operator,
    /// The operator with thousands of tenants, on an API server of wood. Only where it is named.
    Scale,
    /// What busy tenants take from others, on an API server of wood. Only where it is named.
    Fairness,
    /// Tenants that get ready on a node. Only where it is named: it needs a cluster with the operator.
    Ready,
}

// The same number of threads as a hub has, so that what serves is compared, and not how much of the machine it takes.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Some(Internal::Bare) => bare::serve().await,
        Some(Internal::BareTls) => bare_tls::serve().await,
        None => measure(&arguments).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "acb-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let target = &arguments.target;
    fs::create_dir_all(target).map_err(|error| Failure(format!("{}: {error}", target.display())))?;
    let effort = Effort {
        samples: arguments.samples,
        runs: arguments.runs,
        tenants: arguments.tenants,
        acknowledged: arguments.acknowledged,
        agents: arguments.agents,
    };
    let named = |part: Part| arguments.only.contains(&part) || arguments.also.contains(&part);
    let wanted = |part: Part| arguments.only.is_empty() || named(part);
    let mut report = Report::default();
    if cfg!(debug_assertions) {
        tell("a debug build: its figures say nothing of a release");
    }
    if [Part::Messages, Part::Throughput, Part::Hub, Part::Sweep].into_iter().any(wanted) {
        tell("starting Kafka, and a hub with its log there");
        let kafka = Kafka::start(KafkaListener::Tls).await;
        let (home, standalone) = stage(Some(&kafka), &target.join("dev-kafka.log")).await?;
        if wanted(Part::Hub) {
            hub::run(&home, "Kafka", effort, target, &mut report).await?;
        }
        if wanted(Part::Messages) {
            messages::run(&standalone, &kafka, effort, &mut report).await?;
        }
        if wanted(Part::Throughput) {
            throughput::on_kafka(&standalone, &kafka, effort, &mut report).await?;
        }
        if wanted(Part::Sweep) {
            sweep::run(&standalone, "Kafka", effort, &mut report).await?;
        }
        standalone.stop().await?;
    }
    let on_postgres = [Part::Streams, Part::Throughput, Part::Hub, Part::Nats, Part::Sweep, Part::Mailboxes];
    if on_postgres.into_iter().any(wanted) {
        tell("starting a hub with its log on PostgreSQL");
        let (home, standalone) = stage(None, &target.join("dev-postgres.log")).await?;
        if wanted(Part::Hub) {
            hub::run(&home, "PostgreSQL", effort, target, &mut report).await?;
        }
        if wanted(Part::Throughput) {
            throughput::on_postgres(&standalone, effort, &mut report).await?;
        }
        if wanted(Part::Streams) {
            streams::run(&standalone, effort, &mut report).await?;
        }
        if wanted(Part::Nats) {
            nats::run(&standalone, effort, target, &mut report).await?;
        }
        if wanted(Part::Sweep) {
            sweep::run(&standalone, "PostgreSQL", effort, &mut report).await?;
        }
        // Last: what it leaves behind is in the way of the others.
        if wanted(Part::Mailboxes) {
            mailboxes::run(&standalone, effort, &mut report).await?;
        }
        standalone.stop().await?;
    }
    if wanted(Part::Agents) {
        agents::run(effort, &target.join("dev-agents.log"), &mut report).await?;
    }
    if wanted(Part::Dev) {
        dev::run(effort, &target.join("dev-samples.log"), &mut report).await?;
    }
    if named(Part::Operator) {
        operator::run(effort, target, &mut report).await?;
    }
    if named(Part::Scale) {
        operator::scale(effort, (&arguments.sizes, &arguments.sizes_on_postgres), target, &mut report).await?;
    }
    if named(Part::Fairness) {
        operator::fairness(effort, target, &mut report).await?;
    }
    if named(Part::Ready) {
        operator::ready(effort, &mut report)?;
    }
    let path = target.join("report.json");
    report.write(&path)?;
    tell(format!("\n{}\n{}", report.table(), path.display()));
    Ok(())
}

async fn stage(kafka: Option<&Kafka>, log: &Path) -> Result<(Home, Standalone), Failure> {
    let home = Home::new()?;
    let resources = Path::new(env!("CARGO_MANIFEST_DIR")).join("resources");
    let standalone = Standalone::start(&home, &resources, kafka, log).await?;
    Ok((home, standalone))
}
