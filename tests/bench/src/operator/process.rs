//! An operator as a process of this machine, and what it says of itself.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use acb_operator::metrics_text::{Sample, samples};
use acb_testbed::OperatorFiles;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::Failure;

const READY: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);
/// Of a second, in `/proc`.
const TICKS: f64 = 100.0;

pub(super) struct Operator {
    process: Child,
    ops: SocketAddr,
}

impl Operator {
    /// Starts it, and waits until it is ready to lead or to stand by.
    pub(super) async fn start(files: &OperatorFiles, kubeconfig: &Path, name: &str, logs: &Path) -> Result<Self, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let program = std::env::current_exe()?.with_file_name("acb-operator");
        let log = File::create(logs.join(format!("{name}.log")))?;
        let mut command = files.command(&program, kubeconfig, name, port);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().map_err(|error| Failure(format!("{}: {error}", program.display())))?;
        let mut operator = Self { process, ops: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let begun = Instant::now();
        while !operator.get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            if begun.elapsed() > READY || operator.process.try_wait()?.is_some() {
                return Err(Failure(format!("{name} did not get ready: see {name}.log")));
            }
            sleep(LOOK).await;
        }
        Ok(operator)
    }

    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect_timeout(&self.ops, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// The sum of a metric, of the samples of which some label says this; of all of them, where that is empty.
    pub(super) fn metric(&self, name: &str, says: &str) -> Result<f64, Failure> {
        let text = self.get("/metrics").ok_or_else(|| Failure("an operator does not answer".to_owned()))?;
        let is_meant = |sample: &Sample<'_>| {
            sample.name == name && (says.is_empty() || sample.labels.iter().any(|(_, value)| value == says))
        };
        Ok(samples(&text).filter(is_meant).map(|sample| sample.value).sum())
    }

    pub(super) fn leads(&self) -> Result<bool, Failure> {
        Ok(self.metric("leader_election_master_status", "")? > 0.5)
    }

    /// Waits until it leads. Answers with how long that took.
    pub(super) async fn wait_leading(&self) -> Result<Duration, Failure> {
        let begun = Instant::now();
        while !self.leads()? {
            if begun.elapsed() > READY {
                return Err(Failure("nobody leads".to_owned()));
            }
            sleep(LOOK).await;
        }
        Ok(begun.elapsed())
    }

    pub(super) fn memory_mib(&self) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: Option<f64> = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
        kib.map(|kib| kib / 1024.0).ok_or_else(|| Failure("no VmRSS".to_owned()))
    }

    /// Of all its threads, in user and in kernel mode.
    pub(super) fn cpu_seconds(&self) -> Result<f64, Failure> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // After the name, which may hold anything: the third field is the first.
        let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, fields)| fields.split_whitespace().collect()).unwrap_or_default();
        let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<f64>().ok());
        match (ticks(14), ticks(15)) {
            (Some(user), Some(system)) => Ok((user + system) / TICKS),
            _ => Err(Failure("no CPU time".to_owned())),
        }
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let pid = Pid::from_raw(self.process.id().cast_signed()).ok_or_else(|| Failure("no process".to_owned()))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its end, that it was told of.
    pub(super) async fn ended(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.process.try_wait()?.is_none() {
            if begun.elapsed() > END {
                return Err(Failure("an operator did not end".to_owned()));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
