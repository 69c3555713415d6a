//! A tenant with two replicas of the context service.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use acb_hub_bus::PostgresBus;
use acb_hub_core::{
    contexts::{
        audience::{Access, Scope},
        catalog::{Contexts, NewContext},
        context::{Context, Description},
        outbox::ContextChanges,
        parts::{ContextConfig, ContextStores},
        subscription::{Notice, Subscription},
        upload::Uploads,
    },
    directory::{
        agent::{Agent, AgentId},
        snapshot::{Directory, DirectoryStore as _},
    },
    fault::Fault,
    kit::supervisor::Supervisor,
    log::{
        bus::Bus,
        outbox::{
            noun::Noun,
            relay::{Committed, Relay},
        },
    },
    metrics::contexts::ContextMetrics,
};
use acb_hub_store::{PgStore, contexts::context::PgContexts, log::outbox::PgOutbox};
use acb_testbed::{AgentRow, Postgres, TestTenant};
use tokio_util::sync::DropGuard;

/// Longer than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) tenant: TestTenant,
    /// How often a relay looks for what another replica left behind.
    pub(crate) relay_poll: Duration,
}

pub(crate) struct Replica {
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) uploads: Uploads,
    pub(crate) outbox: Arc<PgOutbox>,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) directory: Directory,
    pub(crate) store: PgStore,
    _stop: DropGuard,
}

impl World {
    /// With context type `notes`, of two partitions.
    pub(crate) async fn new() -> Self {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        tenant.context_type("notes", 2).await;
        Self::of(tenant)
    }

    /// Of this tenant.
    pub(crate) fn of(tenant: TestTenant) -> Self {
        Self { tenant, relay_poll: Duration::from_millis(200) }
    }

    /// An agent that publishes and reads `notes`.
    pub(crate) async fn agent(&self, name: &str, groups: &[&str]) -> AgentId {
        self.agent_as(name, groups, "agent-full", &["notes"]).await
    }

    pub(crate) async fn agent_as(&self, name: &str, groups: &[&str], role: &str, subscribes: &[&str]) -> AgentId {
        let mut row = self.tenant.agent_row(name);
        row.groups = groups.iter().map(ToString::to_string).collect();
        row.role = role.to_owned();
        row.publishes = vec!["notes".to_owned()];
        row.subscribes = subscribes.iter().map(ToString::to_string).collect();
        AgentId(self.tenant.project(&row).await.id)
    }

    /// Changes what is projected of an agent.
    pub(crate) async fn change(&self, id: AgentId, name: &str, change: impl FnOnce(&mut AgentRow)) {
        let mut row = self.tenant.agent_row(name);
        row.id = id.0.to_string();
        row.publishes = vec!["notes".to_owned()];
        row.subscribes = vec!["notes".to_owned()];
        change(&mut row);
        self.tenant.project(&row).await;
    }

    pub(crate) async fn replica(&self) -> Replica {
        self.replica_with(ContextConfig::default(), true).await
    }

    /// `works`: relays, and deletes what has expired.
    pub(crate) async fn replica_with(&self, config: ContextConfig, works: bool) -> Replica {
        self.replica_on(config, works, |stores| stores).await
    }

    /// On stores that fail as the test wants.
    pub(crate) async fn replica_on(
        &self,
        config: ContextConfig,
        works: bool,
        change: impl FnOnce(ContextStores) -> ContextStores,
    ) -> Replica {
        let options = self.tenant.connect_options();
        let supervisor = Supervisor::default();
        let store = PgStore::new(options);
        let id = self.tenant.id_bytes().try_into().unwrap();
        let bus: Arc<dyn Bus> = Arc::new(PostgresBus::connect(id, store.pool().clone(), &supervisor));
        let directory = Directory::new(store.load().await.unwrap());
        let committed = Committed::default();
        let stores = change(PgContexts::new(&store).stores(committed.clone()));
        let outbox = Arc::new(PgOutbox::new(&store));
        let metrics = ContextMetrics::new(self.tenant.name());
        let name = self.tenant.name();
        let contexts = if works {
            let nouns: [Arc<dyn Noun>; 1] = [Arc::new(ContextChanges::new(name, directory.clone()))];
            let relay = Relay::new(bus.clone(), outbox.clone(), nouns, committed, self.relay_poll);
            supervisor.spawn("outbox.relay", relay.run(supervisor.stop().clone()));
            Contexts::start(bus.clone(), stores.clone(), directory.clone(), name, config, metrics.clone(), &supervisor)
        } else {
            Contexts::idle(bus.clone(), stores.clone(), directory.clone(), name, config, metrics.clone(), &supervisor)
        };
        let uploads = Uploads::new(&contexts, metrics);
        Replica { contexts, uploads, outbox, bus, directory, store, _stop: supervisor.stop().clone().drop_guard() }
    }
}

impl Replica {
    pub(crate) fn agent(&self, id: AgentId) -> Arc<Agent> {
        self.directory.snapshot().agent(id).unwrap().clone()
    }

    pub(crate) async fn refresh(&self) {
        self.directory.replace(self.store.load().await.unwrap());
    }

    pub(crate) async fn share(&self, creator: AgentId, payload: &str, access: Access) -> Context {
        self.contexts.create(&self.agent(creator), new(payload, access)).await.unwrap()
    }
}

pub(crate) fn describe(access: Access) -> Description {
    Description { kind: "notes".into(), metadata: BTreeMap::new(), content_type: "text/plain".into(), ttl: None, access }
}

pub(crate) fn new(payload: &str, access: Access) -> NewContext {
    NewContext { description: describe(access), payload: payload.to_owned().into(), idempotency_key: String::new() }
}

pub(crate) fn access(scope: Scope, groups: &[&str], agents: &[&str]) -> Access {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Access { scope, groups: owned(groups), agents: owned(agents) }
}

pub(crate) fn reason<T>(result: Result<T, Fault>) -> &'static str {
    result.map_or_else(|fault| fault.reason, |_| "fine")
}

/// The next notice, within the deadline.
pub(crate) async fn next(subscription: &mut Subscription) -> Result<Notice, Fault> {
    tokio::time::timeout(DEADLINE, subscription.next()).await.expect("a notice in time")
}

/// The next notice in short: what, which version, and the inline payload.
pub(crate) async fn brief(subscription: &mut Subscription) -> String {
    use acb_hub_core::contexts::context::Payload;
    match next(subscription).await.unwrap() {
        Notice::Subscribed { .. } => "subscribed".into(),
        Notice::Bookmark { .. } => "bookmark".into(),
        Notice::Left { version, .. } => format!("Left {version}"),
        Notice::Change { event, .. } => {
            let payload = match &event.context.payload {
                Payload::Inline(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Payload::Chunks(_) => "chunks".into(),
                Payload::Unread => "-".into(),
            };
            format!("{:?} {} {payload}", event.change, event.context.version)
        }
    }
}
