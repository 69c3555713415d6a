//! Starts what a machine of one's own needs (PostgreSQL, the schema), then watches the folder and keeps everything reconciled until
//! it is told to end.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use notify::Watcher;
use sqlx::postgres::PgConnectOptions;
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use acb_crds::schema::{Kind, ObjectRef, Violation};
use acb_hub_pool::{Limits, Pool};

use super::{
    connections,
    deployments::{Deployments, Running},
    everything::Everything,
    objects::ObjectStore,
    process::Programs,
    reconcile::Machine,
    resources::Resources,
    state::{self, StateDir, StateError, StateLock},
};
use crate::{
    bootstrap::{self, BootstrapError, MigrateError, Server},
    effect::{
        kafka_access::{Announcer, KafkaAccess, KafkaFileError, KafkaOptions},
        postgres::PostgresEffect,
    },
    local_postgres::{LocalPostgres, LocalPostgresError, LocalPostgresOptions},
    platform::{AllowedIssuer, Platform, PlatformBus, PlatformPostgres},
    reconcile::{
        jitter,
        jobs::Jobs,
        schedule::{Schedule, Waits},
        tenancies::Tenancies,
    },
    tenant::fetch::PostgresReader,
};

/// So many tenancies are reconciled at a time; each has one connection.
const AT_A_TIME: usize = 4;
/// An editor writes more than once.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// What hubs are told of the platform; `acb plan` reads it, too.
pub(super) const PLATFORM: &str = "platform.json";
/// Which folder the state is from.
const RESOURCES: &str = "resources.json";
/// How Kafka is reached, without a password; `acb plan` reads it, too.
pub(super) const KAFKA: &str = "kafka.json";
/// The OpenID Connect issuers that Tenants may name, for who plans.
pub(super) const OIDC: &str = "oidc.json";
const WAITS: Waits = Waits { resync: Duration::from_secs(60), waiting: Duration::from_millis(500) };
/// Behind the watch, which some file systems don't have.
const LOOK: Duration = Duration::from_secs(5);

/// What to run, and with what.
#[derive(Clone, Debug)]
pub struct StandaloneOptions {
    /// A folder of YAML, or one file.
    pub resources: PathBuf,
    /// Whether they may be other ones than those that the state is from.
    pub replace: bool,
    /// Where everything is kept.
    pub state: PathBuf,
    /// Where `acb-hub` is.
    pub programs: Programs,
    /// Where PostgreSQL's programs are; `None`: the newest that is installed.
    pub postgres_bin: Option<PathBuf>,
    /// Where the log is, if not in PostgreSQL.
    pub kafka: Option<KafkaOptions>,
    /// OpenID Connect issuers that Tenants may name.
    pub allowed_issuers: Vec<AllowedIssuer>,
}

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum StandaloneError {
    /// The state folder, or the folder of resources.
    #[error(transparent)]
    State(#[from] StateError),
    /// The private server.
    #[error(transparent)]
    Postgres(#[from] LocalPostgresError),
    /// Roles and database.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The schema.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The operator's own login.
    #[error("logging in to the private PostgreSQL as {user}: {source}", user = bootstrap::OPERATOR)]
    Login {
        /// What came back.
        source: sqlx::Error,
    },
    /// The state folder is where the resources are.
    #[error("the state in {} is inside of the resources in {}: give another folder with --state", path.display(), resources.display())]
    StateInside {
        /// The state folder.
        path: PathBuf,
        /// The folder of resources.
        resources: PathBuf,
    },
    /// How to log in to Kafka.
    #[error(transparent)]
    Kafka(#[from] KafkaFileError),
    /// The state folder is of another kind.
    #[error("the tenants in {} have their log in PostgreSQL: start without Kafka, or give another folder with --state", path.display())]
    LogInPostgres {
        /// The folder.
        path: PathBuf,
    },
    /// The state folder is of another kind.
    #[error(
        "the tenants in {} have their log on Kafka ({bootstrap_servers}): give --kafka-bootstrap-servers, or another folder with --state",
        path.display()
    )]
    LogOnKafka {
        /// The folder.
        path: PathBuf,
        /// Where their log was last.
        bootstrap_servers: String,
    },
    /// The state folder is from other resources.
    #[error(
        "the tenants in {} are from {known}: with {given} those that are not in it would be taken down; give another folder with \
         --state, or --replace where that is meant",
        path.display()
    )]
    OtherResources {
        /// The folder.
        path: PathBuf,
        /// What was given last.
        known: String,
        /// What was given now.
        given: String,
    },
    /// No random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A machine that is set up. [`run`](Self::run) is what it is for.
#[derive(Debug)]
pub struct Standalone {
    options: StandaloneOptions,
    state: StateDir,
    store: Arc<ObjectStore>,
    deployments: Deployments,
    server: LocalPostgres,
    reader: PostgresReader,
    postgres: PostgresEffect,
    kafka: Option<KafkaAccess>,
    platform: Platform,
    _lock: StateLock,
}

impl Standalone {
    /// Locks the state folder, starts PostgreSQL and brings its schema up to date.
    pub async fn start(options: StandaloneOptions) -> Result<Self, StandaloneError> {
        // What is not there is better said before anything was started.
        let loaded = Resources::load(&options.resources)?;
        let kafka = options.kafka.clone().map(KafkaAccess::new).transpose()?;
        let state = StateDir::open(&options.state)?;
        let lock = state.lock()?;
        check_bus(&state, kafka.is_some())?;
        let resources = check_resources(&state, &options)?;
        let store = Arc::new(ObjectStore::open(&state)?);
        let deployments = Deployments::open(&state, Arc::clone(&store), options.programs.clone()).await?;
        let mut server_options = LocalPostgresOptions::new(state.root().join("postgres"));
        server_options.bin_dir.clone_from(&options.postgres_bin);
        server_options.settings.push(("max_connections".to_owned(), connections::of_folder(&loaded).to_string()));
        let server = LocalPostgres::start(server_options).await?;
        match Self::prepare(&state, &store, &server).await {
            Ok((reader, mut postgres, mut platform)) => {
                if let Some(kafka) = &kafka {
                    (platform.bus, platform.kafka_authorities) = (kafka.bus(), kafka.authorities().map(str::to_owned));
                    postgres = postgres.with_announcer(Arc::new(Announcer::new(kafka.clone())));
                    state::write_json(&state.root().join(KAFKA), kafka.options())?;
                }
                state::write_json(&state.root().join(OIDC), &options.allowed_issuers)?;
                platform.allowed_issuers = Some(options.allowed_issuers.clone());
                state::write_json(&state.root().join(PLATFORM), &(&platform.postgres, &platform.bus))?;
                state::write_json(&state.root().join(RESOURCES), &resources)?;
                Ok(Self { options, state, store, deployments, server, reader, postgres, kafka, platform, _lock: lock })
            }
            Err(error) => {
                server.stop().await;
                Err(error)
            }
        }
    }

    async fn prepare(
        state: &StateDir,
        store: &Arc<ObjectStore>,
        server: &LocalPostgres,
    ) -> Result<(PostgresReader, PostgresEffect, Platform), StandaloneError> {
        let password = operator_password(state)?;
        for warning in bootstrap::bootstrap(server.superuser(), &password, Server::Exclusive).await? {
            warn!(warning);
        }
        let tenants =
            PgConnectOptions::new_without_pgpass().host(server.host()).port(server.port()).database(bootstrap::DATABASE);
        let login = tenants.clone().username(bootstrap::OPERATOR).password(&password);
        let limits = Limits { connections: AT_A_TIME + 2, acquire: Duration::from_secs(10), ..Limits::default() };
        let pool = Pool::new(login, limits);
        let holder = format!("acb dev, process {}", std::process::id());
        let epoch = bootstrap::claim_leadership(&pool, &holder).await.map_err(|source| StandaloneError::Login { source })?;
        bootstrap::migrate(&pool, epoch).await?;
        let platform = Platform::new(PlatformPostgres {
            host: server.host().to_owned(),
            port: server.port(),
            database: bootstrap::DATABASE.to_owned(),
            ssl_mode: "prefer".to_owned(),
        });
        let effect = PostgresEffect::new(pool.clone(), epoch, Arc::clone(store) as _).with_holder(&holder);
        Ok((PostgresReader { pool, tenants }, effect, platform))
    }

    /// The objects, to look at.
    #[must_use]
    pub fn store(&self) -> Arc<ObjectStore> {
        Arc::clone(&self.store)
    }

    /// What runs, as it changes.
    #[must_use]
    pub fn running(&self) -> watch::Receiver<Running> {
        self.deployments.running()
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Runs until `stop`; then ends hubs within their grace period (at once with `kill`) and PostgreSQL after them. Where PostgreSQL
    /// ends by itself, all else does, and that is the error.
    pub async fn run(self, stop: CancellationToken, kill: CancellationToken) -> Result<(), LocalPostgresError> {
        let Self { options, state, store, deployments, mut server, reader, postgres, kafka, platform, _lock: lock } = self;
        let running = deployments.running();
        let hubs = tokio::spawn(deployments.run(stop.clone(), kill));
        let resources = Resources::new(&options.resources, Arc::clone(&store));
        let (refused_sender, refused) = watch::channel(Arc::default());
        let pool = reader.pool.clone();
        let machine =
            Arc::new(Machine { store, resources, reader, postgres, kafka, platform, running: running.clone(), refused });
        let reconciler = Loop {
            tenancies: Arc::new(Tenancies::new(Arc::clone(&machine) as _)),
            machine,
            refused: refused_sender,
            running,
            seen: Running::default(),
            schedule: Schedule::new(AT_A_TIME, WAITS),
            state,
            nameless: Vec::new(),
            again: None,
        };
        let mut reconciling = pin!(reconciler.run(&options.resources, stop.clone()));
        let served = tokio::select! {
            () = &mut reconciling => Ok(()),
            error = server.ended() => {
                error!("PostgreSQL ended: all else does, too");
                stop.cancel();
                reconciling.await;
                Err(error)
            }
        };
        // The task ends by itself, now that `stop` was given.
        let _ = hubs.await;
        pool.close().await;
        server.stop().await;
        drop(lock);
        served
    }
}

/// The log can't move: a folder stays with the kind of bus that it was made with.
fn check_bus(state: &StateDir, has_kafka: bool) -> Result<(), StandaloneError> {
    let known: Option<(PlatformPostgres, PlatformBus)> = state::read_json(&state.root().join(PLATFORM))?;
    let path = state.root().to_owned();
    match known.map(|(_, bus)| bus) {
        Some(PlatformBus::Postgres) if has_kafka => Err(StandaloneError::LogInPostgres { path }),
        Some(PlatformBus::Kafka { bootstrap_servers, .. }) if !has_kafka => {
            Err(StandaloneError::LogOnKafka { path, bootstrap_servers })
        }
        _ => Ok(()),
    }
}

/// What another folder does not have would be deleted: nobody should come to that by an option that was forgotten. Gives what is given.
fn check_resources(state: &StateDir, options: &StandaloneOptions) -> Result<String, StandaloneError> {
    let given = options.resources.canonicalize().map_err(StateError::io(&options.resources))?.to_string_lossy().into_owned();
    let root = state.root().canonicalize().map_err(StateError::io(state.root()))?;
    let hidden =
        root.strip_prefix(&given).ok().and_then(Path::file_name).is_some_and(|name| name.to_string_lossy().starts_with('.'));
    if root.starts_with(&given) && !hidden {
        // What is kept there would be read as resources.
        return Err(StandaloneError::StateInside { path: root, resources: given.into() });
    }
    // A state of before this was written down is taken as it is.
    match state::read_json::<String>(&state.root().join(RESOURCES))? {
        Some(known) if known != given && !options.replace => {
            Err(StandaloneError::OtherResources { path: state.root().to_owned(), known, given })
        }
        _ => Ok(given),
    }
}

/// Made at the first start, and kept.
fn operator_password(state: &StateDir) -> Result<String, StandaloneError> {
    let path = state.root().join("operator.json");
    if let Some(password) = state::read_json(&path)? {
        return Ok(password);
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(StandaloneError::Random)?;
    let password = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    state::write_json(&path, &password)?;
    Ok(password)
}

struct Loop {
    machine: Arc<Machine>,
    tenancies: Arc<Tenancies>,
    refused: watch::Sender<Arc<BTreeMap<ObjectRef, Vec<Violation>>>>,
    running: watch::Receiver<Running>,
    seen: Running,
    schedule: Schedule<String>,
    state: StateDir,
    /// What was said about documents without a name, so that it is said once.
    nameless: Vec<String>,
    /// When it is looked whether what was missing still is.
    again: Option<Instant>,
}

impl Loop {
    async fn run(mut self, folder: &Path, stop: CancellationToken) {
        let (edits, mut edited) = mpsc::channel(1);
        let _watcher = watch_folder(folder, edits);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut jobs = Jobs::default();
        self.look();
        loop {
            jobs.start(&mut self.schedule, &self.tenancies);
            // Far away where nothing is due: something else will wake us.
            let far = Instant::now() + Duration::from_secs(3600);
            let due = self.schedule.next_due().unwrap_or(far);
            let again = self.again.unwrap_or(far);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = edited.recv() => {
                    tokio::time::sleep(DEBOUNCE).await;
                    // One more may have come meanwhile.
                    let _ = edited.try_recv();
                    self.look();
                }
                _ = look.tick() => self.look(),
                () = sleep_until(again.into()) => self.look(),
                Ok(()) = self.running.changed() => self.hubs_changed(),
                Some(ended) = jobs.next() => self.schedule.finish(&ended.namespace, ended.turn, Instant::now(), jitter()),
                () = sleep_until(due.into()) => {}
            }
        }
        // What is being written is finished; everything is idempotent, so nothing more is started.
        while jobs.next().await.is_some() {}
    }

    fn look(&mut self) {
        let found = match self.machine.resources.sync() {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "the resources can't be read");
                // The next look may be far away, but not this one again and again.
                self.again = None;
                return;
            }
        };
        self.again = found.again;
        let messages: Vec<String> = found.nameless.iter().map(ToString::to_string).collect();
        if messages != self.nameless {
            messages.iter().for_each(|message| error!("{message}"));
            self.nameless = messages;
            if let Err(error) = state::write_json(&self.state.root().join("errors.json"), &self.nameless) {
                warn!(%error, "what was refused is not written down");
            }
        }
        let before = Arc::clone(&self.refused.borrow());
        let changed_refusals = *before != found.refused;
        let mended: Vec<ObjectRef> = before.keys().filter(|object| !found.refused.contains_key(*object)).cloned().collect();
        if changed_refusals {
            self.refused.send_replace(Arc::new(found.refused));
        }
        if let Err(error) = self.machine.report_refused() {
            warn!(%error, "the status of what was refused is not written");
        }
        let everything = match Everything::read(&self.machine.store) {
            Ok(everything) => everything,
            Err(error) => {
                warn!(%error, "the objects can't be read");
                return;
            }
        };
        let now = Instant::now();
        let refused = Arc::clone(&self.refused.borrow());
        let touched: Vec<&ObjectRef> =
            found.changed.iter().filter(|object| !refused.contains_key(*object)).chain(&mended).collect();
        // A Tenant may collide with any other, so all are looked at.
        let all = touched.iter().any(|object| object.kind == Kind::Tenant);
        let namespaces = everything.namespaces();
        self.schedule.keep_only(&namespaces);
        for namespace in namespaces {
            if all || touched.iter().any(|object| object.namespace == namespace) {
                self.schedule.touch(namespace, now);
            }
        }
    }

    /// Only the tenants whose hub is doing otherwise than before are looked at.
    fn hubs_changed(&mut self) {
        let now = self.running.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.seen, now.clone());
        let everything = match Everything::read(&self.machine.store) {
            Ok(everything) => everything,
            Err(error) => return warn!(%error, "the objects can't be read"),
        };
        for key in now.deployments.keys().chain(before.deployments.keys()) {
            let same = now.deployments.get(key) == before.deployments.get(key)
                && now.endpoints.services.get(key) == before.endpoints.services.get(key);
            let namespace = key.split('/').next().unwrap_or_default();
            if let (false, Some(namespace)) = (same, everything.namespace_of_hub(namespace)) {
                self.schedule.touch(namespace, Instant::now());
            }
        }
    }
}

/// Without a watch the folder is looked at every few seconds all the same.
fn watch_folder(folder: &Path, edits: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    use notify::RecursiveMode::{NonRecursive, Recursive};
    // Beside one file may be a whole home.
    let (watched, mode) = if folder.is_file() { (folder.parent().unwrap_or(folder), NonRecursive) } else { (folder, Recursive) };
    let root = watched.canonicalize().unwrap_or_else(|_| watched.to_owned());
    // What is hidden is not read, and may change all the time: a state folder, or what git keeps.
    let is_hidden = move |path: &PathBuf| {
        let inner = path.strip_prefix(&root).unwrap_or(path);
        inner.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
    };
    let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = |event: notify::Event| {
            !matches!(event.kind, notify::EventKind::Access(_)) && (event.paths.is_empty() || !event.paths.iter().all(&is_hidden))
        };
        if event.is_ok_and(matters) {
            // One that waits is enough.
            let _ = edits.try_send(());
        }
    });
    let watching = made.and_then(|mut watcher| watcher.watch(watched, mode).map(|()| watcher));
    watching.inspect_err(|error| warn!(%error, folder = %watched.display(), "not watched: looked at every few seconds")).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_state_folder_keeps_its_resources() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().join("state")).unwrap();
        let options = |resources: &str, replace| {
            let resources = folder.path().join(resources);
            std::fs::create_dir_all(&resources).unwrap();
            StandaloneOptions {
                resources,
                replace,
                state: state.root().to_owned(),
                programs: Programs::default(),
                postgres_bin: None,
                kafka: None,
                allowed_issuers: Vec::new(),
            }
        };
        let first = check_resources(&state, &options("a", false)).unwrap();
        check_resources(&state, &options("b", false)).expect("a state of before says nothing");
        state::write_json(&state.root().join(RESOURCES), &first).unwrap();
        assert_eq!(check_resources(&state, &options("b/../a", false)).unwrap(), first);
        let error = check_resources(&state, &options("b", false)).unwrap_err().to_string();
        assert!(error.contains(&first) && error.contains("--state") && error.contains("--replace"), "{error}");
        assert_ne!(check_resources(&state, &options("b", true)).unwrap(), first);
        // What is kept is not read as resources.
        let error = check_resources(&state, &options(".", true)).unwrap_err().to_string();
        assert!(error.contains("is inside of the resources"), "{error}");
        let hidden = StateDir::open(&folder.path().join("a/.acb")).unwrap();
        assert!(check_resources(&hidden, &options("a", true)).is_ok());
    }

    #[test]
    fn a_state_folder_keeps_its_kind_of_bus() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        check_bus(&state, true).unwrap();
        check_bus(&state, false).unwrap();
        let postgres = PlatformPostgres { host: "h".into(), port: 1, database: "d".into(), ssl_mode: "prefer".into() };
        let kafka = PlatformBus::Kafka { bootstrap_servers: "127.0.0.1:9092".into(), tls: false };
        for (bus, on_kafka) in [(PlatformBus::Postgres, false), (kafka, true)] {
            state::write_json(&folder.path().join(PLATFORM), &(&postgres, &bus)).unwrap();
            check_bus(&state, on_kafka).unwrap();
            let error = check_bus(&state, !on_kafka).unwrap_err().to_string();
            assert!(error.contains(&folder.path().display().to_string()) && error.contains("--state"), "{error}");
        }
    }
}
