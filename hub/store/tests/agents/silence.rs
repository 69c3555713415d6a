//! A PostgreSQL that vanishes: its connections stay open, and nothing comes from them any more.

use std::time::Duration;

use acb_hub_core::{
    directory::{agent::AgentId, presence::PresenceStore as _},
    fault::Code,
};
use acb_hub_store::PgStore;
use acb_testbed::{Gate, Postgres, TestTenant};
use sqlx::PgConnection;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const PATIENCE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    tenant: TestTenant,
    gate: Gate,
    store: PgStore,
    superuser: PgConnection,
    agent: AgentId,
}

impl World {
    /// Every session of the store is in a query, when the server vanishes.
    async fn silent(patience: Duration) -> (Self, JoinSet<Result<(), acb_hub_core::fault::Fault>>) {
        let postgres = Postgres::shared().await;
        let tenant = postgres.fresh_tenant("acme").await;
        let agent = AgentId(tenant.agent("alice").await.id);
        let direct = tenant.connect_options();
        let gate = Gate::open(&format!("https://127.0.0.1:{}", direct.get_port())).await;
        let port = gate.endpoint().rsplit(':').next().unwrap().parse().unwrap();
        let store = PgStore::new(direct.host("127.0.0.1").port(port)).patient(patience);
        store.note(agent, true).await.unwrap();
        let mut world = Self { tenant, gate, store, superuser: postgres.superuser().await, agent };

        sqlx::raw_sql("BEGIN").execute(&mut world.superuser).await.unwrap();
        let lock = sqlx::query("SELECT FROM acb.presence WHERE agent_id = $1 FOR UPDATE").bind(agent.0);
        lock.execute(&mut world.superuser).await.unwrap();
        let mut calls = JoinSet::new();
        for _ in 0..4 {
            let store = world.store.clone();
            calls.spawn(async move { store.note(agent, true).await });
        }
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'";
        let all_wait = async {
            let mut look = postgres.superuser().await;
            loop {
                let count: i64 = sqlx::query_scalar(waiting).bind(world.tenant.username()).fetch_one(&mut look).await.unwrap();
                if count == 4 {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(DEADLINE, all_wait).await.unwrap();
        world.gate.narrow(0);
        (world, calls)
    }

    /// The server is there again, by another way; the old sessions stay silent.
    async fn works_by_another_way(&mut self) {
        sqlx::raw_sql("ROLLBACK").execute(&mut self.superuser).await.unwrap();
        self.store.pool().set_connect_options(self.tenant.connect_options());
        for _ in 0..8 {
            self.store.note(self.agent, false).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_where_postgresql_vanishes_and_the_next_goes_to_another_session() {
    let (mut world, mut calls) = World::silent(PATIENCE).await;
    let since = Instant::now();
    while let Some(answer) = timeout(DEADLINE, calls.join_next()).await.expect("it ends") {
        assert_eq!(answer.unwrap().unwrap_err().code, Code::Unavailable);
    }
    assert!(since.elapsed() < PATIENCE * 3, "{:?}", since.elapsed());
    world.works_by_another_way().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_keeps_no_session_that_vanished() {
    let (mut world, calls) = World::silent(Duration::from_secs(3600)).await;
    drop(calls);
    // What still runs in a session is waited for, and that no longer than this.
    sleep(Duration::from_secs(6)).await;
    world.works_by_another_way().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_of_a_transaction_is_undone_and_its_session_goes_on() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let agent = AgentId(tenant.agent("alice").await.id);
    let store = PgStore::new(tenant.connect_options());
    let count = || async {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM acb.presence").fetch_one(store.pool()).await.unwrap();
        count
    };
    for _ in 0..20 {
        let mut transaction = store.pool().begin().await.unwrap();
        let insert = "INSERT INTO acb.presence (tenant_id, agent_id, online) VALUES (acb.current_tenant(), $1, true)";
        sqlx::query(insert).bind(agent.0).execute(&mut *transaction).await.unwrap();
        drop(transaction);
        assert_eq!(count().await, 0);
    }
    let mut transaction = store.pool().begin().await.unwrap();
    sqlx::query("INSERT INTO acb.presence (tenant_id, agent_id, online) VALUES (acb.current_tenant(), $1, true)")
        .bind(agent.0)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(count().await, 1);
}
