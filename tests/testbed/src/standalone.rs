//! `acb dev`, as a user would start it: from the `acb` beside this program, over a folder of resources, with state of its own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use acb_operator::{
    bootstrap,
    runtime::standalone::{access::Access, deployments::read_running, process::PodStatus, state::StateDir},
};
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tempfile::TempDir;
use tokio::{
    sync::OnceCell,
    time::{Instant, sleep},
};

use crate::kafka::Kafka;

/// A cold start on a busy machine, also of a tenant with a thousand agents.
const READY: Duration = Duration::from_secs(300);
const STOP: Duration = Duration::from_secs(60);
/// Between two looks at the ready file. Below what any figure of a start is given in.
const LOOK: Duration = Duration::from_millis(20);

/// Ends `acb dev` in order once its standard input closes, as it does when the process that holds the other end ends, however that is.
/// Then removes the folder that its first argument names, where it names one.
const KEEPER: &str = r#"folder=$1; shift
exec 3<&0
"$@" 3<&- </dev/null &
dev=$!
{ cat >/dev/null; kill -TERM "$dev"; } <&3 3<&- &
reader=$!
wait "$dev"; status=$?
kill "$reader" 2>/dev/null
[ -z "$folder" ] || rm -rf "$folder"
exit "$status"
"#;

/// What did not work, of which part.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StandaloneError(String);

impl StandaloneError {
    fn of(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// A folder for the state of `acb dev`, removed with this value. It outlives a start, so that the next one is warm.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    /// An empty one.
    pub fn new() -> Result<Self, StandaloneError> {
        let failed = |error| StandaloneError::of("a temporary folder", error);
        let folder = tempfile::Builder::new().prefix("acb-dev-").tempdir().map_err(failed)?;
        // PostgreSQL runs as a user of its own where this runs as root, and must get in.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).map_err(failed)?;
        Ok(Self(folder))
    }

    /// For what else a start needs.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What `--state` says.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// What a replica of a tenant's hub is doing.
    pub fn pod(&self, tenant: &str, replica: &str) -> Result<PodStatus, StandaloneError> {
        self.pods(tenant)?.remove(replica).ok_or_else(|| StandaloneError(format!("tenant {tenant} has no replica {replica}")))
    }

    /// All replicas of a tenant's hub, by name.
    pub fn pods(&self, tenant: &str) -> Result<BTreeMap<String, PodStatus>, StandaloneError> {
        pods(&self.state(), tenant)
    }
}

fn pods(state: &Path, tenant: &str) -> Result<BTreeMap<String, PodStatus>, StandaloneError> {
    let state = StateDir::existing(state).map_err(|error| StandaloneError::of("the state", error))?;
    let mut running = read_running(&state).map_err(|error| StandaloneError::of("the state", error))?;
    let deployment = running.deployments.remove(&format!("acbhub-{tenant}/hub"));
    Ok(deployment.map(|deployment| deployment.pods).unwrap_or_default())
}

/// A running `acb dev`. Ends in order with this value, or with the process; [`stop`](Self::stop) says how it ended.
#[derive(Debug)]
pub struct Standalone {
    keeper: Child,
    acb: PathBuf,
    resources: PathBuf,
    state: PathBuf,
    log: PathBuf,
    tenants: BTreeMap<String, TenantAccess>,
}

/// How a tenant's hub is reached.
#[derive(Clone, Debug)]
pub struct TenantAccess {
    /// `https://127.0.0.1:PORT` of every replica, in the order of their names.
    pub endpoints: Vec<String>,
    /// The certificate of the tenant's authority.
    pub ca_pem: Vec<u8>,
    /// The file that it is in.
    pub ca_file: PathBuf,
    keys: BTreeMap<String, PathBuf>,
}

impl TenantAccess {
    /// The file of an agent's API key.
    pub fn api_key_file(&self, agent: &str) -> Result<&Path, StandaloneError> {
        let key = self.keys.get(agent).ok_or_else(|| StandaloneError(format!("there is no key of agent {agent}")))?;
        Ok(key)
    }

    /// An agent's API key.
    pub fn api_key(&self, agent: &str) -> Result<String, StandaloneError> {
        let key = self.api_key_file(agent)?;
        let text = fs::read_to_string(key).map_err(|error| StandaloneError::of(key.display(), error))?;
        Ok(text.trim().to_owned())
    }

    fn of(access: &Access) -> Result<Self, StandaloneError> {
        let ca = access.ca_file.as_ref().ok_or_else(|| StandaloneError("a tenant has no CA".to_owned()))?;
        Ok(Self {
            endpoints: access.server.split(',').map(str::to_owned).collect(),
            ca_pem: fs::read(ca).map_err(|error| StandaloneError::of(ca.display(), error))?,
            ca_file: ca.clone(),
            keys: access.api_key_files.clone(),
        })
    }
}

static SHARED: OnceCell<Standalone> = OnceCell::const_new();

impl Standalone {
    /// The one `acb dev` of this test process, over these files of resources (name and YAML), on a state that goes with it.
    ///
    /// # Panics
    /// Where it does not start: in a test that is the useful answer.
    pub async fn shared(resources: &[(&str, String)]) -> &'static Self {
        let start = || async {
            let home = Home::new()?;
            let folder = home.path().join("resources");
            let failed = |error| StandaloneError::of(folder.display(), error);
            fs::create_dir(&folder).map_err(failed)?;
            for (name, yaml) in resources {
                fs::write(folder.join(name), yaml).map_err(failed)?;
            }
            let log = home.path().join("dev.log");
            let standalone = Self::start_kept(&home, &folder, None, &log, Some(home.path()), &[]).await?;
            // The keeper removes it.
            let _folder = home.0.keep();
            Ok::<_, StandaloneError>(standalone)
        };
        SHARED.get_or_init(|| async { start().await.unwrap_or_else(|error| panic!("{error}")) }).await
    }

    /// Starts it, and waits until every tenant is ready. What it says goes to `log`.
    pub async fn start(home: &Home, resources: &Path, kafka: Option<&Kafka>, log: &Path) -> Result<Self, StandaloneError> {
        Self::start_kept(home, resources, kafka, log, None, &[]).await
    }

    /// The same, with its log in PostgreSQL, and these variables in its environment.
    pub async fn start_with(
        home: &Home,
        resources: &Path,
        log: &Path,
        variables: &[(&str, String)],
    ) -> Result<Self, StandaloneError> {
        Self::start_kept(home, resources, None, log, None, variables).await
    }

    async fn start_kept(
        home: &Home,
        resources: &Path,
        kafka: Option<&Kafka>,
        log: &Path,
        remove: Option<&Path>,
        variables: &[(&str, String)],
    ) -> Result<Self, StandaloneError> {
        let acb = program()?;
        let ready = home.path().join("ready.json");
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper"]).arg(remove.unwrap_or(Path::new(""))).arg(&acb);
        command.arg("dev").arg("--file").arg(resources).arg("--state").arg(home.state()).arg("--ready-file").arg(&ready);
        if let Some(kafka) = kafka {
            with_kafka(&mut command, home, kafka)?;
        }
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let shown = log.display();
        let output = File::create(log).map_err(|error| StandaloneError::of(&shown, error))?;
        let errors = output.try_clone().map_err(|error| StandaloneError::of(&shown, error))?;
        // Ctrl-C is for the process that started it: that one's end is this one's.
        command.stdin(Stdio::piped()).stdout(output).stderr(errors).process_group(0);
        let keeper = command.spawn().map_err(|error| StandaloneError::of(acb.display(), error))?;
        let (resources, state) = (resources.to_owned(), home.state());
        let mut standalone = Self { keeper, acb, resources, state, log: log.to_owned(), tenants: BTreeMap::new() };
        for (tenant, access) in standalone.wait_ready(&ready).await? {
            standalone.tenants.insert(tenant, TenantAccess::of(&access)?);
        }
        Ok(standalone)
    }

    /// The ready file comes once every tenant is ready.
    async fn wait_ready(&mut self, path: &Path) -> Result<BTreeMap<String, Access>, StandaloneError> {
        let deadline = Instant::now() + READY;
        loop {
            if let Ok(text) = fs::read_to_string(path)
                && let Ok(tenants) = serde_json::from_str(&text)
            {
                return Ok(tenants);
            }
            let ended = self.keeper.try_wait().map_err(|error| StandaloneError::of("acb dev", error))?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(20).collect();
                let end: Vec<&str> = end.into_iter().rev().collect();
                let log = self.log.display();
                return Err(StandaloneError(format!("acb dev did not get ready. The end of {log}:\n{}", end.join("\n"))));
            }
            sleep(LOOK).await;
        }
    }

    /// The folder that it watches.
    #[must_use]
    pub fn resources(&self) -> &Path {
        &self.resources
    }

    /// What `--state` says.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// All replicas of a tenant's hub, by name.
    pub fn pods(&self, tenant: &str) -> Result<BTreeMap<String, PodStatus>, StandaloneError> {
        pods(&self.state, tenant)
    }

    /// How the superuser of its PostgreSQL connects to the database `acb`, for looking behind the walls.
    pub fn superuser(&self) -> Result<PgConnectOptions, StandaloneError> {
        let folder = self.state.join("postgres");
        let read = |name: &str| {
            let path = folder.join(name);
            let text = fs::read_to_string(&path).map_err(|error| StandaloneError::of(path.display(), error))?;
            Ok::<_, StandaloneError>(text.trim().to_owned())
        };
        let port = read("port")?.parse().map_err(|error| StandaloneError::of("PostgreSQL's port", error))?;
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(port).ssl_mode(PgSslMode::Disable);
        Ok(options.username("postgres").password(&read("superuser-password")?).database(bootstrap::DATABASE))
    }

    /// Every tenant that was ready at the start, by name.
    #[must_use]
    pub fn tenants(&self) -> &BTreeMap<String, TenantAccess> {
        &self.tenants
    }

    /// One of them.
    pub fn tenant(&self, name: &str) -> Result<&TenantAccess, StandaloneError> {
        self.tenants.get(name).ok_or_else(|| StandaloneError(format!("there is no tenant {name}")))
    }

    /// Runs `acb` on this state, and reads the JSON that it prints.
    pub async fn acb_json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T, StandaloneError> {
        let shown = format!("acb {}", arguments.join(" "));
        let mut command = tokio::process::Command::new(&self.acb);
        command.args(arguments).arg("--state").arg(&self.state).stdin(Stdio::null());
        let output = command.output().await.map_err(|error| StandaloneError::of(&shown, error))?;
        serde_json::from_slice(&output.stdout).map_err(|error| {
            StandaloneError(format!("{shown}: {error}; it said: {}", String::from_utf8_lossy(&output.stderr).trim()))
        })
    }

    /// As Ctrl-C would.
    pub async fn stop(mut self) -> Result<(), StandaloneError> {
        drop(self.keeper.stdin.take());
        let (deadline, log) = (Instant::now() + STOP, self.log.display());
        loop {
            match self.keeper.try_wait().map_err(|error| StandaloneError::of("acb dev", error))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(StandaloneError(format!("acb dev ended with {status}: see {log}"))),
                None if Instant::now() > deadline => {
                    return Err(StandaloneError(format!("acb dev did not end within {} s: see {log}", STOP.as_secs())));
                }
                None => sleep(LOOK).await,
            }
        }
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Its folder goes next: it must not write there any more. It ends within its own bounds.
        let deadline = std::time::Instant::now() + STOP;
        while matches!(self.keeper.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(LOOK);
        }
    }
}

/// `acb`, beside this program; that of a test is one folder further down.
fn program() -> Result<PathBuf, StandaloneError> {
    let this = std::env::current_exe().map_err(|error| StandaloneError::of("this program", error))?;
    let folder = this.parent().unwrap_or(Path::new("."));
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    for name in ["acb", "acb-hub"] {
        if !folder.join(name).is_file() {
            return Err(StandaloneError(format!("{} is missing: cargo build -p {name}", folder.join(name).display())));
        }
    }
    Ok(folder.join("acb"))
}

fn with_kafka(command: &mut Command, home: &Home, kafka: &Kafka) -> Result<(), StandaloneError> {
    let password = home.path().join("kafka-admin-password");
    fs::write(&password, kafka.admin_password()).map_err(|error| StandaloneError::of("the broker's password", error))?;
    command.args(["--kafka-bootstrap-servers", &kafka.bootstrap_servers()]);
    command.args(["--kafka-username", Kafka::ADMIN, "--kafka-password-file"]).arg(&password);
    if let Some(pem) = kafka.ca_pem() {
        let ca = home.path().join("kafka-ca.crt");
        fs::write(&ca, pem).map_err(|error| StandaloneError::of("the broker's CA", error))?;
        command.arg("--kafka-ca-file").arg(&ca);
    }
    Ok(())
}
