//! What the demo plays on: `acb dev` over `config/samples`, as a user would start it, with state of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use acb_operator::runtime::standalone::{access::Access, deployments::read_running, process::PodStatus, state::StateDir};
use acb_sdk::Client;
use acb_testbed::kafka::{Kafka, KafkaListener};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use crate::{
    Failure,
    event::{Event, Recorder},
    tell,
};

/// A cold start on a busy machine.
const READY: Duration = Duration::from_secs(120);
const STOP: Duration = Duration::from_secs(60);

/// Everything that runs.
pub(crate) struct Stage {
    dev: Child,
    acb: PathBuf,
    state: TempDir,
    log: PathBuf,
    tenants: BTreeMap<String, Access>,
    kafka: Option<Kafka>,
}

/// How a tenant's hub is reached.
pub(crate) struct Tenant {
    pub(crate) endpoints: Vec<String>,
    ca_pem: Vec<u8>,
    keys: BTreeMap<String, PathBuf>,
}

/// The hubs' processes.
#[derive(Clone)]
pub(crate) struct Pods {
    state: PathBuf,
}

/// A replica that is no more.
pub(crate) struct Killed {
    pub(crate) replica: String,
    pub(crate) pid: i32,
}

impl Stage {
    pub(crate) async fn start(kafka: bool, target: &Path, recorder: &Recorder) -> Result<Self, Failure> {
        let io = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| Failure(format!("{what}: {error}"))
        };
        let acb = std::env::current_exe().map_err(io("acb-demo"))?.with_file_name("acb");
        let state = tempfile::Builder::new().prefix("acb-demo-").tempdir().map_err(io("a temporary folder"))?;
        // PostgreSQL runs as a user of its own where the demo runs as root, and must get in.
        fs::set_permissions(state.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(io("the temporary folder"))?;
        let ready = state.path().join("ready.json");
        let log = target.join("dev.log");
        let mut command = Command::new(&acb);
        command.args(["dev", "--file", "config/samples", "--state"]).arg(state.path().join("state"));
        command.arg("--ready-file").arg(&ready);
        let kafka = if kafka {
            tell("starting a Kafka broker");
            let kafka = Kafka::start(KafkaListener::Tls).await;
            let password = state.path().join("kafka-admin-password");
            let ca = state.path().join("kafka-ca.crt");
            fs::write(&password, kafka.admin_password()).map_err(io("the broker's password"))?;
            fs::write(&ca, kafka.ca_pem().unwrap_or_default()).map_err(io("the broker's CA"))?;
            command.args(["--kafka-bootstrap-servers", &kafka.bootstrap_servers()]);
            command.args(["--kafka-username", Kafka::ADMIN, "--kafka-password-file"]).arg(&password);
            command.arg("--kafka-ca-file").arg(&ca);
            Some(kafka)
        } else {
            None
        };
        tell(format!("$ acb dev --file config/samples{}", if kafka.is_some() { " --kafka-bootstrap-servers …" } else { "" }));
        let output = File::create(&log).map_err(io("the log"))?;
        let errors = output.try_clone().map_err(io("the log"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).kill_on_drop(true);
        let dev = command.spawn().map_err(io("acb dev"))?;
        let mut stage = Self { dev, acb, state, log, tenants: BTreeMap::new(), kafka };
        stage.tenants = stage.wait_ready(&ready).await?;
        for (tenant, access) in &stage.tenants {
            let endpoints: Vec<String> = access.server.split(',').map(str::to_owned).collect();
            tell(format!("  tenant {tenant} is ready: {} hub replicas at {}", endpoints.len(), endpoints.join(" and ")));
            recorder.record(Event::TenantReady { tenant: tenant.clone(), endpoints })?;
        }
        Ok(stage)
    }

    /// The ready file comes once every tenant is ready.
    async fn wait_ready(&mut self, path: &Path) -> Result<BTreeMap<String, Access>, Failure> {
        let deadline = Instant::now() + READY;
        loop {
            if let Ok(text) = fs::read_to_string(path)
                && let Ok(tenants) = serde_json::from_str(&text)
            {
                return Ok(tenants);
            }
            let ended = self.dev.try_wait().map_err(|error| Failure(format!("acb dev: {error}")))?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(20).collect();
                let end: Vec<&str> = end.into_iter().rev().collect();
                return Err(Failure(format!("acb dev did not get ready. The end of {}:\n{}", self.log.display(), end.join("\n"))));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    pub(crate) async fn tenant(&self, name: &str) -> Result<Tenant, Failure> {
        let access = self.tenants.get(name).ok_or_else(|| Failure(format!("there is no tenant {name}")))?;
        let ca = access.ca_file.as_ref().ok_or_else(|| Failure(format!("tenant {name} has no CA")))?;
        Ok(Tenant {
            endpoints: access.server.split(',').map(str::to_owned).collect(),
            ca_pem: fs::read(ca).map_err(|error| Failure(format!("{}: {error}", ca.display())))?,
            keys: access.api_key_files.clone(),
        })
    }

    /// Runs `acb` on this state, and reads the JSON that it prints.
    pub(crate) async fn acb_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, Failure> {
        let shown = format!("acb {}", arguments.join(" "));
        tell(format!("$ {shown}"));
        let output = Command::new(&self.acb)
            .args(arguments)
            .arg("--state")
            .arg(self.state.path().join("state"))
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|error| Failure(format!("{shown}: {error}")))?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure(format!("{shown}: {error}; it said: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }

    pub(crate) fn pods(&self) -> Pods {
        Pods { state: self.state.path().join("state") }
    }

    /// As Ctrl-C would.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        if let Some(pid) = self.dev.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::TERM).map_err(|error| Failure(format!("acb dev: {error}")))?;
        }
        let status = timeout(STOP, self.dev.wait())
            .await
            .map_err(|_| Failure(format!("acb dev did not end within {} s: see {}", STOP.as_secs(), self.log.display())))?
            .map_err(|error| Failure(format!("acb dev: {error}")))?;
        drop(self.kafka);
        if status.success() { Ok(()) } else { Err(Failure(format!("acb dev ended with {status}: see {}", self.log.display()))) }
    }
}

impl Tenant {
    /// An agent's client, for these replicas.
    pub(crate) async fn client<S: AsRef<str>>(&self, agent: &str, endpoints: &[S]) -> Result<Client, Failure> {
        let key = self.keys.get(agent).ok_or_else(|| Failure(format!("there is no key of agent {agent}")))?;
        let key = fs::read_to_string(key).map_err(|error| Failure(format!("{}: {error}", key.display())))?;
        let client = Client::builder()
            .endpoints(endpoints.iter().map(AsRef::as_ref))
            .ca_pem(self.ca_pem.clone())
            .api_key(key.trim().parse()?)
            .connect()
            .await?;
        Ok(client)
    }

    /// One replica, and another.
    pub(crate) fn two_endpoints(&self) -> Result<(&str, &str), Failure> {
        match self.endpoints.as_slice() {
            [first, second, ..] => Ok((first, second)),
            _ => Err(Failure("the tenant has no two replicas".to_owned())),
        }
    }
}

impl Pods {
    /// Ends a replica's process as a crash would.
    pub(crate) fn kill(&self, replica: &str) -> Result<Killed, Failure> {
        let pid = self.status(replica)?.pid.ok_or_else(|| Failure(format!("{replica} does not run")))?;
        let target = Pid::from_raw(pid).ok_or_else(|| Failure(format!("{replica} has no process")))?;
        kill_process(target, Signal::KILL).map_err(|error| Failure(format!("{replica}: {error}")))?;
        Ok(Killed { replica: replica.to_owned(), pid })
    }

    /// Whether a killed replica runs again, as another process, and takes traffic.
    pub(crate) fn is_back(&self, killed: &Killed) -> bool {
        self.status(&killed.replica).is_ok_and(|status| status.ready && status.pid.is_some_and(|pid| pid != killed.pid))
    }

    fn status(&self, replica: &str) -> Result<PodStatus, Failure> {
        let state = StateDir::existing(&self.state).map_err(|error| Failure(error.to_string()))?;
        let running = read_running(&state).map_err(|error| Failure(error.to_string()))?;
        running
            .deployments
            .into_values()
            .find_map(|deployment| deployment.pods.get(replica).cloned())
            .ok_or_else(|| Failure(format!("there is no replica {replica}")))
    }
}
