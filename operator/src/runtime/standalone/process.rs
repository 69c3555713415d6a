//! One pod: its volumes as folders, its process, its probes, and starting it again when it ends. Each process leads a process
//! group of its own, and dies with this one.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    objects::ObjectStore,
    pod::{Container, EnvValue, Probe, Workload},
    ports::PortBook,
    probe,
    state::{self, StateError},
    volume,
};

/// Before the second start; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// At most.
const BACKOFF_MOST: Duration = Duration::from_secs(30);
/// A process that ran for this long starts over without a wait.
const BACKOFF_FORGIVEN: Duration = Duration::from_secs(60);
/// Between probes until the first success. Loopback is cheap, and someone is waiting.
const PROBE_EAGER: Duration = Duration::from_millis(50);
/// A log past this is moved aside; one older is kept.
const LOG_BYTES: u64 = 16 << 20;
/// What a process gets of our own environment, beside what the Deployment says.
const INHERITED_ENV: [&str; 8] = [
    "PATH",
    "TZ",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_TRACES_SAMPLER_ARG",
];

/// How a pod is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Something that it needs is not there.
    #[default]
    Pending,
    /// Its process runs.
    Running,
    /// Its process ended; it is started again after a while.
    CrashLoopBackOff,
    /// Told to end.
    Terminating,
    /// Ended, because it was told to.
    Ended,
}

/// A pod, as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// How it is doing.
    pub phase: Phase,
    /// Whether traffic may come.
    pub ready: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// By name.
    pub ports: BTreeMap<String, u16>,
    /// While it runs.
    pub pid: Option<i32>,
    /// What it waits for, or why it ended; empty when all is well.
    pub message: String,
}

/// Where programs are.
#[derive(Clone, Debug, Default)]
pub struct Programs {
    /// By name; what is not here is looked for in `beside`.
    pub named: BTreeMap<String, PathBuf>,
    /// A folder, usually that of `acb` itself.
    pub beside: Option<PathBuf>,
}

impl Programs {
    fn find(&self, name: &str) -> Result<PathBuf, String> {
        let beside = self.beside.as_ref().map(|folder| folder.join(name));
        let path = self.named.get(name).cloned().or(beside).unwrap_or_default();
        if path.is_file() {
            return Ok(path);
        }
        Err(format!("the program {name} was looked for at {:?} and is not there: build it, or say where it is", path.display()))
    }
}

/// What a pod runs with.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) slot: u32,
    pub(crate) workload: Arc<Workload>,
    pub(crate) store: Arc<ObjectStore>,
    pub(crate) ports: Arc<PortBook>,
    pub(crate) programs: Arc<Programs>,
    /// Private to the pod: `root/`, `pid.json`.
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
}

/// How a started process came to its end.
enum Ended {
    Told,
    Itself(String),
}

impl Pod {
    /// Runs until `stop`, then ends the process within the grace period; `kill` ends it at once.
    pub(crate) async fn run(self, stop: CancellationToken, kill: CancellationToken, status: watch::Sender<PodStatus>) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let started = Instant::now();
            let message = match self.start(&status).await {
                Ok(child) => match self.attend(child, &stop, &kill, &status).await {
                    Ended::Told => break,
                    Ended::Itself(message) => {
                        warn!(pod = %self.name, namespace = %self.workload.namespace, "{message}");
                        status.send_modify(|status| status.phase = Phase::CrashLoopBackOff);
                        message
                    }
                },
                Err(message) => message,
            };
            if started.elapsed() > BACKOFF_FORGIVEN {
                backoff = BACKOFF_FIRST;
            }
            self.release(&status);
            status.send_modify(|status| {
                status.ready = false;
                status.pid = None;
                status.message = message;
            });
            let mut changes = self.store.changes();
            let pending = status.borrow().phase == Phase::Pending;
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(backoff) => {}
                // What it waited for may just have been made.
                _ = changes.changed(), if pending => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MOST);
            status.send_modify(|status| status.restarts += u32::from(status.phase == Phase::CrashLoopBackOff));
        }
        self.release(&status);
        // Its Secrets need not outlive it on the disk; the log stays.
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            warn!(pod = %self.name, %error, "its folder stays");
        }
        status.send_replace(PodStatus { phase: Phase::Ended, ..PodStatus::default() });
    }

    fn release(&self, status: &watch::Sender<PodStatus>) {
        for port in status.borrow().ports.values() {
            self.ports.give_back(*port);
        }
        status.send_modify(|status| status.ports.clear());
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn sync_volumes(&self) -> Result<(), String> {
        let mounts = &self.workload.container.mounts;
        mounts.iter().try_for_each(|mount| {
            volume::sync(&self.store, &self.workload.namespace, mount, &self.root()).map_err(|error| error.to_string())
        })
    }

    async fn start(&self, status: &watch::Sender<PodStatus>) -> Result<Child, String> {
        state::make_private(&self.root()).map_err(|error| error.to_string())?;
        self.sync_volumes()?;
        let container = &self.workload.container;
        let program = self.programs.find(container.program())?;
        let mut ports = BTreeMap::new();
        for port in &container.ports {
            let key = format!("{}/{}/{}/{}", self.workload.namespace, self.workload.name, self.slot, port.name);
            ports.insert(port.name.clone(), self.ports.take(&key).map_err(|error| error.to_string())?);
        }
        status.send_modify(|status| status.ports.clone_from(&ports));
        let log = self.open_log().map_err(|error| format!("{}: {error}", self.log.display()))?;
        let errors = log.try_clone().map_err(|error| format!("{}: {error}", self.log.display()))?;
        let mut command = Command::new(&program);
        command
            .args(container.command.iter().skip(1).chain(&container.args).map(|arg| container.rewrite(arg, &self.root())))
            .env_clear()
            .envs(INHERITED_ENV.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(self.environment(container, &ports))
            .current_dir(self.folder.as_path())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true);
        die_with_parent(&mut command);
        let child = command.spawn().map_err(|error| format!("{}: {error}", program.display()))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(record) = pid.and_then(PidFile::of) {
            state::write_json(&self.folder.join("pid.json"), &record).map_err(|error| error.to_string())?;
        }
        info!(pod = %self.name, namespace = %self.workload.namespace, ?pid, ?ports, "started");
        let ready = container.readiness.is_none();
        status.send_modify(|status| {
            *status = PodStatus { phase: Phase::Running, ready, restarts: status.restarts, ports, pid, message: String::new() };
        });
        Ok(child)
    }

    fn environment(&self, container: &Container, ports: &BTreeMap<String, u16>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for (name, value) in &container.env {
            let value = match value {
                EnvValue::Literal(value) => container.rewrite(value, &self.root()),
                EnvValue::PodName => self.name.clone(),
                EnvValue::PodNamespace => self.workload.namespace.clone(),
                EnvValue::PodIp => "127.0.0.1".to_owned(),
            };
            env.insert(name.clone(), value);
        }
        for (name, port) in ports {
            env.insert(format!("ACB_{}_PORT", name.to_uppercase().replace('-', "_")), port.to_string());
        }
        env
    }

    fn open_log(&self) -> io::Result<fs::File> {
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)
    }

    /// The process appends to its log and can't be told to reopen it: it is copied aside and emptied in place.
    fn rotate_log(&self) -> io::Result<()> {
        if fs::metadata(&self.log)?.len() > LOG_BYTES {
            fs::copy(&self.log, self.log.with_extension("log.1"))?;
            OpenOptions::new().write(true).open(&self.log)?.set_len(0)?;
        }
        Ok(())
    }

    async fn attend(
        &self,
        mut child: Child,
        stop: &CancellationToken,
        kill: &CancellationToken,
        status: &watch::Sender<PodStatus>,
    ) -> Ended {
        let container = &self.workload.container;
        let mut changes = self.store.changes();
        let mut readiness = Prober::new(container.readiness.as_ref(), status, PROBE_EAGER);
        let mut liveness = Prober::new(container.liveness.as_ref(), status, Duration::ZERO);
        let mut upkeep = interval(Duration::from_secs(10));
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                exit = child.wait() => return Ended::Itself(describe(exit, &self.log)),
                () = stop.cancelled() => {
                    self.end(&mut child, kill, status).await;
                    return Ended::Told;
                }
                _ = changes.changed() => {
                    if let Err(error) = self.sync_volumes() {
                        warn!(pod = %self.name, error, "volumes are not current");
                    }
                }
                _ = upkeep.tick() => {
                    if let Err(error) = self.rotate_log() {
                        warn!(pod = %self.name, %error, "its log is not rotated");
                    }
                }
                result = readiness.next() => {
                    let ready = match &result {
                        Ok(()) => true,
                        // As a kubelet does: ready until so many failures in a row.
                        Err(_) => status.borrow().ready && !readiness.has_failed(),
                    };
                    let message = if ready { String::new() } else { result.err().unwrap_or_default() };
                    status.send_if_modified(|status| {
                        let changed = status.ready != ready || status.message != message;
                        (status.ready, status.message) = (ready, message);
                        changed
                    });
                }
                result = liveness.next(), if status.borrow().ready || liveness.was_good => {
                    if let Err(error) = result && liveness.has_failed() {
                        self.end(&mut child, kill, status).await;
                        return Ended::Itself(format!("ended, because its liveness probe failed: {error}"));
                    }
                }
            }
        }
    }

    async fn end(&self, child: &mut Child, kill: &CancellationToken, status: &watch::Sender<PodStatus>) {
        status.send_modify(|status| (status.phase, status.ready) = (Phase::Terminating, false));
        let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let signal = |signal| {
            // No such group: it has just ended.
            let _ = group.map(|group| rustix::process::kill_process_group(group, signal));
        };
        signal(Signal::TERM);
        tokio::select! {
            _ = child.wait() => return,
            () = sleep(self.workload.grace) => warn!(pod = %self.name, "did not end within its grace period"),
            () = kill.cancelled() => {}
        }
        signal(Signal::KILL);
        let _ = child.wait().await;
    }
}

/// The kernel ends the process when this one is gone, however it went.
fn die_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this is a single prctl(2), which allocates nothing.
    // The kernel counts the thread that forks as the parent: pods are started from runtime threads, which live as long as we do.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(io::Error::from));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

fn describe(exit: io::Result<ExitStatus>, log: &Path) -> String {
    let how = exit.map_or_else(|error| error.to_string(), |status| status.to_string());
    let tail = last_line(log).map(|line| format!("; its last words: {line}")).unwrap_or_default();
    format!("ended ({how}){tail}; see {}", log.display())
}

fn last_line(log: &Path) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = fs::File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail).into_owned();
    let line = tail.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.chars().take(300).collect())
}

/// Asks one probe, in its rhythm.
struct Prober {
    probe: Option<(Probe, u16)>,
    next: Instant,
    /// Between probes while there was no success yet; zero: the probe's own period.
    eager: Duration,
    failures: u32,
    was_good: bool,
}

impl Prober {
    fn new(probe: Option<&Probe>, status: &watch::Sender<PodStatus>, eager: Duration) -> Self {
        let probe = probe.and_then(|probe| Some((probe.clone(), *status.borrow().ports.get(&probe.port)?)));
        let wait = match &probe {
            Some((probe, _)) if eager.is_zero() => probe.initial_delay,
            _ => eager,
        };
        Self { probe, next: Instant::now() + wait, eager, failures: 0, was_good: false }
    }

    /// The next answer; never, where there is no probe. Cancelled and called again, it asks at the time it would have.
    async fn next(&mut self) -> Result<(), String> {
        let Some((probe, port)) = &self.probe else { return std::future::pending().await };
        sleep_until(self.next).await;
        let result = probe::http_get(*port, &probe.path, probe.timeout.max(Duration::from_secs(1)), probe::ANSWER_BYTES).await;
        if result.is_ok() {
            (self.failures, self.was_good) = (0, true);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        let eager = !self.was_good && !self.eager.is_zero();
        self.next = Instant::now() + if eager { self.eager } else { probe.period.max(Duration::from_secs(1)) };
        result.map(drop)
    }

    fn has_failed(&self) -> bool {
        self.probe.as_ref().is_some_and(|(probe, _)| self.failures >= probe.failure_threshold)
    }
}

/// Which process a pod had, told apart from a later one of the same id by its start time.
#[derive(Debug, Serialize, Deserialize)]
struct PidFile {
    pid: i32,
    started: u64,
}

impl PidFile {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything; the start time is the 20th field after it.
        let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        Some(Self { pid, started })
    }

    fn is_alive(&self) -> bool {
        Self::of(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// Ends what an earlier run left behind, and removes what its pods had. To be called with the state folder locked.
pub(crate) async fn sweep(pods: &Path) -> Result<(), StateError> {
    let mut alive = Vec::new();
    for namespace in fs::read_dir(pods).map_err(StateError::io(pods))?.flatten() {
        for pod in fs::read_dir(namespace.path()).into_iter().flatten().flatten() {
            // A damaged record names nothing that could be ended.
            if let Ok(Some(record)) = state::read_json::<PidFile>(&pod.path().join("pid.json")) {
                alive.push(record);
            }
        }
    }
    alive.retain(PidFile::is_alive);
    for record in &alive {
        warn!(pid = record.pid, "an earlier run left this process behind; it is ended");
        let _ = Pid::from_raw(record.pid).map(|pid| rustix::process::kill_process_group(pid, Signal::KILL));
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    while alive.iter().any(PidFile::is_alive) && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
    fs::remove_dir_all(pods).map_err(StateError::io(pods))?;
    state::make_private(pods)
}
