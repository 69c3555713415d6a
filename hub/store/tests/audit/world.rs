//! A tenant with a log of audit records, and sinks that build its tree.

use std::{sync::Arc, time::Duration};

use acb_hub_bus::PostgresBus;
use acb_hub_core::{
    audit::{
        ports::{AuditFilter, AuditStore as _, KeptRecord},
        reading::AuditTrail,
        record::{AuditRecord, Phase},
        sink::{Sink, SinkTimes},
        witness::{Witness, Witnessing},
    },
    kit::supervisor::Supervisor,
    log::bus::{Bus, Record, TopicName},
    metrics::Metrics,
};
use acb_hub_store::PgStore;
use acb_testbed::{Postgres, TestTenant};
use acb_tlog::{
    checkpoint::Checkpoint,
    note::Signing,
    tree::{Tree, leaf_hash},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use uuid::Uuid;

pub(crate) struct World {
    pub(crate) tenant: TestTenant,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Arc<PgStore>,
    pub(crate) trail: AuditTrail,
    pub(crate) topic: TopicName,
    pub(crate) metrics: Arc<Metrics>,
}

/// Ends a sink when it is dropped.
pub(crate) struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) fn signing() -> Signing {
    // The second half of the key's PKCS#8 form is what makes it: 32 bytes.
    let pem = format!("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAEB{}\n-----END PRIVATE KEY-----\n", "AQEB".repeat(10));
    Signing::new("acb.dev/audit/test", acb_hub_core::door::keyring::signing_key("audit.key", &pem).unwrap()).unwrap()
}

pub(crate) const TIMES: SinkTimes = SinkTimes {
    hold_every: Duration::from_millis(50),
    hold_for: Duration::from_millis(500),
    sign_every: Duration::from_millis(100),
    cut_after: Duration::from_millis(300),
    forget_every: Duration::from_millis(100),
};

impl World {
    pub(crate) async fn new() -> Self {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let store = Arc::new(PgStore::new(tenant.connect_options()));
        let bus = PostgresBus::connect(tenant.id_bytes().try_into().unwrap(), store.pool().clone(), &Supervisor::default());
        let topic = TopicName::system(tenant.name(), "audit");
        let trail = AuditTrail::new(store.clone());
        let world = Self { bus: Arc::new(bus), trail, store, topic, metrics: Arc::new(Metrics::new(tenant.name())), tenant };
        // Of making the tenant: tests count what comes after it.
        world.sql("DELETE FROM acb.operator_act WHERE tenant_id = $1").await;
        world
    }

    /// A replica that may build the tree.
    pub(crate) fn sink(&self, replica: &str) -> Running {
        self.sink_on(self.bus.clone(), replica)
    }

    /// The same, by this bus.
    pub(crate) fn sink_on(&self, bus: Arc<dyn Bus>, replica: &str) -> Running {
        Running(tokio::spawn(self.unstarted(bus, replica).run()))
    }

    /// The same, which shows its checkpoints to this witness.
    pub(crate) fn witnessed_sink(&self, witness: Arc<dyn Witness>) -> [Running; 2] {
        let sink = self.unstarted(self.bus.clone(), "hub-0");
        let again = Duration::from_millis(50);
        let witnessing = Witnessing::new(self.trail.clone(), witness, self.metrics.audit(), again).run(sink.checkpoints());
        [Running(tokio::spawn(witnessing)), Running(tokio::spawn(sink.run()))]
    }

    fn unstarted(&self, bus: Arc<dyn Bus>, replica: &str) -> Sink {
        let key = Arc::new(|| Some(signing()));
        let metrics = self.metrics.audit();
        Sink::new(bus, self.store.clone(), key, (self.tenant.name(), replica), metrics, TIMES)
    }

    /// Logs so many records, the first with this number.
    pub(crate) async fn log(&self, numbers: std::ops::Range<u64>) {
        for number in numbers {
            let record = Record { key: None, headers: Vec::new(), value: Some(record(number).encode()) };
            self.bus.append(&self.topic, 0, record).await.unwrap().await.unwrap();
        }
    }

    pub(crate) async fn kept(&self) -> Vec<KeptRecord> {
        self.store.records(&AuditFilter::default(), 0, 10_000).await.unwrap()
    }

    /// Waits until the tree has so many records.
    pub(crate) async fn grown(&self, size: u64) -> Vec<KeptRecord> {
        self.until(|| async { self.kept().await.len() as u64 >= size }).await;
        let kept = self.kept().await;
        assert_eq!(kept.len() as u64, size, "{kept:?}");
        kept
    }

    /// Waits until the tree of this size is signed.
    pub(crate) async fn signed(&self, size: u64) -> Checkpoint {
        self.until(|| async { self.store.checkpoint().await.unwrap().is_some_and(|signed| signed.size >= size) }).await;
        let note = self.store.checkpoint().await.unwrap().unwrap().note;
        Checkpoint::open(&note, &[signing().verifier().clone()]).unwrap()
    }

    /// A sink that has three records in its tree, and has signed them.
    pub(crate) async fn with_three_signed(&self) -> Running {
        let sink = self.sink("hub-0");
        self.log(0..3).await;
        self.grown(3).await;
        self.signed(3).await;
        sink
    }

    /// Waits until the log ends with the checkpoint of this size: how many there are before it depends on how fast the tree grew. The log's end.
    pub(crate) async fn ends_signed(&self, size: u64) -> u64 {
        self.until(|| async { self.last_checkpoint().await == Some(size) }).await;
        self.bus.bounds(&self.topic).await.unwrap()[0].next
    }

    /// What the last record of the log is a checkpoint of, where it is one.
    async fn last_checkpoint(&self) -> Option<u64> {
        let next = self.bus.bounds(&self.topic).await.unwrap()[0].next;
        let last = self.bus.read(&self.topic, 0, next.checked_sub(1)?, 1).await.unwrap().into_iter().next()?;
        let note = String::from_utf8(last.record.value?.to_vec()).ok()?;
        Checkpoint::open(&note, &[signing().verifier().clone()]).ok().map(|checkpoint| checkpoint.size)
    }

    pub(crate) async fn until<F: Future<Output = bool>>(&self, wanted: impl Fn() -> F) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !wanted().await {
            assert!(Instant::now() < deadline, "{:?}", self.kept().await);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// As who owns the tables.
    pub(crate) async fn sql(&self, sql: &'static str) -> u64 {
        let mut superuser: PgConnection = Postgres::shared().await.superuser().await;
        sqlx::query("SET session_replication_role = replica").execute(&mut superuser).await.unwrap();
        sqlx::query(sql).bind(self.tenant.id_bytes()).execute(&mut superuser).await.unwrap().rows_affected()
    }
}

pub(crate) fn record(number: u64) -> AuditRecord {
    AuditRecord {
        call: Uuid::from_u128(number.into()),
        phase: Phase::Outcome,
        at: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(number),
        replica: "hub-0".to_owned(),
        operation: if number.is_multiple_of(2) { "GetContext" } else { "ListContexts" }.to_owned(),
        agent_id: None,
        agent: if number.is_multiple_of(3) { "alice" } else { "bob" }.to_owned(),
        key: String::new(),
        object: format!("number {number}"),
        version: 0,
        bytes: 0,
        source: String::new(),
        outcome: "done".to_owned(),
        reason: String::new(),
        correlation_id: String::new(),
        count: 0,
        change: String::new(),
    }
}

/// What the records say that they are about.
pub(crate) fn objects(kept: &[KeptRecord]) -> Vec<String> {
    kept.iter().map(|kept| AuditRecord::decode(&kept.record).unwrap().object).collect()
}

/// The root over records.
pub(crate) fn root(kept: &[KeptRecord]) -> [u8; 32] {
    let mut tree = Tree::default();
    for kept in kept {
        assert_eq!((kept.number, kept.leaf), (tree.size(), Some(leaf_hash(&kept.record))));
        tree.push(leaf_hash(&kept.record));
    }
    tree.root()
}
