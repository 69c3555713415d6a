//! The driver with a runtime of wood: what it asks for, and in which order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use acb_crds::{
    names::TenantName,
    schema::{Kind, ObjectRef},
};
use async_trait::async_trait;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    deletion::Ending,
    news::News,
    runtime::{Database, Runtime},
    schedule::Turn,
    tenancies::Tenancies,
};
use crate::{
    condition::Outcome,
    effect::{EffectError, kafka::KafkaEffect, kubernetes::Objects},
    platform::{Platform, PlatformPostgres},
    runtime::standalone::{objects::ObjectStore, state::StateDir},
    tenancy::Tenancy,
    tenant::validate::ValidatedTenant,
};

/// PostgreSQL is down, and everything else is written down.
struct Wood {
    _folder: tempfile::TempDir,
    platform: Platform,
    store: ObjectStore,
    tenancy: Tenancy,
    log: Mutex<Vec<String>>,
    /// Whose status can't be written.
    stuck: Option<ObjectRef>,
}

impl Wood {
    fn new(tenancy: Tenancy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = ObjectStore::open(&StateDir::open(folder.path()).unwrap()).unwrap();
        let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
        Self { _folder: folder, platform: Platform::new(postgres), store, tenancy, log: Mutex::default(), stuck: None }
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap().push(line);
    }

    async fn reconcile(self) -> (Turn, Vec<String>) {
        let wood = Arc::new(self);
        let turn = Tenancies { runtime: Arc::clone(&wood) as _ }.reconcile("acb-acme").await;
        let log = wood.log.lock().unwrap().clone();
        (turn, log)
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
        Err(EffectError::unavailable("PostgreSQL", "down"))
    }

    fn kafka(&self) -> Result<Option<KafkaEffect>, EffectError> {
        Ok(None)
    }

    fn may_act(&self) -> Result<(), EffectError> {
        Ok(())
    }

    async fn hold(&self, object: &ObjectRef) -> Result<(), EffectError> {
        self.note(format!("hold {object}"));
        Ok(())
    }

    async fn let_go(&self, object: &ObjectRef, ending: &Ending) -> Result<(), EffectError> {
        self.note(format!("let go {object}: {ending:?}"));
        Ok(())
    }

    async fn set_status(&self, object: &ObjectRef, status: Value) -> Result<(), EffectError> {
        if self.stuck.as_ref() == Some(object) {
            return Err(EffectError::unavailable("the API", "conflict"));
        }
        self.note(format!("status {object}: {}", status.pointer("/conditions/0/reason").and_then(Value::as_str).unwrap()));
        Ok(())
    }

    async fn tell(&self, object: &ObjectRef, news: News) {
        self.note(format!("{} {object}: {}", if news.warning { "warn" } else { "tell" }, news.reason));
    }

    fn is_refused(&self, _: &ObjectRef) -> bool {
        false
    }

    fn hub(&self, _: &ValidatedTenant) -> Outcome {
        Outcome::Ready
    }

    fn is_rolled_out(&self, _: &TenantName) -> bool {
        true
    }

    fn endpoints(&self, _: &TenantName) -> Vec<String> {
        Vec::new()
    }

    fn deletion_bound(&self) -> Option<Duration> {
        Some(Duration::from_secs(300))
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
        tenants: vec![serde_json::from_value(value("Tenant", meta("acme", tenant_deleted), json!({"tier": "Free"}))).unwrap()],
        agents: vec![serde_json::from_value(value("Agent", agent, json!({"role": "agent-full"}))).unwrap()],
        quotas: Vec::new(),
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

#[tokio::test]
async fn a_deletion_goes_on_until_the_bound() {
    let (turn, log) = Wood::new(acme(Some(290), Some(10))).reconcile().await;
    assert_eq!(turn, Turn::Failed);
    assert!(log.iter().all(|line| !line.starts_with("let go") && !line.starts_with("hold")), "{log:?}");
}

#[tokio::test]
async fn a_deletion_ends_at_the_bound_and_says_what_is_left_behind() {
    let (turn, log) = Wood::new(acme(Some(301), Some(301))).reconcile().await;
    assert_eq!(turn, Turn::Settled);
    for object in ["Tenant acme", "Agent acb-acme/a"] {
        let told = log.iter().position(|line| *line == format!("warn {object}: LeftBehind"));
        let gone = log.iter().position(|line| {
            line.starts_with(&format!("let go {object}")) && line.contains("LeftBehind(\"PostgreSQL is unavailable: down\")")
        });
        assert!(told.unwrap() < gone.unwrap(), "{log:?}");
    }
    assert!(
        log.iter().position(|line| line.starts_with("let go Agent"))
            < log.iter().position(|line| line.starts_with("let go Tenant"))
    );
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
        agent.metadata.name = Some(format!("a{number}"));
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
