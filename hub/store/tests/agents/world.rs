//! A tenant with what proves its agents.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use acb_hub_bus::PostgresBus;
use acb_hub_core::{
    audit::journal::Journal,
    directory::{caller::Caller, presence::Registry, refresher::Refresher, snapshot::Directory, trail::Trail},
    door::{
        access_token::Tokens, admission::Door, authority::Authority, credentials::Credentials, keyring::Keyring,
        registration::Registrar, rules::Operation,
    },
    fault::Fault,
    kit::supervisor::Supervisor,
    log::bus::TopicName,
    metrics::Metrics,
};
use acb_hub_store::PgStore;
use acb_testbed::{Postgres, TestTenant};
use tokio::time::{Instant, sleep};
use tokio_util::sync::DropGuard;

/// Where those who log in are.
pub(crate) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) struct World {
    pub(crate) tenant: TestTenant,
    pub(crate) authority: Authority,
    pub(crate) door: Door,
    pub(crate) registry: Registry,
    pub(crate) credentials: Credentials,
    pub(crate) registrar: Registrar,
    _stop: DropGuard,
}

impl World {
    pub(crate) async fn new() -> Self {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let store = Arc::new(PgStore::new(tenant.connect_options()));
        let directory = Directory::default();
        let refresher = Arc::new(Refresher::new(directory.clone(), store.clone()));
        // 32 bytes of 1, in PKCS#8.
        let signing =
            format!("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAEB{}\n-----END PRIVATE KEY-----\n", "AQEB".repeat(10));
        let keyring = Keyring::new(&signing, tenant.pepper().to_vec(), vec![7; 32], &[]).unwrap();
        let tokens = Tokens::new(tenant.name(), tenant.id_hex(), keyring);
        let metrics = Arc::new(Metrics::new("acme"));
        let supervisor = Supervisor::default();
        let id = tenant.id_bytes().try_into().unwrap();
        let bus = Arc::new(PostgresBus::connect(id, store.pool().clone(), &supervisor));
        let (journal, queue) = Journal::new(bus.clone(), tenant.name(), "hub-0", metrics.audit());
        supervisor.spawn("audit.queue", queue.run());
        Self {
            authority: Authority::new(tokens.clone(), store.clone(), refresher.clone()),
            door: Door::new(tokens.clone(), refresher.clone(), metrics, journal),
            credentials: Credentials::new(directory.clone(), store.clone()),
            registry: Registry::new(directory, store.clone()),
            registrar: Registrar::new(tokens, refresher, store.clone(), bus, TopicName::system("acme", "control")),
            _stop: supervisor.stop().clone().drop_guard(),
            tenant,
        }
    }

    /// Until so many of the tenant's sessions wait for a lock.
    pub(crate) async fn waiting(&self, count: i64) {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'";
        let mut superuser = Postgres::shared().await.superuser().await;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let now: i64 = sqlx::query_scalar(waiting).bind(self.tenant.username()).fetch_one(&mut superuser).await.unwrap();
            if now == count {
                return;
            }
            assert!(Instant::now() < deadline, "{now} sessions wait for a lock instead of {count}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Who a token speaks for, by what PostgreSQL says now.
    pub(crate) async fn admit(&self, access_token: &str) -> Result<Caller, Fault> {
        self.admit_to(Operation::Session, access_token).await
    }

    /// The same, for this operation.
    pub(crate) async fn admit_to(&self, operation: Operation, access_token: &str) -> Result<Caller, Fault> {
        let header = format!("Bearer {access_token}");
        Ok(self.door.admit(operation.rule(), Some(&header), &Trail::default()).await?.unwrap())
    }
}

pub(crate) fn reason<T>(result: Result<T, Fault>) -> &'static str {
    result.map_or_else(|fault| fault.reason, |_| "fine")
}
