//! What a query costs, and what becomes of sessions that the server ended.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use acb_hub_core::directory::{agent::AgentId, presence::PresenceStore as _};
use acb_hub_store::PgStore;
use acb_testbed::{Postgres, TestTenant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

const DEADLINE: Duration = Duration::from_secs(20);

/// A way to the server that counts what clients send: a client that waits for each answer sends once for each round trip.
async fn counted(port: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, sent) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = sent.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let counter = counter.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut buffer = vec![0; 64 << 10];
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    counter.fetch_add(1, Ordering::SeqCst);
                    to_server.write_all(&buffer[..read]).await.unwrap();
                }
                back.abort();
            });
        }
    });
    (address.port(), sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_one_round_trip_and_a_transaction_two_more_than_its_queries() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let direct = tenant.connect_options();
    let (port, sent) = counted(direct.get_port()).await;
    let store = PgStore::new(direct.host("127.0.0.1").port(port));
    let agent = AgentId(tenant.agent("alice").await.id);
    let transaction = async || {
        let mut transaction = store.pool().begin().await.unwrap();
        sqlx::query("SELECT 1").execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
    };
    // Connects, and prepares the statements.
    store.note(agent, true).await.unwrap();
    transaction().await;
    let before = sent.load(Ordering::SeqCst);
    for _ in 0..20 {
        store.note(agent, true).await.unwrap();
    }
    let queries = sent.load(Ordering::SeqCst) - before;
    for _ in 0..20 {
        transaction().await;
    }
    let transactions = sent.load(Ordering::SeqCst) - before - queries;
    // A machine that is slow enough for a session to wait half a second may ask it once more.
    assert!((20..25).contains(&queries), "{queries} round trips for 20 queries");
    assert!((60..65).contains(&transactions), "{transactions} round trips for 20 transactions of one query");
}

async fn end_sessions(tenant: &TestTenant) {
    let mut superuser = Postgres::shared().await.superuser().await;
    let ended = sqlx::query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1");
    let ended = ended.bind(tenant.username()).execute(&mut superuser).await.unwrap();
    assert_ne!(ended.rows_affected(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_the_server_ended_cost_nobody_who_comes_later_a_failure() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let store = PgStore::new(tenant.connect_options());
    let agent = AgentId(tenant.agent("alice").await.id);
    let all = async || {
        let sessions = [store.pool().acquire(), store.pool().acquire(), store.pool().acquire(), store.pool().acquire()];
        for session in futures::future::join_all(sessions).await {
            drop(session.unwrap());
        }
    };
    all().await;
    end_sessions(&tenant).await;
    sleep(Duration::from_secs(1)).await;
    for _ in 0..8 {
        store.note(agent, true).await.unwrap();
    }

    // Whose sessions were in use a moment ago: a transaction has not done anything yet, and goes to another session.
    for _ in 0..4 {
        all().await;
        end_sessions(&tenant).await;
        store.pool().begin().await.unwrap().commit().await.unwrap();
        store.note(agent, true).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_given_up_leaves_its_answer_to_nobody_else() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let store = PgStore::new(tenant.connect_options());
    for _ in 0..20 {
        let slow = sqlx::query("SELECT pg_sleep(0.1), 7").execute(store.pool());
        assert!(tokio::time::timeout(Duration::from_millis(20), slow).await.is_err());
        let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(store.pool()).await.unwrap();
        assert_eq!(one, 1);
    }
    // All four are there again.
    let since = Instant::now();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(store.pool().acquire().await.unwrap());
    }
    assert!(since.elapsed() < DEADLINE, "{:?}", since.elapsed());
    assert!(matches!(store.pool().acquire().await, Err(sqlx::Error::PoolTimedOut)), "and no fifth");
}
