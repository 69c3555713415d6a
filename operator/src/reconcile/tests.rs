//! The driver with a runtime of wood: what it asks for, and in which order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod stores;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use acb_crds::{
    names::{TenantName, annotations::FORCE_RELEASE},
    schema::{Kind, ObjectRef},
    tenant::{DeletionPolicy, Endpoint},
};
use async_trait::async_trait;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    deletion::Ending,
    jobs::Jobs,
    news::News,
    runtime::{Database, Runtime},
    schedule::{Schedule, Turn, Waits},
    tenancies::Tenancies,
};
use crate::{
    bootstrap::LeaderEpoch,
    effect::{
        EffectError,
        kafka::KafkaEffect,
        kubernetes::{ObjectKey, Objects},
        postgres::PostgresEffect,
    },
    observed::ObservedHub,
    platform::{Platform, PlatformBus, PlatformPostgres},
    runtime::standalone::{objects::ObjectStore, state::StateDir},
    tenancy::{Tenancy, Unreadable},
    tenant::{
        fetch::{Hubs, PostgresReader},
        validate::ValidatedTenant,
    },
};

/// Something in a reconcile that no reconcile expects.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Hangs,
    Panics,
}

/// PostgreSQL is down, unless there is one, and everything else is written down.
struct Wood {
    _folder: tempfile::TempDir,
    platform: Platform,
    store: ObjectStore,
    tenancy: Tenancy,
    log: Mutex<Vec<String>>,
    statuses: Mutex<Vec<String>>,
    /// Whose status can't be written.
    stuck: Option<ObjectRef>,
    bound: Duration,
    database: Option<Database>,
    kafka: Option<KafkaEffect>,
    kafka_is_away: bool,
    /// How often Kafka was asked for.
    kafka_reads: AtomicUsize,
    /// The API server refuses our finalizer.
    is_unheld: bool,
    /// What becomes of a request for a finalizer.
    fault: Option<Fault>,
    hub: ObservedHub,
}

impl Wood {
    fn new(tenancy: Tenancy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
        let mut platform = Platform::new(postgres);
        platform.bus = PlatformBus::Kafka { bootstrap_servers: "kafka:9092".into(), tls: false };
        Self {
            _folder: folder,
            platform,
            store,
            tenancy,
            log: Mutex::default(),
            statuses: Mutex::default(),
            stuck: None,
            bound: Duration::ZERO,
            database: None,
            kafka: None,
            kafka_is_away: false,
            kafka_reads: AtomicUsize::new(0),
            is_unheld: false,
            fault: None,
            hub: ObservedHub { replicas: 1, ready: 1, rolled_out: true, ..ObservedHub::default() },
        }
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    async fn reconcile(self) -> (Turn, Vec<String>) {
        let wood = Arc::new(self);
        let turn = Tenancies::new(Arc::clone(&wood) as _).reconcile("acb-acme").await;
        let log = wood.log.lock().unwrap().clone();
        (turn, log)
    }

    /// What one leader does in so many passes.
    async fn reconciles(self, times: usize) -> Vec<String> {
        let wood = Arc::new(self);
        let tenancies = Tenancies::new(Arc::clone(&wood) as _);
        for _ in 0..times {
            tenancies.reconcile("acb-acme").await;
        }
        wood.log.lock().unwrap().clone()
    }
}

impl Hubs for Wood {
    fn is_rolled_out(&self, _: &TenantName) -> bool {
        true
    }
}

#[async_trait]
impl Runtime for Wood {
    fn platform(&self) -> &Platform {
        &self.platform
    }

    fn tenancy(&self, _: &str) -> Result<Tenancy, EffectError> {
        Ok(self.tenancy.clone())
    }

    fn objects(&self) -> &dyn Objects {
        &self.store
    }

    async fn database(&self) -> Result<Database, EffectError> {
        self.database.clone().ok_or_else(|| EffectError::unavailable("PostgreSQL", "down"))
    }

    fn kafka(&self) -> Result<Option<KafkaEffect>, EffectError> {
        self.kafka_reads.fetch_add(1, Ordering::Relaxed);
        if self.kafka_is_away {
            return Err(EffectError::unavailable("Kafka", "down"));
        }
        Ok(self.kafka.clone())
    }

    fn may_act(&self) -> Result<(), EffectError> {
        Ok(())
    }

    async fn hold(&self, object: &ObjectRef, _: &str) -> Result<(), EffectError> {
        match self.fault {
            Some(Fault::Hangs) => std::future::pending::<()>().await,
            Some(Fault::Panics) => panic!("on purpose"),
            None => {}
        }
        if self.is_unheld {
            return Err(EffectError::refused("the API", "a policy denies it"));
        }
        self.note(format!("hold {object}"));
        Ok(())
    }

    async fn let_go(&self, object: &ObjectRef, _: &str, ending: &Ending) -> Result<(), EffectError> {
        self.note(format!("let go {object}: {ending:?}"));
        Ok(())
    }

    async fn set_status(&self, object: &ObjectRef, uid: &str, status: Value) -> Result<(), EffectError> {
        assert_eq!(uid, format!("uid-{}", object.name));
        if self.stuck.as_ref() == Some(object) {
            return Err(EffectError::unavailable("the API", "conflict"));
        }
        self.statuses.lock().unwrap().push(status.to_string());
        self.note(format!("status {object}: {}", status.pointer("/conditions/0/reason").and_then(Value::as_str).unwrap()));
        Ok(())
    }

    async fn tell(&self, object: &ObjectRef, news: News) {
        self.note(format!("{} {object}: {}", if news.warning { "warn" } else { "tell" }, news.reason));
    }

    fn is_refused(&self, _: &ObjectRef) -> bool {
        false
    }

    fn hub(&self, _: &ValidatedTenant) -> ObservedHub {
        self.hub.clone()
    }

    fn endpoints(&self, _: &ValidatedTenant) -> Vec<Endpoint> {
        Vec::new()
    }

    fn wake(&self, namespaces: BTreeSet<String>) {
        namespaces.into_iter().for_each(|namespace| self.note(format!("wake {namespace}")));
    }

    fn deletion_bound(&self) -> Option<Duration> {
        Some(self.bound)
    }
}

/// A tenant and an agent, deleted so many seconds ago.
fn acme(tenant_deleted: Option<i64>, agent_deleted: Option<i64>) -> Tenancy {
    let meta = |name: &str, deleted: Option<i64>| {
        let mut meta = json!({"name": name, "uid": format!("uid-{name}"), "generation": 1});
        if let Some(seconds) = deleted {
            let at = OffsetDateTime::now_utc() - time::Duration::seconds(seconds);
            meta["deletionTimestamp"] = json!(at.format(&time::format_description::well_known::Rfc3339).unwrap());
        }
        meta
    };
    let mut agent = meta("a", agent_deleted);
    agent["namespace"] = json!("acb-acme");
    let value = |kind: &str, metadata: Value, spec: Value| json!({"apiVersion": acb_crds::API_VERSION, "kind": kind, "metadata": metadata, "spec": spec});
    Tenancy {
        tenants: vec![serde_json::from_value(value("Tenant", meta("acme", tenant_deleted), json!({"tier": "Free"}))).unwrap()]
            .into(),
        agents: vec![serde_json::from_value(value("Agent", agent, json!({"role": "AgentFull"}))).unwrap()],
        quotas: Vec::new(),
        unreadable: Vec::new(),
    }
}

#[tokio::test]
async fn a_resource_is_held_before_anything_is_tried_and_says_what_is_down() {
    let (turn, log) = Wood::new(acme(None, None)).reconcile().await;
    assert_eq!(turn, Turn::Failed);
    let expected = [
        "hold Tenant acme",
        "status Tenant acme: Retrying",
        "warn Tenant acme: Retrying",
        "hold Agent acb-acme/a",
        "status Agent acb-acme/a: Retrying",
        "warn Agent acb-acme/a: Retrying",
    ];
    assert_eq!(log, expected);
}

#[tokio::test(start_paused = true)]
async fn a_reconcile_that_does_not_end_is_broken_off() {
    let begun = tokio::time::Instant::now();
    let wood = Wood { fault: Some(Fault::Hangs), ..Wood::new(acme(None, None)) };
    let (turn, log) = tokio::time::timeout(Duration::from_secs(3600), wood.reconcile()).await.expect("it has a bound");
    assert_eq!((turn, log), (Turn::Failed, Vec::new()));
    assert!(begun.elapsed() >= Duration::from_secs(120), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_reconcile_that_panics_costs_no_other_its_turn() {
    let wait = Duration::from_secs(60);
    let (mut schedule, mut jobs) = (Schedule::new(1, Waits { resync: wait, waiting: wait }), Jobs::default());
    let wood = Wood { fault: Some(Fault::Panics), ..Wood::new(acme(None, None)) };
    let tenancies = Arc::new(Tenancies::new(Arc::new(wood) as _));
    for namespace in ["acb-acme", "acb-globex"] {
        schedule.touch(namespace.to_owned(), Instant::now());
    }
    for namespace in ["acb-acme", "acb-globex"] {
        jobs.start(&mut schedule, &tenancies);
        let ended = jobs.next().await.unwrap();
        schedule.finish(&ended.namespace, ended.turn, Instant::now(), 0.5);
        assert_eq!(ended.namespace, namespace, "each has its turn");
    }
    assert!(schedule.next_due().is_some(), "and is tried again");
}

fn is_let_go(log: &[String], object: &str) -> bool {
    log.iter().any(|line| line.starts_with(&format!("let go {object}")))
}

#[tokio::test]
async fn one_failure_is_no_bound_however_late_it_comes() {
    // The operator was away for longer than that, or came back to a database that says no once, or to a conflict.
    let log = Wood::new(acme(Some(400), Some(400))).reconciles(1).await;
    assert!(log.iter().all(|line| !line.starts_with("let go") && !line.starts_with("hold")), "{log:?}");
    let wood = Wood { bound: Duration::from_secs(300), ..Wood::new(acme(Some(400), Some(400))) };
    let log = wood.reconciles(20).await;
    assert!(!is_let_go(&log, "Tenant acme") && !is_let_go(&log, "Agent"), "many in a moment are none either: {log:?}");
}

#[tokio::test]
async fn a_deletion_ends_at_the_bound_and_says_what_is_left_behind() {
    let log = Wood::new(acme(Some(301), Some(301))).reconciles(5).await;
    for object in ["Tenant acme", "Agent acb-acme/a"] {
        let told = log.iter().position(|line| *line == format!("warn {object}: LeftBehind"));
        let gone = log.iter().position(|line| {
            line.starts_with(&format!("let go {object}"))
                && line.contains("LeftBehind(")
                && line.contains("PostgreSQL is unavailable")
        });
        assert!(gone.unwrap() < told.unwrap(), "told when it is so: {log:?}");
    }
    assert!(
        log.iter().position(|line| line.starts_with("let go Agent"))
            < log.iter().position(|line| line.starts_with("let go Tenant"))
    );
}

#[tokio::test]
async fn who_wants_the_data_gone_is_not_told_so_until_it_is() {
    let mut tenancy = acme(Some(400), None);
    tenancy.tenants[0].spec.deletion_policy = Some(DeletionPolicy::Delete);
    let log = Wood::new(tenancy.clone()).reconciles(20).await;
    assert!(!is_let_go(&log, "Tenant acme"), "{log:?}");
    for (said, goes) in [("true", false), ("acme", true)] {
        tenancy.tenants[0].metadata.annotations = Some([(FORCE_RELEASE.to_owned(), said.to_owned())].into());
        let log = Wood::new(tenancy.clone()).reconciles(1).await;
        assert_eq!(is_let_go(&log, "Tenant acme"), goes, "{log:?}");
    }
}

#[tokio::test]
async fn an_agent_whose_tenant_is_gone_is_not_said_to_have_left_nothing() {
    let mut tenancy = acme(None, Some(1));
    tenancy.tenants = Vec::new().into();
    // Nobody is asked there: without a tenant there is nothing to look for.
    let nowhere = sqlx::postgres::PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(1);
    let reader = PostgresReader::lazy(nowhere.clone(), nowhere);
    let folder = tempfile::tempdir().unwrap();
    let secrets = ObjectStore::open(&StateDir::open(folder.path()).unwrap()).unwrap();
    let effect = PostgresEffect::new(reader.pool.clone(), LeaderEpoch(1), Arc::new(secrets));
    let wood = Wood { database: Some(Database { reader, effect }), ..Wood::new(tenancy) };
    let (_, log) = wood.reconcile().await;
    assert_eq!(log, ["let go Agent acb-acme/a: WithItsTenant", "tell Agent acb-acme/a: Released"]);
}

/// The objects of a hub, as they are while it runs.
async fn running(wood: &Wood) -> ObjectKey {
    let labels = json!({"acb.dev/tenant": "acme", "acb.dev/tenant-uid": "uid-acme"});
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "acbhub-acme", "labels": labels}});
    let hub = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hub", "namespace": "acbhub-acme"}, "spec": {}});
    for object in [&space, &hub] {
        wood.store.apply(object).await.unwrap();
    }
    ObjectKey::of(&hub).unwrap()
}

#[tokio::test]
async fn a_hub_goes_at_once_although_both_stores_are_away() {
    let wood = Wood { kafka_is_away: true, ..Wood::new(acme(Some(1), None)) };
    let (hub, wood) = (running(&wood).await, Arc::new(wood));
    let turn = Tenancies::new(Arc::clone(&wood) as _).reconcile("acb-acme").await;
    assert_eq!(turn, Turn::Failed);
    assert!(wood.store.get(&hub).await.unwrap().is_none(), "{:?}", wood.log.lock().unwrap());
    let said = wood.statuses.lock().unwrap().join("\n");
    for part in [
        "the login in PostgreSQL: PostgreSQL is unavailable",
        "the user in Kafka: Kafka is unavailable",
        "after that: the namespaces",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

/// Whoever mends the file of its password waits for the next look, and no look reads it at each step.
#[tokio::test]
async fn kafkas_password_is_read_once_for_a_look() {
    for deleted in [None, Some(1)] {
        let mut tenancy = acme(deleted, None);
        tenancy.tenants[0].spec.deletion_policy = Some(DeletionPolicy::Delete);
        let wood = Arc::new(Wood::new(tenancy));
        let tenancies = Tenancies::new(Arc::clone(&wood) as _);
        for looks in 1..3 {
            tenancies.reconcile("acb-acme").await;
            assert_eq!(wood.kafka_reads.load(Ordering::Relaxed), looks, "deleted: {deleted:?}");
        }
    }
}

#[tokio::test]
async fn a_finalizer_that_can_not_be_set_is_said() {
    let log = Wood { is_unheld: true, ..Wood::new(acme(None, None)) }.reconciles(1).await;
    for object in ["Tenant acme", "Agent acb-acme/a"] {
        assert!(log.contains(&format!("status {object}: Refused")), "{log:?}");
    }
}

#[tokio::test]
async fn who_else_holds_what_is_gone_is_named() {
    let mut tenancy = acme(None, Some(301));
    tenancy.agents[0].metadata.finalizers = Some(vec!["acb.dev/cleanup".into(), "else.where/x".into()]);
    let wood = Arc::new(Wood::new(tenancy));
    let tenancies = Tenancies::new(Arc::clone(&wood) as _);
    for _ in 0..5 {
        tenancies.reconcile("acb-acme").await;
    }
    let log = wood.log.lock().unwrap().clone();
    let gone = log.iter().position(|line| line.starts_with("let go Agent")).unwrap();
    assert!(log[gone..].contains(&"status Agent acb-acme/a: Deleting".to_owned()), "{log:?}");
    let said = wood.statuses.lock().unwrap().iter().any(|said| said.contains("because of the finalizer else.where/x"));
    assert!(said, "{:?}", wood.statuses.lock().unwrap());
}

#[tokio::test]
async fn what_belongs_to_a_tenant_that_can_not_be_read_is_left_alone() {
    let mut tenancy = acme(None, Some(400));
    let metadata = tenancy.tenants.remove(0).metadata;
    tenancy.unreadable = vec![Unreadable { space: Some("acb-acme".into()), ..Unreadable::new(Kind::Tenant, metadata) }];
    let log = Wood::new(tenancy).reconciles(10).await;
    assert_eq!(log, Vec::<String>::new());
}

#[tokio::test]
async fn one_whose_status_can_not_be_written_holds_up_nobody() {
    let stuck = ObjectRef { kind: Kind::Tenant, namespace: String::new(), name: "acme".into() };
    let (turn, log) = Wood { stuck: Some(stuck), ..Wood::new(acme(None, None)) }.reconcile().await;
    assert_eq!(turn, Turn::Failed);
    assert!(log.contains(&"status Agent acb-acme/a: Retrying".to_owned()), "{log:?}");
}

#[tokio::test]
async fn others_have_a_turn_between_two_agents() {
    let mut tenancy = acme(None, None);
    let first = tenancy.agents[0].clone();
    tenancy.agents.extend((1..50).map(|number| {
        let mut agent = first.clone();
        (agent.metadata.name, agent.metadata.uid) = (Some(format!("a{number}")), Some(format!("uid-a{number}")));
        agent
    }));
    let turns = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&turns);
    tokio::spawn(async move {
        loop {
            counting.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    Wood::new(tenancy).reconcile().await;
    assert!(turns.load(Ordering::Relaxed) >= 50, "{turns:?}");
}

/// A tenancy whose status says that it was provisioned.
fn provisioned() -> Tenancy {
    let mut tenancy = acme(None, None);
    let said = json!([
        {"type": "Ready", "status": "True", "reason": "Provisioned", "message": "provisioned", "observedGeneration": 1,
         "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Synced", "status": "True", "reason": "Applied", "message": "", "observedGeneration": 1,
         "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]);
    let status = json!({"observedGeneration": 1, "conditions": said});
    tenancy.tenants[0].status = Some(serde_json::from_value(status.clone()).unwrap());
    tenancy.agents[0].status = Some(serde_json::from_value(status).unwrap());
    tenancy
}

/// Type, status and reason of the conditions that were written last, by the object's place in the order of writing.
async fn said(wood: Wood) -> Vec<Vec<String>> {
    let wood = Arc::new(wood);
    Tenancies::new(Arc::clone(&wood) as _).reconcile("acb-acme").await;
    let statuses = wood.statuses.lock().unwrap().clone();
    let of = |status: &String| {
        let status: Value = serde_json::from_str(status).unwrap();
        let text = |condition: &Value, field: &str| condition[field].as_str().unwrap().to_owned();
        let conditions = status["conditions"].as_array().unwrap().iter();
        conditions.map(|found| ["type", "status", "reason"].map(|field| text(found, field)).join(" ")).collect()
    };
    statuses.iter().map(of).collect()
}

#[tokio::test]
async fn a_store_that_is_away_for_the_operator_alone_leaves_ready_what_works() {
    let expected = ["Ready True Provisioned", "Synced False Retrying"];
    assert_eq!(said(Wood::new(provisioned())).await, [expected, expected]);
    // A spec that is not applied yet is.
    let mut edited = provisioned();
    edited.tenants[0].metadata.generation = Some(2);
    edited.agents[0].metadata.generation = Some(2);
    let expected = ["Ready False Retrying", "Synced False Retrying", "Reconciling True Retrying"];
    assert_eq!(said(Wood::new(edited)).await, [expected, expected]);
    // And a hub that is down is none that works.
    let down = ObservedHub { replicas: 1, rolling: false, lacks: "0 of 1".into(), ..ObservedHub::default() };
    let wood = Wood { hub: down, ..Wood::new(provisioned()) };
    let expected = ["Ready False HubUnavailable", "Synced False Retrying", "Degraded True HubUnavailable"];
    assert_eq!(said(wood).await[0], expected);
}

#[tokio::test]
async fn a_hub_rolls_for_the_platforms_sake_once_everybody_was_looked_at() {
    let mut tenancy = acme(None, None);
    tenancy.agents.clear();
    let mut other = tenancy.tenants[0].clone();
    (other.metadata.name, other.metadata.uid) = (Some("globex".into()), Some("uid-globex".into()));
    tenancy.tenants.push(other);
    let wood = Wood { kafka_is_away: true, ..Wood::new(tenancy) };
    let (hub, wood) = (running(&wood).await, Arc::new(wood));
    let tenancies = Tenancies::new(Arc::clone(&wood) as _);
    tenancies.reconcile("acb-acme").await;
    let said = wood.statuses.lock().unwrap().join("\n");
    assert!(said.contains("RolloutPending") && said.contains("1 tenants are looked at first"), "{said}");
    let spec = async || wood.store.get(&hub).await.unwrap().unwrap()["spec"].clone();
    assert_eq!(spec().await, json!({}), "it is as it was");
    tenancies.reconcile("acb-globex").await;
    assert!(wood.log.lock().unwrap().contains(&"wake acb-acme".to_owned()));
    tenancies.reconcile("acb-acme").await;
    assert!(!wood.statuses.lock().unwrap().last().unwrap().contains("RolloutPending"));
    assert_ne!(spec().await, json!({}));
}
