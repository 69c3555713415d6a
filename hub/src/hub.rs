//! A hub's life: look for its parts, serve, drain.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use acb_hub_api::{
    grpc::{agent::Agents, auth::Auth, context::ContextGate, message::MessageGate, stream::StreamGate},
    operations,
    routes::Services,
    server,
    tls::{Certificate, ConnectionLimits},
};
use acb_hub_bus::{KafkaBus, PostgresBus};
use acb_hub_core::{
    bus::{Bus, TopicName},
    contexts::{ContextConfig, Contexts},
    credential::Authority,
    directory::Directory,
    door::Door,
    fault::Fault,
    messages::Messages,
    metrics::Metrics,
    readiness::Readiness,
    refresh::{Refresher, jittered},
    registry::Registry,
    session::MessagesConfig,
    token::Tokens,
    upload::Uploads,
};
use acb_hub_store::{PgStore, context::PgContexts};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError},
    reload,
};

/// The pod's grace period is 30 s: what is open has this long to end.
const DRAIN: Duration = Duration::from_secs(20);
/// Between two looks for a part that is missing.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

const POSTGRES: &str = "postgres";
const SCHEMA: &str = "schema";
const DIRECTORY: &str = "directory";
const LOG: &str = "log";
const SERVING: &str = "serving";

/// Why a hub stopped by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    /// What it was given.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address that it can't listen on, or a server that ended.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// The log is not the one that it was started on.
    #[error("the messages log was made anew: this hub ends, to be started over on the new one")]
    LogRemade,
}

/// Runs until the process is told to end.
pub(crate) async fn run(config: Arc<Config>) -> Result<(), HubError> {
    let terminated = terminated()?;
    let tenant = config.hub.tenant.as_str();
    tracing::info!(tenant, replica = config.replica, version = env!("CARGO_PKG_VERSION"), "the hub starts");
    let readiness = Readiness::new(&[POSTGRES, SCHEMA, DIRECTORY, LOG, SERVING]);
    let metrics = Arc::new(Metrics::new(tenant));
    let stop = CancellationToken::new();
    let _stopped_with_this = stop.clone().drop_guard();

    // Read before anything waits: a hub that can never serve should say so at once.
    let tokens = Tokens::new(tenant, &config.hub.tenant_id, config.keyring()?);
    let certificate = config.certificate()?;
    let operations = bind(config.operations).await?;
    let grpc = bind(config.grpc).await?;
    tokio::spawn(operations::serve(operations, readiness.clone(), metrics.clone(), stop.clone()));
    tokio::spawn(reload::watch(config.clone(), certificate.clone(), tokens.clone(), stop.clone()));

    let store = PgStore::new(config.postgres.clone());
    let bus = open_bus(&config, &store)?;
    let directory = Directory::default();
    let refresher = Arc::new(Refresher::new(directory.clone(), Arc::new(store.clone())));
    let parts = Parts {
        config: config.clone(),
        store,
        bus,
        refresher,
        tokens,
        metrics,
        readiness: readiness.clone(),
        stop: stop.clone(),
    };

    let outcome = parts.serve(grpc, &certificate, terminated).await;
    tracing::info!(tenant = config.hub.tenant, replica = config.replica, "the hub stops");
    outcome
}

/// What serving needs.
struct Parts {
    config: Arc<Config>,
    store: PgStore,
    bus: Arc<dyn Bus>,
    refresher: Arc<Refresher>,
    tokens: Tokens,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    stop: CancellationToken,
}

impl Parts {
    /// Waits for what is missing, serves, and drains when told to end.
    async fn serve(self, listener: TcpListener, certificate: &Certificate, terminated: Terminated) -> Result<(), HubError> {
        tokio::pin!(terminated);
        let messages = tokio::select! {
            messages = self.wait() => messages,
            // Nobody was served yet: there is nothing to drain.
            _ = &mut terminated => return Ok(()),
        };
        let (routes, health) = self
            .services(messages.clone())
            .routes()
            .map_err(|error| HubError::Io("reflection".to_owned(), io::Error::other(error)))?;
        let door = Door::new(self.tokens.clone(), self.refresher.clone());
        let server = server::serve(
            listener,
            certificate,
            ConnectionLimits::default(),
            routes,
            door,
            self.metrics.clone(),
            self.stop.clone(),
        );
        tokio::pin!(server);
        health.set(true).await;
        self.readiness.ready(SERVING);
        let ended = tokio::select! {
            ended = &mut server => ended,
            // Started over, it reads the new log from its beginning.
            () = messages.stopped() => return Err(HubError::LogRemade),
            _ = &mut terminated => {
                self.readiness.waiting(SERVING, "the hub is stopping: use another replica");
                health.set(false).await;
                let drain = async {
                    messages.drain().await;
                    self.stop.cancel();
                    (&mut server).await
                };
                // Whoever has not left by then is cut off, and resumes elsewhere.
                timeout(DRAIN, drain).await.unwrap_or(Ok(()))
            }
        };
        ended.map_err(|error| HubError::Io("the gRPC server ended".to_owned(), error))
    }

    /// Looks for every part until it is there, and says which one is waited for.
    async fn wait(&self) -> Messages {
        let postgres = &self.config.hub.postgres;
        let place = format!("PostgreSQL at {}:{}, database {}", postgres.host, postgres.port, postgres.database);
        self.until(POSTGRES, &place, async || self.store.ping().await).await;
        self.until(SCHEMA, &place, async || self.store.check_schema().await).await;
        self.until(DIRECTORY, &place, async || self.refresher.current().await.map(drop)).await;
        let (bus, control) = (self.bus.clone(), TopicName::system(&self.config.hub.tenant, "control"));
        let refresher = self.refresher.clone();
        let stop = self.stop.clone();
        tokio::spawn(async move { refresher.run(bus, control, stop).await });
        let place = format!("the log on {}", self.config.log_place());
        let store = Arc::new(self.store.clone());
        let start = async || {
            let request_key = self.tokens.keyring().request_key();
            let config = MessagesConfig::new(&self.config.hub.tenant, &self.config.replica, request_key);
            let directory = self.refresher.directory().clone();
            Messages::start(self.bus.clone(), store.clone(), store.clone(), directory, self.metrics.clone(), config).await
        };
        let messages = self.until(LOG, &place, start).await;
        self.caught_up(&messages).await;
        messages
    }

    /// Messages are delivered in order only by a replica that has read its window of the log.
    async fn caught_up(&self, messages: &Messages) {
        let mut waiting = messages.waiting_for();
        loop {
            match waiting.borrow_and_update().clone() {
                None => return self.readiness.ready(LOG),
                Some(what) => self.readiness.waiting(LOG, what),
            }
            if waiting.changed().await.is_err() {
                return;
            }
        }
    }

    fn services(&self, messages: Messages) -> Services {
        let tenant = self.config.hub.tenant.as_str();
        let store = Arc::new(self.store.clone());
        let directory = self.refresher.directory();
        let contexts = Contexts::start(
            self.bus.clone(),
            PgContexts::new(self.store.pool().clone()).stores(),
            directory.clone(),
            tenant,
            ContextConfig::default(),
            self.metrics.contexts(),
            self.stop.clone(),
        );
        let uploads = Uploads::new(contexts.clone(), self.metrics.contexts());
        Services {
            auth: Auth::new(Authority::new(self.tokens.clone(), store.clone(), self.refresher.clone())),
            agents: Agents::new(tenant, Registry::new(directory.clone(), store)),
            messages: MessageGate::new(messages, &self.config.replica),
            contexts: ContextGate::new(contexts),
            streams: StreamGate::new(uploads, &self.config.replica),
        }
    }

    /// Tries until it works, with growing pauses.
    async fn until<T>(&self, part: &'static str, place: &str, attempt: impl AsyncFn() -> Result<T, Fault>) -> T {
        let (mut pause, longest) = RETRY;
        loop {
            match attempt().await {
                Ok(found) => {
                    self.readiness.ready(part);
                    return found;
                }
                Err(fault) => self.readiness.waiting(part, format!("{place}: {}", fault.message)),
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(longest);
        }
    }
}

fn open_bus(config: &Config, store: &PgStore) -> Result<Arc<dyn Bus>, HubError> {
    match &config.kafka {
        None => Ok(Arc::new(PostgresBus::connect(&config.postgres, config.tenant_id, store.pool().clone()))),
        Some(kafka) => Ok(Arc::new(KafkaBus::connect(kafka).map_err(|error| ConfigError::new("the kafka Secret", error))?)),
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, HubError> {
    TcpListener::bind(address).await.map_err(|error| HubError::Io(format!("can't listen on {address}"), error))
}

type Terminated = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Resolves when the process is told to end: by SIGTERM, or by hand.
fn terminated() -> Result<Terminated, HubError> {
    let listen = |kind| signal(kind).map_err(|error| HubError::Io("signals".to_owned(), error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(Box::pin(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }))
}
