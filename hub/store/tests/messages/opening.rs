//! Which session of an agent is the newest: where two open at the same moment, and where PostgreSQL goes back.

use acb_hub_core::{
    directory::agent::AgentId,
    messages::{
        cursor::CursorState,
        ports::{CursorFlush, CursorStore as _},
    },
};
use acb_hub_store::PgStore;
use acb_testbed::Postgres;
use sqlx::Connection as _;
use tokio::time::{Duration, Instant, sleep};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn of_two_first_sessions_at_once_the_later_one_is_not_clean() {
    let postgres = Postgres::shared().await;
    let tenant = postgres.fresh_tenant("acme").await;
    let agent = AgentId(Uuid::new_v4());
    // Both are held at the tenant's row, which a new row of presence refers to.
    let mut superuser = postgres.superuser().await;
    let mut held = superuser.begin().await.unwrap();
    let lock = sqlx::query("SELECT FROM acb.tenant WHERE tenant_id = $1 FOR UPDATE").bind(tenant.id_bytes().to_vec());
    lock.execute(&mut *held).await.unwrap();
    let open = || {
        let store = PgStore::new(tenant.connect_options());
        tokio::spawn(async move { crate::opened(&store, 7, agent).await })
    };
    let (one, other) = (open(), open());
    let deadline = Instant::now() + Duration::from_secs(20);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'";
    let mut look = postgres.superuser().await;
    loop {
        let count: i64 = sqlx::query_scalar(waiting).bind(tenant.username()).fetch_one(&mut look).await.unwrap();
        if count == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "{count} sessions wait");
        sleep(Duration::from_millis(20)).await;
    }
    held.rollback().await.unwrap();
    let mut opened = [one.await.unwrap(), other.await.unwrap()];
    opened.sort_by_key(|opened| opened.session_epoch);
    assert_eq!(opened.map(|opened| (opened.session_epoch, opened.clean)), [(1, true), (2, false)]);
}

/// A session that lives is not over because PostgreSQL went back to what it was before: nobody else has opened one.
#[tokio::test]
async fn a_session_outlives_a_store_that_forgot_it() {
    let postgres = Postgres::shared().await;
    let tenant = postgres.fresh_tenant("acme").await;
    let store = PgStore::new(tenant.connect_options());
    let agent = AgentId(Uuid::new_v4());
    for _ in 0..3 {
        crate::opened(&store, 7, agent).await;
    }
    let back = sqlx::query("UPDATE acb.presence SET session_epoch = 1, receiving = false WHERE agent_id = $1").bind(agent.0);
    back.execute(&mut postgres.superuser().await).await.unwrap();
    let flush =
        |session_epoch, cursors| CursorFlush { agent, session_epoch, cursors, attempts: vec![], closing: false, clean: true };
    assert_eq!(store.flush(7, vec![flush(3, vec![])]).await.unwrap(), [], "it only asks");
    let cursor = CursorState { watermark: 5, exceptions: vec![] };
    assert_eq!(store.flush(7, vec![flush(3, vec![(0, cursor.clone())])]).await.unwrap(), []);
    assert_eq!(store.flush(7, vec![flush(2, vec![])]).await.unwrap(), [(agent, 2)], "an older one is over");
    let opened = crate::opened(&store, 7, agent).await;
    assert_eq!((opened.session_epoch, opened.clean, opened.cursors), (4, false, vec![(0, cursor)]));
}
