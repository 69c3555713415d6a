//! `acb dev`: all of ACB on this machine, from a folder of YAML.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use acb_crds::{names::objects, schema::Kind};
use acb_operator::{
    effect::kafka_access::KafkaOptions,
    platform::AllowedIssuer,
    runtime::standalone::{
        access::{self, Access},
        deployments::{DeploymentStatus, Running},
        objects::ObjectStore,
        process::Programs,
        resources::{self, Resources},
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
    client::login::{self, AgentOf},
    output::{self, Exit, Failure, Output},
    standalone::{State, ready_condition, text},
    stop::Stop,
};

/// After a file could not be written.
const AGAIN: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    /// Folder of YAML or JSON files (Tenants, Agents, Quotas) with its subfolders, or one file. Watched: what you save is applied.
    /// What is gone from it for a few seconds is taken down, and its data with it where its deletion policy says so.
    #[arg(short, long, value_name = "DIR", required_unless_present = "env")]
    file: Option<PathBuf>,
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
    /// An OpenID Connect issuer that Tenants may name: its URL, and behind `=` the networks in which it may be, with commas, where it is at no public address:
    /// `https://localhost:8444=127.0.0.0/8,::1/128`. May be given several times.
    #[arg(long = "oidc-issuer", value_name = "URL[=CIDR,…]", env = "ACB_OIDC_ISSUER", value_parser = allowed_issuer)]
    oidc_issuers: Vec<AllowedIssuer>,
    /// Runs nothing: prints how a program speaks as this agent of the `acb dev` that runs, as lines for a shell.
    #[arg(long, value_name = "TENANT/AGENT", value_parser = login::agent, conflicts_with_all = ["file", "replace", "login", "ready_file"])]
    env: Option<AgentOf>,
    /// Keeps a profile for every agent, so that `acb send -p TENANT/AGENT …` works at once; see `acb profile list`.
    #[arg(long)]
    login: bool,
    /// Written once every tenant of the folder is ready, or can't be as it is written: JSON, how each that is ready is reached; removed
    /// at the end [default: none].
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// A path that also holds elsewhere: programs start in folders of their own, and `acb plan` finds Kafka's files by what is kept.
fn absolute() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

fn allowed_issuer(text: &str) -> Result<AllowedIssuer, String> {
    let (url, cidrs) = text.split_once('=').unwrap_or((text, ""));
    let cidrs = cidrs.split(',').filter(|cidr| !cidr.is_empty()).map(str::to_owned).collect();
    let issuer = AllowedIssuer { url: url.to_owned(), cidrs };
    issuer.check().map(|()| issuer)
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
    if let Some(who) = &args.env {
        return print_environment(&login::environment(&args.state, who)?, output);
    }
    let begun = Instant::now();
    let folder = args.file.clone().unwrap_or_default();
    let mut programs =
        Programs { beside: std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from)), ..Programs::default() };
    programs.named.extend(args.hub.clone().map(|hub| ("acb-hub".to_owned(), hub)));
    let options = StandaloneOptions {
        resources: folder.clone(),
        replace: args.replace,
        state: args.state.path(),
        programs,
        postgres_bin: args.postgres_bin.clone(),
        kafka: args.kafka(),
        allowed_issuers: args.oidc_issuers.clone(),
    };
    let walls = if options.kafka.is_some() { "Kafka's, PostgreSQL's and the hub's" } else { "PostgreSQL's and the hub's" };
    let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(signals(Stop::listen()?, stop.clone(), kill.clone()));
    // One that a killed run left tells of what is no more. That of a run that holds the state is not touched: this one won't start.
    if let (Some(file), None) = (&args.ready_file, StateDir::existing(&options.state).ok().and_then(|state| state.holder())) {
        state::remove(file).map_err(Failure::failed)?;
    }
    let loaded = Resources::load(&folder).map_err(Failure::failed)?;
    loaded.notes().iter().try_for_each(|note| say(output, &output::printable(note)))?;
    if let Some(file) = args.ready_file.as_ref().filter(|file| is_read_as_resources(file, &folder)) {
        let message = format!("--ready-file {}: it would be read as a resource there; give it another place", file.display());
        return Err(Failure::new(Exit::Usage, message));
    }
    let known = StateDir::existing(&options.state).ok().and_then(|state| ObjectStore::open(&state).ok());
    if loaded.is_empty() && known.and_then(|store| resources::stored(&store).ok()).is_none_or(|stored| stored.is_empty()) {
        let message = format!("{}: no Tenant, Agent or Quota of {} is in it", folder.display(), acb_crds::API_VERSION);
        return Err(Failure::new(Exit::NotFound, message));
    }
    say(output, &format!("Starting: resources from {}, state in {}", folder.display(), args.state.path().display()))?;
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
        login: args.login,
        told: BTreeMap::new(),
        reached: BTreeMap::new(),
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

/// Variables as a shell takes them: `eval "$(acb dev --env acme/supervisor)"`.
fn print_environment(variables: &[(&str, String)], output: Output) -> Result<(), Failure> {
    if let Output::Document(syntax) = output {
        let variables: BTreeMap<&str, &str> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        return syntax.document(&variables);
    }
    variables.iter().try_for_each(|(name, value)| output::line(format!("export {name}={}", shell_quoted(value))))
}

/// A line of the log of events: text, or a JSON object.
fn say(output: Output, message: &str) -> Result<(), Failure> {
    match output {
        Output::Table { .. } => output::line(message),
        Output::Document(syntax) => syntax.record(&json!({"event": "message", "message": message})),
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
    /// How each tenant that is ready is reached, as people know it.
    reached: BTreeMap<String, Access>,
    /// Keeps profiles.
    login: bool,
    /// None is on its way any more, and one is ready.
    all_ready: bool,
    /// That is so, and the file that says it is not written yet.
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
        let mut tenants = BTreeMap::new();
        let mut refused_agents = BTreeSet::new();
        for kind in Kind::ALL {
            for object in self.store.of_kind(kind.as_str())? {
                let condition = ready_condition(&object).cloned().unwrap_or_default();
                let is_ready = text(&condition, "/status") == "True";
                let is_suspended = text(&condition, "/reason") == "Suspended";
                match kind {
                    Kind::Tenant => {
                        let progress = match is_ready && self.hub_runs(&object) {
                            true => Progress::Ready,
                            false if is_stalled(&object) => Progress::Stalled,
                            false => Progress::Underway,
                        };
                        tenants.insert(text(&object, "/metadata/name").to_owned(), progress);
                    }
                    Kind::Agent if !is_ready || is_suspended => {
                        refused_agents
                            .insert((text(&object, "/status/tenant").to_owned(), text(&object, "/metadata/name").to_owned()));
                    }
                    Kind::Agent | Kind::Quota => {}
                }
                seen.insert(qualified(kind, &object), condition);
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
        let mut reached = access::export(&self.state, &self.store)?;
        reached.retain(|tenant, access| tenants.get(tenant) == Some(&Progress::Ready) && !access.server.is_empty());
        for (tenant, access) in &mut reached {
            // The key of one that is refused opens nothing.
            access.api_key_files.retain(|agent, _| !refused_agents.contains(&(tenant.clone(), agent.clone())));
        }
        let news: Vec<&String> = reached
            .iter()
            .filter(|(tenant, access)| self.reached.get(*tenant) != Some(access))
            .map(|(tenant, _)| tenant)
            .collect();
        let settled = tenants.values().all(|progress| *progress != Progress::Underway);
        let ready = settled && tenants.values().any(|progress| *progress == Progress::Ready);
        let becomes_ready = ready && !self.all_ready;
        if !news.is_empty() {
            self.explain(&reached, &news)?;
        }
        if becomes_ready {
            self.conclude(&reached, &tenants)?;
        }
        (self.reached, self.all_ready) = (reached, ready);
        self.unwritten = ready && (self.unwritten || becomes_ready);
        if let (Some(file), true) = (&self.ready_file, self.unwritten) {
            state::write_json(file, &self.reached)?;
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
                Output::Table { .. } => output::line(format!("{seconds:>7.1}s  {name:<32} {line}"))?,
                Output::Document(syntax) => {
                    syntax.record(&json!({"event": "status", "seconds": seconds, "object": name, "ready": condition}))?
                }
            }
            self.told.insert(name.to_owned(), line);
        }
        Ok(())
    }

    /// How tenants are reached that just became ready, or are reached in another way now: in the words of the next command.
    fn explain(&self, reached: &BTreeMap<String, Access>, news: &[&String]) -> Result<(), Failure> {
        if self.login {
            let of: BTreeMap<String, Access> = reached
                .iter()
                .filter(|(tenant, _)| news.contains(tenant))
                .map(|(name, access)| (name.clone(), access.clone()))
                .collect();
            match login::keep_all(&of) {
                Ok(kept) => {
                    say(self.output, &format!("Logged in: {}", kept.names.join(", ")))?;
                    if !kept.elsewhere.is_empty() {
                        let names = kept.elsewhere.join(", ");
                        say(self.output, &format!("Not logged in, since profiles of these names are of another place: {names}"))?;
                    }
                }
                // What runs goes on to run without.
                Err(failure) => say(self.output, &format!("No profiles were kept: {failure}"))?,
            }
        } else if self.output.is_document() {
            return Ok(());
        }
        let state = match self.state.root() == StateDir::default_path() {
            true => String::new(),
            false => format!(" --state {}", shell_quoted(&self.state.root().display().to_string())),
        };
        for tenant in news {
            let Some(access) = reached.get(*tenant).filter(|_| !self.login) else { continue };
            output::line(format!("\nTenant {tenant} is ready. Log in as one of its agents:"))?;
            for agent in access.api_key_files.keys() {
                output::line(format!("  acb login {tenant}/{agent}{state}"))?;
            }
        }
        Ok(())
    }

    /// None is on its way any more.
    fn conclude(&self, reached: &BTreeMap<String, Access>, tenants: &BTreeMap<String, Progress>) -> Result<(), Failure> {
        let seconds = self.begun.elapsed().as_secs_f64();
        let stalled: Vec<&str> =
            tenants.iter().filter(|(_, progress)| **progress == Progress::Stalled).map(|(name, _)| name.as_str()).collect();
        match self.output {
            Output::Document(syntax) => {
                syntax.record(&json!({"event": "ready", "seconds": seconds, "tenants": reached, "stalled": stalled}))
            }
            Output::Table { .. } if stalled.is_empty() => {
                output::line(format!("\nAll tenants are ready after {seconds:.1} s."))?;
                self.farewell()
            }
            Output::Table { .. } => {
                let names = stalled.join(", ");
                output::line(format!("\nReady after {seconds:.1} s, but for {names}: `acb get tenants` says why."))?;
                self.farewell()
            }
        }
    }

    fn farewell(&self) -> Result<(), Failure> {
        if std::io::stdout().is_terminal() {
            output::line("Ctrl-C ends it. `acb get tenants` in another terminal shows the same.\n")?;
        }
        Ok(())
    }
}

/// How far a tenant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Its hub runs.
    Ready,
    /// As it is written it can't be.
    Stalled,
    /// It may come to be.
    Underway,
}

fn is_stalled(object: &Value) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Stalled" && condition["status"] == "True")
}

/// Whether a file that is written would be found in the folder of resources.
fn is_read_as_resources(file: &Path, resources: &Path) -> bool {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), resources.canonicalize()) {
        (Ok(folder), Ok(resources)) => resources.is_dir() && folder.starts_with(resources),
        _ => false,
    }
}

/// As a shell takes it for one word, whatever is in it.
fn shell_quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
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
    fn a_folder_of_any_name_is_one_word_for_a_shell() {
        assert_eq!(shell_quoted("/var/lib/acb-1/dev"), "/var/lib/acb-1/dev");
        for name in ["a b", "$(id)", "it's", "", "a;b", "*"] {
            let line = format!("printf %s {}", shell_quoted(name));
            let printed = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&printed.stdout), name);
        }
    }

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
