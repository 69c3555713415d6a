//! `acb dev`: all of ACB on this machine, from a folder of YAML.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use acb_crds::{names::objects, schema::Kind};
use acb_operator::{
    effect::kafka_access::KafkaOptions,
    runtime::standalone::{
        access::{self, Access},
        deployments::{DeploymentStatus, Running},
        objects::ObjectStore,
        process::Programs,
        run::{Standalone, StandaloneError, StandaloneOptions},
        state::{self, StateDir, StateError},
    },
};
use clap::{
    Args,
    builder::{PathBufValueParser, TypedValueParser},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::{
    output::{self, Exit, Failure, Output},
    standalone::{State, ready_condition, text},
    stop::Stop,
};

/// After a file could not be written.
const AGAIN: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    /// Folder of YAML files (Tenants, Agents, Quotas), or one file. Watched: what you save is applied.
    /// What is gone from it for a few seconds is taken down, and its data with it where its deletion policy says so.
    #[arg(short, long, value_name = "DIR")]
    file: PathBuf,
    #[command(flatten)]
    state: State,
    /// Go on with another folder of YAML than the state is from: what is not in it is taken down.
    #[arg(long)]
    replace: bool,
    /// The hub's program [default: acb-hub beside acb].
    #[arg(long, value_name = "FILE", env = "ACB_HUB_BIN", value_parser = absolute())]
    hub: Option<PathBuf>,
    /// Folder with initdb and postgres, 15 or later [default: the newest that is installed].
    #[arg(long, value_name = "DIR", env = "ACB_POSTGRES_BIN", value_parser = absolute())]
    postgres_bin: Option<PathBuf>,
    /// Keep the log on this Kafka, HOST:PORT with commas [default: the log is in PostgreSQL].
    #[arg(long, value_name = "SERVERS", env = "ACB_KAFKA_BOOTSTRAP_SERVERS", requires_all = ["kafka_username", "kafka_password_file"])]
    kafka_bootstrap_servers: Option<String>,
    /// Kafka user (SCRAM-SHA-512) that may make topics, users and ACLs.
    #[arg(long, value_name = "NAME", requires = "kafka_bootstrap_servers")]
    kafka_username: Option<String>,
    /// File with that user's password. Read again whenever it is needed.
    #[arg(long, value_name = "FILE", requires = "kafka_bootstrap_servers", value_parser = absolute())]
    kafka_password_file: Option<PathBuf>,
    /// PEM file with the authorities of the brokers' certificates [default: no TLS].
    #[arg(long, value_name = "FILE", requires = "kafka_bootstrap_servers", value_parser = absolute())]
    kafka_ca_file: Option<PathBuf>,
    /// Replication factor of topics; -1: the cluster's default.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    kafka_replication_factor: i16,
    /// Written once every tenant of the folder is ready: JSON, how each is reached; removed at the end [default: none].
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// A path that also holds elsewhere: programs start in folders of their own, and `acb plan` finds Kafka's files by what is kept.
fn absolute() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

impl DevArgs {
    fn kafka(&self) -> Option<KafkaOptions> {
        Some(KafkaOptions {
            bootstrap_servers: self.kafka_bootstrap_servers.clone()?,
            username: self.kafka_username.clone()?,
            password_file: self.kafka_password_file.clone()?,
            ca_file: self.kafka_ca_file.clone(),
            replication_factor: self.kafka_replication_factor,
        })
    }
}

/// Runs until Ctrl-C or SIGTERM; a second one ends hubs at once.
pub(crate) async fn run(args: DevArgs, output: Output) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut programs =
        Programs { beside: std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from)), ..Programs::default() };
    programs.named.extend(args.hub.clone().map(|hub| ("acb-hub".to_owned(), hub)));
    let options = StandaloneOptions {
        resources: args.file.clone(),
        replace: args.replace,
        state: args.state.path(),
        programs,
        postgres_bin: args.postgres_bin.clone(),
        kafka: args.kafka(),
    };
    let walls = if options.kafka.is_some() { "Kafka's, PostgreSQL's and the hub's" } else { "PostgreSQL's and the hub's" };
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(signals(Stop::listen()?, stop.clone(), kill.clone()));
    // One that a killed run left tells of what is no more. That of a run that holds the state is not touched: this one won't start.
    if let (Some(file), None) = (&args.ready_file, StateDir::existing(&options.state).ok().and_then(|state| state.holder())) {
        state::remove(file).map_err(Failure::failed)?;
    }
    say(output, &format!("Starting: resources from {}, state in {}", args.file.display(), args.state.path().display()))?;
    let standalone = tokio::select! {
        started = Standalone::start(options) => started.map_err(|error| match error {
            StandaloneError::State(StateError::Held { .. }) => Failure::new(Exit::Unavailable, error),
            error => Failure::failed(error),
        })?,
        // Dropping what was begun ends it.
        () = stop.cancelled() => return Ok(()),
    };
    say(output, &format!("PostgreSQL is up, its schema current ({:.1} s)", begun.elapsed().as_secs_f64()))?;
    say(output, &format!("Walls here: {walls}. Kubernetes' (namespaces, network policies, pod security) are absent."))?;
    let view = View {
        store: standalone.store(),
        state: standalone.state().clone(),
        running: standalone.running(),
        output,
        begun,
        ready_file: args.ready_file.clone(),
        told: BTreeMap::new(),
        access: BTreeMap::new(),
        all_ready: false,
        unwritten: false,
    };
    let viewer = tokio::spawn(view.follow(stop.clone()));
    let stopped = stop.clone();
    tokio::spawn(async move {
        stopped.cancelled().await;
        let _ = say(output, "Ending: hubs drain, then PostgreSQL stops (Ctrl-C again: at once)");
    });
    let served = standalone.run(stop, kill).await.map_err(|error| Failure::new(Exit::Unavailable, error));
    let viewed = viewer.await.map_err(Failure::failed);
    if let Some(file) = &args.ready_file {
        state::remove(file).map_err(Failure::failed)?;
    }
    viewed??;
    served?;
    say(output, "Ended; nothing is left running.")
}

async fn signals(mut asked: Stop, stop: CancellationToken, kill: CancellationToken) {
    for token in [stop, kill] {
        asked.asked().await;
        token.cancel();
    }
}

/// A line of the log of events: text, or a JSON object.
fn say(output: Output, message: &str) -> Result<(), Failure> {
    match output {
        Output::Table => output::line(message),
        Output::Json => output::line(json!({"event": "message", "message": message})),
    }
}

/// Why a look was not finished.
enum Trouble {
    /// Nobody reads any more.
    Stdout(Failure),
    /// A full disk, say: it may go better the next time.
    Files(StateError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Stdout(failure)
    }
}

impl From<StateError> for Trouble {
    fn from(error: StateError) -> Self {
        Self::Files(error)
    }
}

/// Tells people what changes, and writes down how tenants are reached.
struct View {
    store: Arc<ObjectStore>,
    state: StateDir,
    running: watch::Receiver<Running>,
    output: Output,
    begun: Instant,
    ready_file: Option<PathBuf>,
    /// What was last said of each object.
    told: BTreeMap<String, String>,
    access: BTreeMap<String, Access>,
    all_ready: bool,
    /// All are ready, and the file that says so is not written yet.
    unwritten: bool,
}

impl View {
    async fn follow(mut self, stop: CancellationToken) -> Result<(), Failure> {
        let mut changes = self.store.changes();
        loop {
            let troubled = match self.look() {
                Ok(()) => false,
                Err(Trouble::Files(error)) => {
                    error!(%error, "how tenants are reached is not written down; trying again");
                    true
                }
                Err(Trouble::Stdout(failure)) => {
                    stop.cancel();
                    return Err(failure);
                }
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(AGAIN), if troubled => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                changed = self.running.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
            // Changes come in groups.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn look(&mut self) -> Result<(), Trouble> {
        let mut seen = BTreeMap::new();
        let mut tenants = Vec::new();
        for kind in Kind::ALL {
            for object in self.store.of_kind(kind.as_str())? {
                let name = qualified(kind, &object);
                let condition = ready_condition(&object).cloned().unwrap_or_default();
                if kind == Kind::Tenant {
                    let provisioned = text(&condition, "/status") == "True";
                    tenants.push(provisioned && self.hub_runs(&object));
                }
                seen.insert(name, condition);
            }
        }
        for (name, condition) in &seen {
            self.tell(name, condition)?;
        }
        let gone: Vec<String> = self.told.keys().filter(|name| !seen.contains_key(*name)).cloned().collect();
        for name in gone {
            self.told.remove(&name);
            say(self.output, &format!("{:>7.1}s  {name:<32} removed", self.begun.elapsed().as_secs_f64()))?;
        }
        let access = access::export(&self.state, &self.store)?;
        let ready = !tenants.is_empty() && tenants.iter().all(|ready| *ready);
        let becomes_ready = ready && !self.all_ready;
        let reachable = access != self.access && access.values().all(|access| !access.server.is_empty());
        (self.access, self.all_ready) = (access, ready);
        self.unwritten = ready && (self.unwritten || becomes_ready);
        if ready && (reachable || becomes_ready) {
            self.explain(&self.access)?;
        }
        if let (Some(file), true) = (&self.ready_file, self.unwritten) {
            state::write_json(file, &self.access)?;
            self.unwritten = false;
        }
        Ok(())
    }

    /// The status may be of an earlier run, whose hubs are gone.
    fn hub_runs(&self, tenant: &Value) -> bool {
        let hub = format!("{}/{}", text(tenant, "/status/hubNamespace"), objects::HUB);
        self.running.borrow().deployments.get(&hub).is_some_and(DeploymentStatus::is_ready)
    }

    fn tell(&mut self, name: &str, condition: &Value) -> Result<(), Failure> {
        let (reason, message) = (text(condition, "/reason"), text(condition, "/message"));
        if reason.is_empty() {
            return Ok(());
        }
        let line =
            if message.is_empty() || message == "provisioned" { reason.to_owned() } else { format!("{reason}: {message}") };
        if self.told.get(name) != Some(&line) {
            let seconds = self.begun.elapsed().as_secs_f64();
            match self.output {
                Output::Table => output::line(format!("{seconds:>7.1}s  {name:<32} {line}"))?,
                Output::Json => output::line(json!({"event": "status", "seconds": seconds, "object": name, "ready": condition}))?,
            }
            self.told.insert(name.to_owned(), line);
        }
        Ok(())
    }

    /// How each tenant is reached, in the words of the next command.
    fn explain(&self, access: &BTreeMap<String, Access>) -> Result<(), Failure> {
        if self.output == Output::Json {
            return output::line(json!({"event": "ready", "seconds": self.begun.elapsed().as_secs_f64(), "tenants": access}));
        }
        output::line(format!("\nAll tenants are ready after {:.1} s. Log in as an agent:", self.begun.elapsed().as_secs_f64()))?;
        for (tenant, access) in access {
            let ca = access.ca_file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
            for (agent, key) in &access.api_key_files {
                let server = &access.server;
                output::line(format!(
                    "  acb login --context {tenant}/{agent} --server {server} --ca {ca} --api-key-file {}",
                    key.display()
                ))?;
            }
        }
        if std::io::stdout().is_terminal() {
            output::line("Ctrl-C ends it. `acb get tenants` in another terminal shows the same.\n")?;
        }
        Ok(())
    }
}

fn qualified(kind: Kind, object: &Value) -> String {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches as _;

    use super::*;

    #[test]
    fn what_is_named_from_here_is_found_from_elsewhere() {
        let given = "dev -f yaml --hub target/acb-hub --postgres-bin bin --kafka-bootstrap-servers a:1 --kafka-username u \
                     --kafka-password-file password --kafka-ca-file ../ca.crt";
        let command = DevArgs::augment_args(clap::Command::new("dev"));
        let args = DevArgs::from_arg_matches(&command.get_matches_from(given.split_whitespace())).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!((args.hub.clone(), args.postgres_bin.clone()), (Some(here.join("target/acb-hub")), Some(here.join("bin"))));
        let kafka = args.kafka().unwrap();
        assert_eq!((kafka.password_file, kafka.ca_file), (here.join("password"), Some(here.join("../ca.crt"))));
    }
}
