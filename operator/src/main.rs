//! The operator on a cluster: wiring only.

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use acb_operator::runtime::kubernetes::run::{self, Options, StartError};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What it was given can't be used. Waiting would not mend it.
const EXIT_CONFIG: u8 = 2;
const EXIT_FAILED: u8 = 1;

/// Turns Tenants, Agents and Quotas of a cluster into topics, logins, rows and hubs.
#[derive(Debug, Parser)]
#[command(
    name = "acb-operator",
    version,
    after_help = "Exit codes: 0 ended as told, 1 failed, 2 the configuration can't be used."
)]
struct Args {
    /// Configuration file. Credentials are in the folders `postgres` and `kafka` beside it: `username`, `password`, `ca.crt`.
    #[arg(long, value_name = "FILE", env = "ACB_CONFIG", default_value = "/etc/acb/operator/config.yaml")]
    config: PathBuf,
    /// Port of /livez, /readyz and /metrics.
    #[arg(long, value_name = "PORT", env = "ACB_OPS_PORT", default_value_t = 8080)]
    ops_port: u16,
    /// Port of 127.0.0.1 that `acb plan` asks on, by port-forward. 0: none.
    #[arg(long, value_name = "PORT", env = "ACB_PLAN_PORT", default_value_t = 0)]
    plan_port: u16,
    /// What is logged: a tracing filter, such as `info` or `acb_operator=debug`.
    #[arg(long, value_name = "FILTER", env = "ACB_LOG", default_value = "info")]
    log_level: String,
    /// The operator's own namespace: its Lease and the tenants' authorities are there.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "acb-system")]
    namespace: String,
    /// What it is called, in the Lease and in events.
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "acb-operator")]
    name: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = match EnvFilter::try_new(&args.log_level) {
        Ok(filter) => filter,
        Err(error) => return fail(EXIT_CONFIG, &error),
    };
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
    // Two threads: it waits for others most of the time.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    let options = Options {
        config: args.config,
        ops_port: args.ops_port,
        plan_port: args.plan_port,
        namespace: args.namespace,
        name: args.name,
    };
    let result = runtime.block_on(async {
        let stop = CancellationToken::new();
        let told = stop.clone();
        let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => return Err(StartError::Client(error.into())),
        };
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.cancel();
        });
        run::run(&options, stop).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError::Config(error)) => fail(EXIT_CONFIG, &error),
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    tracing::error!(%error, "the operator stops");
    // For people who look at the process rather than at its log. There is nowhere to tell that this failed.
    let _ = writeln!(std::io::stderr(), "acb-operator: {error}");
    ExitCode::from(code)
}
