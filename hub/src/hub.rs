//! A hub's life: look for its parts, serve, drain.

use std::{future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use acb_hub_api::{
    grpc::{
        agent::Agents, audit::AuditGate, auth::Auth, context::ContextGate, credential::CredentialGate,
        dead_letter::DeadLetterGate, encryption::EncryptionKeyGate, mailbox::MailboxGate, message::MessageGate,
        schedule::ScheduleGate, stream::StreamGate, trace::TraceGate, usage::UsageGate,
    },
    operations,
    routes::Services,
    server,
    tls::{Certificate, ConnectionLimits, accept},
};
use acb_hub_bus::{KafkaBus, PostgresBus};
use acb_hub_core::{
    audit::{
        journal::Journal,
        reading::AuditTrail,
        sink::{SigningKey, Sink, SinkTimes},
        witness::{AGAIN, Witness, Witnessing},
    },
    contexts::{catalog::Contexts, outbox::ContextChanges, parts::ContextConfig, upload::Uploads},
    directory::{
        encryption_keys::EncryptionKeys,
        presence::Registry,
        refresher::{Refresher, jittered},
        snapshot::Directory,
    },
    door::{
        access_token::Tokens, admission::Door, authority::Authority, count_exchange, credentials::Credentials,
        issuer_keys::IssuerKeys, meter::Meter, registration::Registrar,
    },
    fault::Fault,
    kit::{
        readiness::Readiness,
        spans::Spans,
        supervisor::{Supervisor, TaskEnded},
    },
    log::{
        bus::{Bus, TopicName},
        outbox::{
            noun::Noun,
            relay::{self, Committed, Relay},
        },
    },
    messages::{
        config::MessagesConfig, parts::MessageStores, request_id::RequestKey, scheduled::ScheduledMessages, service::Messages,
    },
    metrics::Metrics,
    timers::{
        alarm::{self, Alarm, Wake},
        handler::Handler,
    },
};
use acb_hub_store::{PgStore, contexts::context::PgContexts, log::outbox::PgOutbox};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ConfigError},
    issuers::Issuers,
    logging::LogLines,
    passwords::{self, KafkaGate, PostgresGate},
    probe, process, reload,
    traces::Collector,
    witness::HttpsWitness,
};

/// The pod's grace period is 30 s: what is open has this long to end.
const DRAIN: Duration = Duration::from_secs(20);
/// The same where a task has failed: what can still be told and written is, and the next process is waited for.
const DRAIN_BROKEN: Duration = Duration::from_secs(5);
/// Between two looks for a part that is missing.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long a record of the PostgreSQL log may outlive its topic's retention.
const PRUNE_EVERY: Duration = Duration::from_secs(5 * 60);

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
    /// A task that must not end.
    #[error(transparent)]
    Task(#[from] TaskEnded),
    /// Log or store are not what it remembers of them.
    #[error("the hub waits for {0}")]
    StartOver(String),
    /// A login that would show agents what is other tenants'.
    #[error("{0}")]
    LoginUnsafe(String),
}

/// Runs until the process is told to end.
pub(crate) async fn run(config: Arc<Config>, lines: LogLines) -> Result<(), HubError> {
    supervised(config, lines, Supervisor::new(CancellationToken::new())).await
}

async fn supervised(config: Arc<Config>, lines: LogLines, supervisor: Supervisor) -> Result<(), HubError> {
    let terminated = terminated()?;
    let tenant = config.hub.tenant.as_str();
    tracing::info!(tenant, replica = config.replica, version = env!("CARGO_PKG_VERSION"), "the hub starts");
    let readiness = Readiness::new(&[POSTGRES, SCHEMA, DIRECTORY, LOG, SERVING]);
    let metrics = Arc::new(Metrics::new(tenant));
    let stop = supervisor.stop().clone();
    let _stopped_with_this = stop.clone().drop_guard();
    let (measuring, stopped) = (process::measure(metrics.process(), lines), stop.clone());
    supervisor.spawn("process", async move {
        stopped.run_until_cancelled(measuring).await;
    });

    // Read before anything waits: a hub that can never serve should say so at once.
    let tokens = Tokens::new(tenant, &config.hub.tenant_id, config.keyring()?);
    let certificate = config.certificate()?;
    let operations = bind(config.operations).await?;
    let grpc = bind(config.grpc).await?;
    supervisor.spawn("operations", operations::serve(operations, readiness.clone(), metrics.clone(), stop.clone()));
    supervisor.spawn("reload", reload::watch(config.clone(), certificate.clone(), tokens.clone(), stop));

    let witness = config.hub.witness.clone().map(|witness| Arc::new(HttpsWitness::new(witness)) as Arc<dyn Witness>);
    let store = PgStore::new(config.postgres.clone()).timed(metrics.clone());
    let log = open_log(&config, &store, &supervisor)?;
    follow_passwords(&config, &store, &log, &supervisor);
    let bus = log.bus;
    let directory = Directory::default();
    let refresher = Arc::new(Refresher::new(directory.clone(), Arc::new(store.clone())));
    let collector =
        config.hub.tracing.as_ref().map(|tracing| Collector::new(tracing, &config, metrics.clone())).transpose()?.map(Arc::new);
    let spans = collector.clone().map(|collector| Spans::new(collector)).unwrap_or_default();
    let parts = Parts { config: config.clone(), store, bus, refresher, tokens, metrics, readiness, supervisor, spans, witness };

    let outcome = parts.serve(grpc, &certificate, terminated).await;
    if let Some(collector) = collector {
        // It waits for the collector, in a thread where nothing else is held up.
        let _ended = tokio::task::spawn_blocking(move || collector.end()).await;
    }
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
    supervisor: Supervisor,
    spans: Spans,
    witness: Option<Arc<dyn Witness>>,
}

impl Parts {
    /// Waits for what is missing, serves, and drains when told to end.
    async fn serve(self, listener: TcpListener, certificate: &Certificate, terminated: Terminated) -> Result<(), HubError> {
        tokio::pin!(terminated);
        let messages = tokio::select! {
            messages = self.wait() => messages?,
            // Nobody was served yet: there is nothing to drain.
            () = &mut terminated => return Ok(()),
            ended = self.supervisor.failed() => return Err(ended.into()),
        };
        let contexts = self.contexts();
        let uploads = Uploads::new(&contexts, self.metrics.contexts());
        let journal = self.journal();
        let memory = messages.memory().into_iter().chain([contexts.memory(), uploads.memory()]).collect();
        let door = Door::new(self.tokens.clone(), self.refresher.clone(), self.metrics.clone(), journal)
            .with_spans(self.spans.clone())
            .with_memory(memory);
        let (routes, health) = self
            .services(messages.clone(), contexts.clone(), uploads, door.meter().clone())
            .routes()
            .map_err(|error| HubError::Io("reflection".to_owned(), io::Error::other(error)))?;
        let refused = door.clone();
        self.until_stopped("audit.refusals", async move { refused.write_refusals().await });
        let recorded = door.clone();
        let exchange = count_exchange::run(
            door.meter().clone(),
            Arc::new(self.store.clone()),
            self.refresher.directory().clone(),
            count_exchange::EVERY,
        );
        self.until_stopped("door.streams", exchange);
        let accepting = self.supervisor.stop().child_token();
        let (limits, connections) = (ConnectionLimits::default(), self.metrics.connections());
        let incoming = accept(listener, certificate, limits, connections, accepting.clone(), &self.supervisor)
            .map_err(|error| HubError::Io("TLS".to_owned(), error))?;
        let server = server::serve(incoming, routes, door, accepting.clone());
        tokio::pin!(server);
        self.readiness.ready(SERVING);
        let readiness = self.readiness.clone();
        self.until_stopped("health", async move { health.follow(readiness).await });
        let login_unsafe = self.watch(&messages, &contexts);
        let failed = tokio::select! {
            // First, since what follows may only be its consequence.
            biased;
            ended = self.supervisor.failed() => Some(ended),
            () = &mut terminated => None,
            // Started over, it reads what is there now.
            why = messages.stopped() => return Err(HubError::StartOver(why)),
            // At once: whoever is connected must not see anything more.
            Ok(why) = login_unsafe => return Err(HubError::LoginUnsafe(why)),
            ended = &mut server => {
                let error = ended.err().unwrap_or_else(|| io::Error::other("it accepts no more"));
                return Err(HubError::Io("the gRPC server ended".to_owned(), error));
            }
        };
        self.readiness.waiting(SERVING, "the hub is stopping: use another replica");
        if failed.is_some() {
            accepting.cancel();
        }
        let drain = async {
            messages.drain().await;
            self.supervisor.stop().cancel();
            let ended = (&mut server).await;
            recorded.recorded().await;
            ended
        };
        // Whoever has not left by then is cut off, and resumes elsewhere.
        let ended = timeout(if failed.is_some() { DRAIN_BROKEN } else { DRAIN }, drain).await.unwrap_or(Ok(()));
        match failed {
            Some(failed) => Err(failed.into()),
            None => ended.map_err(|error| HubError::Io("the gRPC server ended".to_owned(), error)),
        }
    }

    /// What is asked for as long as the hub serves. Tells why it must not, where its login is none to serve with.
    fn watch(&self, messages: &Messages, contexts: &Arc<Contexts>) -> oneshot::Receiver<String> {
        let part = |name, place| probe::Part { name, place };
        let (store, bus, readiness) = (self.store.clone(), self.bus.clone(), self.readiness.clone());
        let topic = TopicName::system(&self.config.hub.tenant, "messages");
        let (tell, login_unsafe) = oneshot::channel();
        let postgres = probe::postgres(store, readiness.clone(), part(POSTGRES, self.place()), SCHEMA);
        self.until_stopped("probe.postgres", async move {
            // Nobody listens to a hub that ends for another reason.
            let _ = tell.send(postgres.await);
            future::pending().await
        });
        let directory = probe::directory(self.refresher.clone(), readiness.clone(), part(DIRECTORY, self.place()));
        self.until_stopped("probe.directory", directory);
        let sink = self.sink();
        if let Some(witness) = self.witness.clone() {
            let (trail, metrics) = (AuditTrail::new(Arc::new(self.store.clone())), self.metrics.audit());
            self.until_stopped("audit.witness", Witnessing::new(trail, witness, metrics, AGAIN).run(sink.checkpoints()));
        }
        self.until_stopped("audit.sink", sink.run());
        self.until_stopped("probe.log", probe::log(bus, topic, readiness, part(LOG, self.log_place())));
        self.until_stopped("metrics.agents", probe::forget(self.refresher.directory().clone(), self.metrics.clone()));
        self.until_stopped("readiness", follow(messages.waiting_for(), self.readiness.clone()));
        self.until_stopped("lag", probe::lag(messages.clone(), contexts.clone(), self.metrics.clone()));
        login_unsafe
    }

    /// A task that ends with the hub, and itself never does.
    fn until_stopped(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.supervisor.stop().clone();
        self.supervisor.spawn(name, async move {
            stop.run_until_cancelled(task).await;
        });
    }

    fn place(&self) -> String {
        let postgres = &self.config.hub.postgres;
        format!("PostgreSQL at {}:{}, database {}", postgres.host, postgres.port, postgres.database)
    }

    fn log_place(&self) -> String {
        format!("the log on {}", self.config.log_place())
    }

    /// Looks for every part until it is there, and says which one is waited for.
    async fn wait(&self) -> Result<Messages, HubError> {
        let place = self.place();
        self.until(POSTGRES, &place, async || self.store.check_login().await).await;
        self.until(SCHEMA, &place, async || self.store.check_schema().await).await;
        self.until(DIRECTORY, &place, async || self.refresher.current().await.map(drop)).await;
        let (bus, control) = (self.bus.clone(), TopicName::system(&self.config.hub.tenant, "control"));
        let refresher = self.refresher.clone();
        let stop = self.supervisor.stop().clone();
        self.supervisor.spawn("directory", async move { refresher.run(bus, control, stop).await });
        let place = self.log_place();
        let store = Arc::new(self.store.clone());
        let start = async || {
            let request_key = RequestKey::new(self.tokens.keyring().request_secret());
            let config = MessagesConfig {
                spans: self.spans.clone(),
                ..MessagesConfig::new(&self.config.hub.tenant, &self.config.replica, request_key)
            };
            let directory = self.refresher.directory().clone();
            Messages::start(
                self.bus.clone(),
                MessageStores {
                    mailboxes: store.clone(),
                    cursors: store.clone(),
                    letters: store.clone(),
                    traces: store.clone(),
                    usage: store.clone(),
                },
                directory,
                self.metrics.clone(),
                config,
                &self.supervisor,
            )
            .await
        };
        let messages = self.until(LOG, &place, start).await;
        tokio::select! {
            () = self.caught_up(&messages) => Ok(messages.with_presence(store)),
            why = messages.stopped() => Err(HubError::StartOver(why)),
        }
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

    fn journal(&self) -> Journal {
        let Config { hub, replica, .. } = &*self.config;
        let (journal, queue) = Journal::new(self.bus.clone(), &hub.tenant, replica, self.metrics.audit());
        // It goes on while the hub drains: calls end then.
        self.supervisor.spawn("audit.queue", queue.run());
        journal
    }

    fn sink(&self) -> Sink {
        let config = self.config.clone();
        // Read each time: a rotated key needs no word about it.
        let key: SigningKey = Arc::new(move || {
            config.audit_key().unwrap_or_else(|error| {
                tracing::warn!(%error, "the audit trail can't be signed");
                None
            })
        });
        let Config { hub, replica, .. } = &*self.config;
        let store = Arc::new(self.store.clone());
        Sink::new(self.bus.clone(), store, key, (&hub.tenant, replica), self.metrics.audit(), SinkTimes::default())
    }

    fn contexts(&self) -> Arc<Contexts> {
        let (tenant, directory) = (self.config.hub.tenant.as_str(), self.refresher.directory());
        let (outbox, committed) = (Arc::new(PgOutbox::new(&self.store)), Committed::default());
        let nouns: [Arc<dyn Noun>; 1] = [Arc::new(ContextChanges::new(tenant, directory.clone()))];
        let relay = Relay::new(self.bus.clone(), outbox, nouns, committed.clone(), relay::POLL);
        self.supervisor.spawn("outbox.relay", relay.run(self.supervisor.stop().clone()));
        Contexts::start(
            self.bus.clone(),
            PgContexts::new(&self.store).stores(committed),
            directory.clone(),
            tenant,
            ContextConfig::default(),
            self.metrics.contexts(),
            &self.supervisor,
        )
    }

    fn scheduled(&self, messages: &Messages) -> ScheduledMessages {
        let (timers, wake) = (Arc::new(self.store.clone()), Wake::default());
        let scheduled = messages.scheduled(timers.clone(), wake.clone());
        let handlers: [Arc<dyn Handler>; 1] = [Arc::new(scheduled.clone())];
        let alarm = Alarm::new(timers, handlers, wake, alarm::POLL, self.metrics.clone());
        self.supervisor.spawn("timers", alarm.run(self.supervisor.stop().clone()));
        scheduled
    }

    fn services(&self, messages: Messages, contexts: Arc<Contexts>, uploads: Uploads, meter: Meter) -> Services {
        let tenant = self.config.hub.tenant.as_str();
        let store = Arc::new(self.store.clone());
        let directory = self.refresher.directory();
        let authority = Authority::new(self.tokens.clone(), store.clone(), self.refresher.clone())
            .with_issuer_keys(IssuerKeys::new(Arc::new(Issuers), self.metrics.oidc()));
        let used = authority.clone();
        self.until_stopped("credentials.uses", async move { used.write_uses().await });
        Services {
            audit: AuditGate::new(AuditTrail::new(store.clone())),
            auth: Auth::new(authority),
            credentials: CredentialGate::new(Credentials::new(directory.clone(), store.clone())),
            encryption_keys: EncryptionKeyGate::new(EncryptionKeys::new(directory.clone(), store.clone())),
            agents: Agents::new(
                tenant,
                Registry::new(directory.clone(), store.clone()),
                Registrar::new(
                    self.tokens.clone(),
                    self.refresher.clone(),
                    store,
                    self.bus.clone(),
                    TopicName::system(tenant, "control"),
                ),
            ),
            mailboxes: MailboxGate::new(messages.clone()),
            usage: UsageGate::new(tenant, messages.clone(), contexts.clone(), meter, directory.clone()),
            traces: TraceGate::new(messages.traces().with_timers(Arc::new(self.store.clone()))),
            dead_letters: DeadLetterGate::new(messages.dead_letters()),
            schedule: ScheduleGate::new(self.scheduled(&messages)),
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

/// A hub that has served may have to wait again: for a newer one, where that writes what it can't read.
async fn follow(mut waiting: watch::Receiver<Option<String>>, readiness: Readiness) {
    while waiting.changed().await.is_ok() {
        if let Some(what) = waiting.borrow_and_update().clone() {
            readiness.waiting(SERVING, what);
        }
    }
    future::pending().await
}

/// The log, and what of it is Kafka's alone.
struct Log {
    bus: Arc<dyn Bus>,
    kafka: Option<Arc<KafkaBus>>,
}

fn open_log(config: &Config, store: &PgStore, supervisor: &Supervisor) -> Result<Log, HubError> {
    let Some(settings) = &config.kafka else {
        let bus = Arc::new(PostgresBus::connect(config.tenant_id, store.pool().clone(), supervisor));
        let (pruned, stop) = (Arc::clone(&bus), supervisor.stop().clone());
        supervisor.spawn("bus.retention", async move {
            stop.run_until_cancelled(pruned.keep_pruned(PRUNE_EVERY)).await;
        });
        return Ok(Log { bus, kafka: None });
    };
    let kafka = KafkaBus::connect(settings).map_err(|error| ConfigError::new("the kafka Secret", error))?;
    let kafka = Arc::new(kafka);
    Ok(Log { bus: Arc::clone(&kafka) as _, kafka: Some(kafka) })
}

/// While passwords are replaced, looks which one each store takes.
fn follow_passwords(config: &Config, store: &PgStore, log: &Log, supervisor: &Supervisor) {
    let until_stopped = |name, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
        let stop = supervisor.stop().clone();
        supervisor.spawn(name, async move {
            stop.run_until_cancelled(task).await;
        });
    };
    if let Some(replaced) = config.replaced.postgres.clone() {
        let gate = PostgresGate(store.pool().clone());
        until_stopped("password.postgres", Box::pin(passwords::follow(gate, replaced)));
    }
    if let (Some(replaced), Some(kafka)) = (config.replaced.kafka.clone(), &log.kafka) {
        let gate = KafkaGate(Arc::clone(kafka));
        until_stopped("password.kafka", Box::pin(passwords::follow(gate, replaced)));
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

#[cfg(test)]
mod tests {
    use std::{fs, net::TcpStream as StdStream};

    use acb_testbed::{Postgres, TestTenant};
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn free_port() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// A tenant's hub in this process; its PostgreSQL may be at another port.
    fn config(dir: &TempDir, tenant: &TestTenant, postgres_port: Option<u16>) -> Arc<Config> {
        let write = |file: &str, content: &[u8]| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        };
        let options = tenant.connect_options();
        let json = serde_json::json!({
            "tenant": tenant.name(),
            "tenantId": tenant.id_hex(),
            "bus": {"kind": "postgres"},
            "postgres": {
                "host": options.get_host(),
                "port": postgres_port.unwrap_or_else(|| options.get_port()),
                "database": options.get_database().unwrap(),
                "sslMode": "prefer",
            },
        });
        write("config/hub.json", json.to_string().as_bytes());
        write("postgres/username", tenant.username().as_bytes());
        write("postgres/password", tenant.password().as_bytes());
        write("keys/signing.key", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem().as_bytes());
        write("keys/pepper", tenant.pepper());
        write("keys/refresh.key", &[7; 32]);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        write("tls/tls.crt", certificate.pem().as_bytes());
        write("tls/tls.key", key.serialize_pem().as_bytes());
        let mut config = Config::read(dir.path().to_owned()).unwrap();
        config.grpc = free_port();
        config.operations = free_port();
        Arc::new(config)
    }

    async fn status(operations: SocketAddr) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(operations).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    async fn until(config: &Config, wanted: &str) {
        let asked = async {
            while !status(config.operations).await.is_ok_and(|text| text.contains(wanted)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, asked).await.unwrap_or_else(|_| panic!("/readyz does not say {wanted}"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_serving_hub_ends_with_a_task_that_panics_and_accepts_no_more() {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let dir = TempDir::new().unwrap();
        let config = config(&dir, &tenant, None);
        let supervisor = Supervisor::default();
        let meanwhile = async {
            until(&config, "200 OK").await;
            StdStream::connect(config.grpc).unwrap();
            supervisor.spawn("victim", async { panic!("by accident") });
        };
        let hub = timeout(DEADLINE, supervised(config.clone(), LogLines::default(), supervisor.clone()));
        let (outcome, ()) = tokio::join!(hub, meanwhile);
        assert_eq!(outcome.unwrap().unwrap_err().to_string(), "the task victim panicked: by accident");
        let refused = async {
            while StdStream::connect(config.grpc).is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, refused).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hub_forgets_what_its_log_keeps_no_longer() {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let mut superuser = Postgres::shared().await.superuser().await;
        let id = tenant.id_bytes();
        sqlx::query(
            r#"WITH old AS (UPDATE acb.bus_partition SET next_offset = next_offset + 1
                            WHERE tenant_id = $1 AND topic LIKE '%.sys.messages' RETURNING topic, partition, next_offset - 1 AS at)
               INSERT INTO acb.bus_record (tenant_id, topic, partition, "offset", log_time)
               SELECT $1, topic, partition, at, now() - interval '8 days' FROM old"#,
        )
        .bind(&id[..])
        .execute(&mut superuser)
        .await
        .unwrap();
        let dir = TempDir::new().unwrap();
        let config = config(&dir, &tenant, None);
        let gone = async {
            let count = "SELECT count(*) FROM acb.bus_record WHERE tenant_id = $1";
            while sqlx::query_scalar::<_, i64>(count).bind(&id[..]).fetch_one(&mut superuser).await.unwrap() > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            ended = supervised(config, LogLines::default(), Supervisor::default()) => panic!("the hub ended: {ended:?}"),
            gone = timeout(DEADLINE, gone) => gone.unwrap(),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hub_ends_where_its_log_is_made_anew_before_it_has_read_it() {
        let postgres = Postgres::shared().await;
        let tenant = postgres.fresh_tenant("acme").await;
        let dir = TempDir::new().unwrap();
        let config = config(&dir, &tenant, None);
        let topic = format!("acb.{}.sys.messages", tenant.name());
        let mut superuser = postgres.superuser().await;
        let mut change = async |set: &'static str| {
            let change = sqlx::query(set).bind(tenant.id_bytes().to_vec()).bind(topic.clone());
            assert_ne!(change.execute(&mut superuser).await.unwrap().rows_affected(), 0);
        };
        // What it never reads to the end: records that are not there, behind one that is too young to be pruned.
        change(
            r#"WITH gap AS (UPDATE acb.bus_partition SET next_offset = 5 WHERE tenant_id = $1 AND topic = $2 RETURNING partition)
               INSERT INTO acb.bus_record (tenant_id, topic, partition, "offset", log_time) SELECT $1, $2, partition, 0, now() FROM gap"#,
        )
        .await;
        let meanwhile = async {
            until(&config, "records to read").await;
            change("UPDATE acb.bus_topic SET epoch = epoch + 1 WHERE tenant_id = $1 AND topic = $2").await;
        };
        let hub = timeout(DEADLINE, supervised(config.clone(), LogLines::default(), Supervisor::default()));
        let (outcome, ()) = tokio::join!(hub, meanwhile);
        let outcome = outcome.expect("it ends").unwrap_err();
        assert_eq!(outcome.to_string(), "the hub waits for a restart: the messages log was made again");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_waiting_hub_ends_with_a_task_that_ends() {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let dir = TempDir::new().unwrap();
        let config = config(&dir, &tenant, Some(free_port().port()));
        let supervisor = Supervisor::default();
        let meanwhile = async {
            until(&config, "503 Service Unavailable").await;
            supervisor.spawn("victim", async {});
        };
        let hub = timeout(DEADLINE, supervised(config.clone(), LogLines::default(), supervisor.clone()));
        let (outcome, ()) = tokio::join!(hub, meanwhile);
        assert_eq!(outcome.unwrap().unwrap_err().to_string(), "the task victim ended by itself");
    }
}
