//! NATS JetStream beside the hub: file storage, every message synced to the disk before it is acknowledged, as the log on PostgreSQL does it. Without
//! TLS, identity or permissions. Its server is built by `tests/testbed/nats/build`, its client is a program of its own (`tests/bench/nats`).

use std::{fs, net::TcpListener, path::Path, process::Stdio, time::Duration};

use acb_testbed::standalone::Standalone;
use serde::Deserialize;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::{Effort, Failure, TENANT, client::Target, report::Report, samples::Percentiles, tell};

const SERVER: &str = "target/testbed/nats/nats-server";
const CLIENT: &str = "target/nats/release/acb-bench-nats";
const WARM_UP: u32 = 500;
const READY: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);
/// Of each run: every one waits for the disk.
const SAMPLES: u32 = 5000;

#[derive(Deserialize)]
struct Measured {
    p50: f64,
    p95: f64,
    p99: f64,
}

pub(crate) async fn run(standalone: &Standalone, effort: Effort, target: &Path, report: &mut Report) -> Result<(), Failure> {
    let nats = Nats::start(target).await?;
    let hub = Target::hub(standalone.tenant(TENANT)?).await?;
    let samples = effort.samples.min(SAMPLES);
    let (mut of_hub, mut of_nats) = (Vec::new(), Vec::new());
    for run in 0..effort.runs {
        let hub_first = run % 2 == 0;
        for hub_next in [hub_first, !hub_first] {
            let (name, runs) = if hub_next { ("hub", &mut of_hub) } else { ("NATS", &mut of_nats) };
            runs.push(if hub_next { hub.run(samples).await?.percentiles() } else { nats.run(samples).await? });
            if let Some(Percentiles { p50, p95, p99 }) = runs.last() {
                tell(format!("  run {} {name:<4}  p50 {p50:.3}  p95 {p95:.3}  p99 {p99:.3} ms", run + 1));
            }
        }
    }
    let (hub, nats) = (Percentiles::median(&of_hub), Percentiles::median(&of_nats));
    for (name, hub, nats) in [("p50", hub.p50, nats.p50), ("p99", hub.p99, nats.p99)] {
        report.beside(format!("message of 1 KiB with the log on PostgreSQL, {name}"), None, hub, "ms");
        report.beside(format!("the same, NATS JetStream, every message synced, {name}"), None, nats, "ms");
    }
    Ok(())
}

/// A server with a folder of its own. It ends with this value.
struct Nats {
    url: String,
    _server: Child,
    _folder: tempfile::TempDir,
}

impl Nats {
    async fn start(target: &Path) -> Result<Self, Failure> {
        for (program, command) in [
            (SERVER, "tests/testbed/nats/build"),
            (CLIENT, "cargo build --locked --release --manifest-path tests/bench/nats/Cargo.toml --target-dir target/nats"),
        ] {
            if !Path::new(program).is_file() {
                return Err(Failure(format!("{program} is missing: run {command}")));
            }
        }
        let folder = tempfile::Builder::new().prefix("acb-nats-").tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = folder.path().join("nats.conf");
        let store = folder.path().join("store");
        fs::write(
            &config,
            format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n", store.display()),
        )?;
        let log = fs::File::create(target.join("nats.log"))?;
        let mut command = Command::new(SERVER);
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
        let mut server = command.spawn()?;
        let deadline = Instant::now() + READY;
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if Instant::now() > deadline || server.try_wait()?.is_some() {
                return Err(Failure("NATS did not start: see nats.log".to_owned()));
            }
            sleep(LOOK).await;
        }
        Ok(Self { url: format!("nats://127.0.0.1:{port}"), _server: server, _folder: folder })
    }

    async fn run(&self, samples: u32) -> Result<Percentiles, Failure> {
        let mut client = Command::new(CLIENT);
        client.arg(&self.url).arg(samples.to_string()).arg(WARM_UP.min(samples).to_string()).kill_on_drop(true);
        let output = client.stdin(Stdio::null()).output().await?;
        if !output.status.success() {
            return Err(Failure(format!("the client of NATS: {}", String::from_utf8_lossy(&output.stderr).trim())));
        }
        let Measured { p50, p95, p99 } = serde_json::from_slice(&output.stdout)?;
        Ok(Percentiles { p50, p95, p99 })
    }
}
