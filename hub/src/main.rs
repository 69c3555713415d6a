//! The hub of one tenant: wiring only.

mod config;
mod hub;
mod issuers;
mod logging;
mod passwords;
mod probe;
mod process;
mod reload;
mod traces;
mod witness;

use std::{io::Write as _, process::ExitCode, sync::Arc, time::Duration};

use config::Config;
use logging::LogLines;

/// What it was given can't be used. Waiting would not mend it.
const EXIT_CONFIG: u8 = 2;
/// A part stopped that must not stop.
const EXIT_FAILED: u8 = 1;

fn main() -> ExitCode {
    let log = match logging::start() {
        Ok(log) => log,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    let _flushed = log.flushed_at_end();
    serve(log)
}

fn serve(log: LogLines) -> ExitCode {
    let config = match Config::load() {
        Ok(config) => Arc::new(config),
        Err(error) => return fail(EXIT_CONFIG, &error),
    };
    // Two threads: a hub is one of many on its node, and waits for others most of the time.
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    let result = runtime.block_on(hub::run(config, log));
    // What is still running was given its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(hub::HubError::Config(error)) => fail(EXIT_CONFIG, &error),
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    tracing::error!(%error, "the hub stops");
    // For people who look at the process rather than at its log. There is nowhere to tell that this failed.
    let _ = writeln!(std::io::stderr(), "acb-hub: {error}");
    ExitCode::from(code)
}
