//! An idle hub: how soon it is ready, and what it holds. Another replica is started from what a running one was given.

use std::{
    fs::{self, File},
    net::TcpListener as StdListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use acb_testbed::standalone::Home;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::{Effort, Failure, TENANT, report::Report, samples::median, tell};

const IDLE: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(2);

/// Before any message, so that there is no window to read.
pub(crate) async fn run(home: &Home, log: &str, effort: Effort, target: &Path, report: &mut Report) -> Result<(), Failure> {
    let replica = Replica::running(home)?;
    let (mut starts, mut memories) = (Vec::new(), Vec::new());
    for run in 0..effort.runs {
        let mut started = replica.start(&target.join("hub.log"))?;
        let seconds = started.ready().await?;
        sleep(IDLE).await;
        let memory = started.memory_mib()?;
        started.end().await?;
        tell(format!("  run {} ready after {seconds:.3} s, {memory:.1} MiB when idle (log on {log})", run + 1));
        starts.push(seconds);
        memories.push(memory);
    }
    report.value(format!("idle hub, log on {log}: resident memory"), median(memories), "MiB", 20.0);
    report.value(format!("hub, log on {log}: process start to ready, empty window"), median(starts), "s", 1.0);
    Ok(())
}

/// What a running replica was given.
struct Replica {
    program: PathBuf,
    environment: Vec<(String, String)>,
}

struct Started {
    process: Child,
    operations: u16,
    begun: Instant,
}

impl Replica {
    fn running(home: &Home) -> Result<Self, Failure> {
        let pods = home.pods(TENANT)?;
        let pid = pods.values().find_map(|pod| pod.pid).ok_or_else(|| Failure("no hub runs".to_owned()))?;
        let environ = fs::read(format!("/proc/{pid}/environ"))?;
        let environment = environ
            .split(|byte| *byte == 0)
            .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Ok(Self { program: fs::read_link(format!("/proc/{pid}/exe"))?, environment })
    }

    fn start(&self, log: &Path) -> Result<Started, Failure> {
        let [grpc, operations] = free_ports()?;
        let output = File::create(log)?;
        let errors = output.try_clone()?;
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.environment.iter().cloned());
        command.env("ACB_POD_NAME", "hub-bench").env("ACB_GRPC_PORT", grpc.to_string());
        command.env("ACB_OPS_PORT", operations.to_string());
        command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        let begun = Instant::now();
        Ok(Started { process: command.spawn()?, operations, begun })
    }
}

impl Started {
    async fn ready(&mut self) -> Result<f64, Failure> {
        while !is_ready(self.operations).await {
            if self.begun.elapsed() > READY || self.process.try_wait()?.is_some() {
                return Err(Failure("the hub did not get ready: see hub.log".to_owned()));
            }
            sleep(LOOK).await;
        }
        Ok(self.begun.elapsed().as_secs_f64())
    }

    fn memory_mib(&self) -> Result<f64, Failure> {
        let pid = self.process.id().ok_or_else(|| Failure("the hub has ended".to_owned()))?;
        Ok(resident_kib(pid)? / 1024.0)
    }

    async fn end(mut self) -> Result<(), Failure> {
        if let Some(pid) = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::TERM)?;
        }
        timeout(END, self.process.wait()).await.map_err(|_| Failure("the hub did not end".to_owned()))??;
        Ok(())
    }
}

/// The resident memory of a process.
pub(crate) fn resident_kib(pid: u32) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.ok_or_else(|| Failure(format!("/proc/{pid}/status has no VmRSS")))
}

async fn is_ready(port: u16) -> bool {
    ask(port, "/readyz").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// What a hub answers at its port of operations.
pub(crate) async fn ask(port: u16, path: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection.write_all(format!("GET {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Free when they were looked for.
fn free_ports() -> Result<[u16; 2], Failure> {
    let held = [StdListener::bind("127.0.0.1:0")?, StdListener::bind("127.0.0.1:0")?];
    Ok([held[0].local_addr()?.port(), held[1].local_addr()?.port()])
}
