//! One operator process: it watches from the beginning, stands for election, and reconciles for as long as it leads.

use std::{
    collections::BTreeSet,
    io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use acb_crds::schema::ObjectRef;
use kube_client::Client;
use kube_runtime::events::{Recorder, Reporter};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    FIELD_MANAGER,
    cluster::{self, Cluster},
    config::{Config, ConfigError},
    database::Claim,
    election::{Election, Term},
    events, isolation, issuer,
    metrics::Metrics,
    objects::KubernetesObjects,
    ops,
    pause::Pauses,
    plan_server,
    plans::Plans,
    pulse::{self, Pulse},
    requests::Requests,
    sessions, sweep,
    tally::Tally,
    watch::Watches,
};
use crate::{
    condition::{Outcome, Problem, Reason},
    effect::{EffectError, SecretReader, kafka_shared::SharedSnapshot},
    reconcile::{
        jitter,
        jobs::Jobs,
        runtime::Runtime as _,
        schedule::{Schedule, Turn, Waits},
        tenancies::{Tenancies, with_conditions},
    },
};

/// A new leader passes over Kafka once more after this: a write of a leader that was asleep lives at most so long.
const SECOND_PASS_AFTER: Duration = Duration::from_secs(5);
/// A hub that comes up tells of it; this is only behind that.
const WAITING: Duration = Duration::from_secs(5);
/// What runs at the end is one step each, and has this long.
const STEP_WITHIN: Duration = Duration::from_secs(15);
/// Who can't know what there is leaves the lease to another.
const LISTED_WITHIN: Duration = Duration::from_secs(30);

/// How often it is looked for what can't be read.
const UNREADABLE_EVERY: Duration = Duration::from_secs(1);
/// The same, after a status was not written.
const REFUSED_AGAIN: Duration = Duration::from_secs(30);
/// Scrapes are seldom closer.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// The files of authorities are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What a process is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The file of the configuration; credentials are in folders beside it.
    pub config: PathBuf,
    /// Of `/livez`, `/readyz` and `/metrics`.
    pub ops_port: u16,
    /// Of what `acb plan` asks, on the loopback address; 0: nobody may ask.
    pub plan_port: u16,
    /// The operator's own.
    pub namespace: String,
    /// Of the pod.
    pub name: String,
}

/// Why it could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// What it was told.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// How it would reach the API server.
    #[error("the Kubernetes API: {0}")]
    Client(Box<dyn std::error::Error + Send + Sync>),
    /// A port of its own.
    #[error("port {port}: {source}")]
    Port {
        /// Which.
        port: u16,
        /// Why not.
        source: io::Error,
    },
}

/// Runs until `stop`, or until a server has other authorities, which are taken up by starting over; then it finishes the steps that are
/// under way and gives the lease back.
///
/// # Errors
/// What it could not start with.
pub async fn run(options: &Options, stop: CancellationToken) -> Result<(), StartError> {
    let config = Arc::new(Config::load(&options.config, &options.namespace)?);
    let stop = stop.child_token();
    tokio::spawn(look_at_authorities(Arc::clone(&config), stop.clone()));
    let client = connect().await?;
    let metrics = Metrics::default();
    let taken = |port| move |source| StartError::Port { port, source };
    let listener = ops::listen(options.ops_port).await.map_err(taken(options.ops_port))?;
    let requests = Requests::new(client.clone(), metrics.clone());
    let watches = Arc::new(Watches::new());
    let ended = CancellationToken::new();
    let pulse = Pulse::default();
    let probes = tokio::spawn(ops::serve(listener, watches.missing.subscribe(), metrics.clone(), pulse.clone(), ended.clone()));
    let (leading, leader) = watch::channel(None);
    if options.plan_port != 0 {
        let listener = plan_server::listen(options.plan_port).await.map_err(taken(options.plan_port))?;
        tokio::spawn(plan_server::serve(listener, Arc::new(Plans::new(requests.clone(), leader)), ended.clone()));
    }
    watches.start(&requests, &ended);
    let identity = format!("{}_{}", options.name, uuid::Uuid::new_v4().simple());
    let election = Arc::new(Election::new(requests.clone(), &options.namespace, identity.clone()));
    let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(options.name.clone()) };
    let recorder = Recorder::new(client, reporter);
    let process = Process { config, requests, watches, metrics, recorder, identity, leading, pulse };
    let mut missing = process.watches.missing.subscribe();
    tokio::select! {
        () = stop.cancelled() => {}
        // A leader that does not know what is there would take it for gone.
        known = missing.wait_for(Vec::is_empty) => drop(known.is_ok()),
    }
    let mut pauses = Pauses::default();
    while !stop.is_cancelled() {
        let Some(term) = election.win(&stop).await else { break };
        let began = Instant::now();
        process.metrics.leads(true);
        process.lead(&term, &stop).await;
        if term.fence.was_late() && timeout(STEP_WITHIN, election.ask_to_look_again()).await.is_err() {
            warn!("the leader was not asked in time to look again");
        }
        election.give_back(term).await;
        if let Some(pause) = pauses.after(began.elapsed()) {
            // Where it is told to stop meanwhile, it stands no more.
            let _ = stop.run_until_cancelled(sleep(pause)).await;
        }
    }
    ended.cancel();
    // It ends by itself, now that it was told to.
    let _ = probes.await;
    info!("ended");
    Ok(())
}

/// Ends the process where it was started with authorities that are no longer those of its servers.
async fn look_at_authorities(config: Arc<Config>, stop: CancellationToken) {
    while stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
        if config.has_other_authorities() {
            info!("PostgreSQL or Kafka has other authorities now: this process ends, to be started over with them");
            stop.cancel();
        }
    }
}

async fn connect() -> Result<Client, StartError> {
    let mut config = kube_client::Config::infer().await.map_err(|error| StartError::Client(error.into()))?;
    // Every request has a bound of its own; a watch is silent for long, and is ended by the server within five minutes.
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(330));
    Client::try_from(config).map_err(|error| StartError::Client(error.into()))
}

struct Process {
    config: Arc<Config>,
    requests: Requests,
    watches: Arc<Watches>,
    metrics: Metrics,
    recorder: Recorder,
    identity: String,
    /// For plans: what they read with while this process leads.
    leading: watch::Sender<Option<Arc<Cluster>>>,
    pulse: Pulse,
}

impl Process {
    /// One term.
    async fn lead(&self, term: &Term, stop: &CancellationToken) {
        let listed = tokio::select! {
            () = stop.cancelled() => false,
            () = term.lost.cancelled() => false,
            listed = timeout(LISTED_WITHIN, self.watches.list_anew()) => listed.is_ok(),
        };
        if !listed {
            warn!("can't lead: the API server did not list what there is in time");
            return self.metrics.leads(false);
        }
        let cache = Arc::clone(&self.watches.cache);
        let own_namespace = &self.config.platform.operator_namespace;
        let (issuers, issuer) = watch::channel(None);
        let (requests, fence) = (self.requests.clone(), Arc::clone(&term.fence));
        let objects = Arc::new(KubernetesObjects::new(requests, Arc::clone(&cache), fence, own_namespace, issuer));
        let secrets: Arc<dyn SecretReader> = Arc::clone(&objects) as _;
        let claim = match Claim::new(Arc::clone(&self.config), &self.identity, secrets) {
            Ok(claim) => claim,
            Err(error) => {
                self.metrics.leads(false);
                return error!(%error, "can't lead");
            }
        };
        let closing = CancellationToken::new();
        let cluster = Arc::new(Cluster {
            config: Arc::clone(&self.config),
            cache,
            woken: Arc::clone(&self.watches.woken),
            objects,
            claim,
            fence: Arc::clone(&term.fence),
            // The second pass is to see what came after the first.
            kafka: Arc::new(SharedSnapshot::outdated_at(Instant::now() + SECOND_PASS_AFTER)),
            events: events::publish(self.recorder.clone()),
            closing: closing.clone(),
            left_behind: Notify::new(),
            orphans: std::sync::Mutex::default(),
            isolation: std::sync::Mutex::default(),
        });
        let mut sweeping = tokio::spawn(sweep::sweep(Arc::clone(&cluster), self.metrics.clone()));
        self.leading.send_replace(Some(Arc::clone(&cluster)));
        tokio::spawn(sessions::end_overlong(Arc::clone(&cluster), self.metrics.clone()));
        tokio::spawn(isolation::verify(Arc::clone(&cluster), self.requests.clone(), self.metrics.clone()));
        tokio::spawn(issuer::follow(Arc::clone(&cluster), self.requests.clone(), issuers));
        tokio::spawn(count_resources(Arc::clone(&cluster), self.metrics.clone()));
        tokio::spawn(report_unreadable(Arc::clone(&cluster)));
        let waits = Waits { resync: self.config.resync, waiting: WAITING };
        let mut turns = Turns {
            tenancies: Arc::new(Tenancies::new(Arc::clone(&cluster) as _)),
            cluster: Arc::clone(&cluster),
            schedule: Schedule::new(self.config.concurrency, waits),
            jobs: Jobs::default(),
            fresh: cluster.cache.namespaces(),
        };
        self.watches.woken.take();
        turns.touch(turns.fresh.clone());
        loop {
            self.pulse.beat();
            turns.jobs.start(&mut turns.schedule, &turns.tenancies);
            self.metrics.waits(turns.schedule.due(Instant::now()));
            // Also where nothing is due, so that a loop that stands still can be told from one that has nothing to do.
            let turn = Instant::now() + pulse::AT_LEAST_EVERY;
            let due = turns.schedule.next_due().map_or(turn, |due| due.min(turn));
            tokio::select! {
                () = stop.cancelled() => break,
                () = term.lost.cancelled() => break,
                () = self.watches.woken.wait() => turns.touch(self.watches.woken.take()),
                () = term.look_again.notified() => {
                    // Another wrote to Kafka when it led no more.
                    cluster.kafka.outdate();
                    turns.touch(cluster.cache.namespaces());
                }
                Some(ended) = turns.jobs.next() => {
                    self.metrics.reconciled(ended.turn, ended.took);
                    turns.finish(&ended.namespace, ended.turn);
                }
                () = sleep_until(due.into()) => {}
            }
        }
        // The step that is under way is finished, and none is begun: everything is idempotent, so the next leader goes on from there.
        closing.cancel();
        self.pulse.rest();
        self.leading.send_replace(None);
        self.metrics.leads(false);
        let ending = async {
            while turns.jobs.next().await.is_some() {}
            // It ends with the step that it is in.
            let _ = (&mut sweeping).await;
        };
        if timeout(STEP_WITHIN, ending).await.is_err() {
            warn!("a step did not end in time, and is broken off");
            turns.jobs.shutdown().await;
            sweeping.abort();
        }
        cluster.claim.close().await;
    }
}

/// What this version can't read is said to be so, and left alone. By a task of its own: an API server that refuses such a status, or does not
/// answer, holds up nobody else's turn.
async fn report_unreadable(cluster: Arc<Cluster>) {
    loop {
        let mut pause = UNREADABLE_EVERY;
        for (object, why) in cluster.cache.unreadable() {
            if let Err(error) = report(&cluster, &object, why).await {
                warn!(%object, %error, "the status of what can't be read is not written");
                pause = REFUSED_AGAIN;
            }
        }
        if cluster.closing.run_until_cancelled(sleep(pause)).await.is_none() {
            break;
        }
    }
}

/// Tells, for as long as this process leads, what resources say of themselves.
async fn count_resources(cluster: Arc<Cluster>, metrics: Metrics) {
    loop {
        metrics.resources(&cluster.cache.tally());
        if cluster.closing.run_until_cancelled(sleep(COUNT_EVERY)).await.is_none() {
            break;
        }
    }
    metrics.resources(&Tally::default());
}

async fn report(cluster: &Cluster, object: &ObjectRef, why: String) -> Result<(), EffectError> {
    let Some(known) = cluster.cache.get(&cluster::key(object)) else { return Ok(()) };
    let message = format!("this version of the operator can't read it: {why}; upgrade the operator, or mend the resource");
    let outcome = Outcome::Stalled(vec![Problem::new(Reason::InvalidSpec, "spec", message)]);
    let status = known.get("status").cloned().unwrap_or_else(|| serde_json::json!({}));
    let generation = known.pointer("/metadata/generation").and_then(serde_json::Value::as_i64);
    let uid = known.pointer("/metadata/uid").and_then(serde_json::Value::as_str).unwrap_or_default();
    cluster.set_status(object, uid, with_conditions(status, generation, &outcome)).await
}

/// Who is looked at when, in one term.
struct Turns {
    cluster: Arc<Cluster>,
    tenancies: Arc<Tenancies>,
    schedule: Schedule<String>,
    jobs: Jobs,
    /// Namespaces that this leader has not passed over yet.
    fresh: BTreeSet<String>,
}

impl Turns {
    fn touch(&mut self, namespaces: BTreeSet<String>) {
        for namespace in namespaces {
            if self.cluster.cache.is_tenancy(&namespace) {
                self.schedule.touch(namespace, Instant::now());
            } else {
                self.schedule.remove(&namespace);
            }
        }
    }

    fn finish(&mut self, namespace: &str, turn: Turn) {
        let key = namespace.to_owned();
        let now = Instant::now();
        self.schedule.finish(&key, turn, now, jitter());
        if self.fresh.remove(namespace) && self.cluster.config.platform.has_kafka() {
            self.schedule.no_later_than(&key, now + SECOND_PASS_AFTER);
        }
    }
}
