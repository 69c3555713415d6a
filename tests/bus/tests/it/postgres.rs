//! The bus on PostgreSQL.

use std::{sync::Arc, time::Duration};

use acb_bus_conformance::{DEADLINE, Provider, Stall, append, record, take, texts};
use acb_hub_bus::PostgresBus;
use acb_hub_core::{
    kit::supervisor::Supervisor,
    log::bus::{Bounds, Bus, BusError, Logged, Offset, Partition, Record, TopicName},
};
use acb_hub_pool::{Limits, Pool};
use acb_testbed::{Postgres, TestTenant};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use sqlx::Connection;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

/// A tenant of the test's own on a server that the tests share.
struct OnPostgres {
    server: &'static Postgres,
    tenant: TestTenant,
}

async fn postgres() -> OnPostgres {
    let server = Postgres::shared().await;
    OnPostgres { server, tenant: server.fresh_tenant("bus").await }
}

impl OnPostgres {
    fn connect(&self) -> PostgresBus {
        let pool = Pool::new(self.tenant.connect_options(), Limits::default());
        PostgresBus::connect(self.id(), pool, &Supervisor::default())
    }

    fn id(&self) -> [u8; 10] {
        self.tenant.id_bytes().try_into().unwrap()
    }

    fn channel(&self) -> String {
        format!("acb_{}", self.tenant.id_hex())
    }

    async fn end_sessions(&self) {
        sqlx::query("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1")
            .bind(self.tenant.username())
            .execute(&mut self.server.superuser().await)
            .await
            .unwrap();
    }

    /// Waits until this many of the tenant's sessions listen.
    async fn listening(&self, count: i64) {
        let mut superuser = self.server.superuser().await;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND query LIKE '%array_agg(p.next_offset%'",
            )
            .bind(self.tenant.username())
            .fetch_one(&mut superuser)
            .await
            .unwrap();
            if now >= count {
                return;
            }
            assert!(Instant::now() < deadline, "{now} of {count} sessions listen");
        }
    }
}

#[async_trait]
impl Provider for OnPostgres {
    async fn topic(&self, partitions: u32) -> TopicName {
        let name = format!("t{}", uuid::Uuid::new_v4().simple());
        self.tenant.ensure_topic(&name, partitions).await;
        TopicName::context(self.tenant.name(), &name)
    }

    async fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(self.connect())
    }

    async fn interrupt(&self) {
        self.end_sessions().await;
    }

    async fn forget(&self, topic: &TopicName, partition: Partition, first: Offset) {
        sqlx::query(
            r#"UPDATE acb.bus_record SET log_time = log_time - interval '10 years'
               WHERE tenant_id = $1 AND topic = $2 AND partition = $3 AND "offset" < $4"#,
        )
        .bind(&self.id()[..])
        .bind(topic.as_str())
        .bind(partition.cast_signed())
        .bind(first.cast_signed())
        .execute(&mut self.server.superuser().await)
        .await
        .unwrap();
        self.connect().prune().await.unwrap();
    }

    /// Another writer, which has taken what it needs and not committed.
    async fn stall(&self, topic: &TopicName) -> Stall {
        let mut session = self.tenant.connect().await;
        let (id, topic) = (self.id(), topic.to_string());
        let (locked, is_locked) = oneshot::channel();
        let (release, released) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut transaction = session.begin().await.unwrap();
            sqlx::query("UPDATE acb.bus_partition SET next_offset = next_offset WHERE tenant_id = $1 AND topic = $2")
                .bind(&id[..])
                .bind(topic)
                .execute(&mut *transaction)
                .await
                .unwrap();
            locked.send(()).unwrap();
            released.await.unwrap();
            transaction.commit().await.unwrap();
        });
        is_locked.await.unwrap();
        Stall::new(release, task)
    }
}

acb_bus_conformance::conformance!(postgres);

/// The tenant's password is replaced, and every session is lost: what was open goes on with the new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_goes_over_to_its_pools_new_password() {
    let provider = postgres().await;
    let topic = provider.topic(1).await;
    let pool = Pool::new(provider.tenant.connect_options(), Limits::default());
    let bus = PostgresBus::connect(provider.id(), pool.clone(), &Supervisor::default());
    append(&bus, &topic, 0, "before").await;
    let mut tail = bus.tail(&topic, &[0]).await.unwrap();
    assert_eq!(texts(&take(&mut tail, 1).await), ["before"]);
    let set = format!("ALTER ROLE {} PASSWORD 'another one'", provider.tenant.username());
    sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&mut provider.server.superuser().await).await.unwrap();
    pool.set_connect_options(provider.tenant.connect_options().password("another one"));
    provider.end_sessions().await;
    let deadline = Instant::now() + DEADLINE;
    while bus.topic(&topic).await.is_err() {
        assert!(Instant::now() < deadline, "the bus does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    append(&bus, &topic, 0, "after").await;
    assert_eq!(texts(&take(&mut tail, 1).await), ["after"]);
    provider.listening(1).await;
}

/// A record that took its offset, and is committed late, is not passed by.
#[tokio::test]
async fn a_reader_waits_for_a_record_whose_offset_is_taken() {
    let provider = postgres().await;
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    append(&*bus, &topic, 0, "0").await;
    let mut tail = bus.tail(&topic, &[1]).await.unwrap();
    let mut session = provider.tenant.connect().await;
    let mut transaction = session.begin().await.unwrap();
    let offset: i64 = sqlx::query_scalar(
        "UPDATE acb.bus_partition SET next_offset = next_offset + 1 WHERE tenant_id = $1 AND topic = $2 RETURNING next_offset - 1",
    )
    .bind(&provider.id()[..])
    .bind(topic.as_str())
    .fetch_one(&mut *transaction)
    .await
    .unwrap();
    sqlx::query(
        r#"INSERT INTO acb.bus_record (tenant_id, topic, partition, "offset", value, log_time) VALUES ($1, $2, 0, $3, '1', now())"#,
    )
    .bind(&provider.id()[..])
    .bind(topic.as_str())
    .bind(offset)
    .execute(&mut *transaction)
    .await
    .unwrap();
    let after = bus.append(&topic, 0, record("2")).await.unwrap();
    assert!(timeout(Duration::from_millis(600), tail.next()).await.is_err());
    transaction.commit().await.unwrap();
    after.await.unwrap();
    assert_eq!(texts(&take(&mut tail, 2).await), ["1", "2"]);
}

/// Nothing is notified: the poll brings the record.
#[tokio::test]
async fn a_missing_notification_costs_a_poll() {
    let provider = postgres().await;
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    let mut tail = bus.tail(&topic, &[0]).await.unwrap();
    let mut session = provider.tenant.connect().await;
    sqlx::query("WITH t AS (UPDATE acb.bus_partition SET next_offset = 1 WHERE tenant_id = $1 AND topic = $2)
                 INSERT INTO acb.bus_record (tenant_id, topic, partition, \"offset\", value, log_time) VALUES ($1, $2, 0, 0, 'quiet', now())")
        .bind(&provider.id()[..])
        .bind(topic.as_str())
        .execute(&mut session)
        .await
        .unwrap();
    let seen = timeout(Duration::from_secs(2), take(&mut tail, 1)).await.expect("within a few polls");
    assert_eq!(texts(&seen), ["quiet"]);
}

/// Another tenant floods this one's channel, with contents: records still come, each once, and the forged hints are metered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_notifications_change_nothing() {
    let provider = postgres().await;
    let neighbour = provider.server.fresh_tenant("flood").await;
    let (topic, here, there) = (provider.topic(1).await, provider.bus().await, provider.bus().await);
    let mut tail = here.tail(&topic, &[0]).await.unwrap();
    provider.listening(1).await;
    let (stop, mut stopped) = oneshot::channel::<()>();
    let channel = provider.channel();
    let flood = tokio::spawn(async move {
        let mut session = neighbour.connect().await;
        let mut sent = 0;
        while stopped.try_recv().is_err() {
            sqlx::query("SELECT pg_notify($1, $2 || n) FROM generate_series(1, 100) n")
                .bind(&channel)
                .bind("acb.bus.sys.messages/0/18446744073709551615 '; DROP ")
                .execute(&mut session)
                .await
                .unwrap();
            sent += 100;
        }
        sent
    });
    let mut slowest = Duration::ZERO;
    for number in 0..50 {
        append(&*there, &topic, 0, number.to_string()).await;
        let at = Instant::now();
        assert_eq!(texts(&take(&mut tail, 1).await), [number.to_string()]);
        slowest = slowest.max(at.elapsed());
    }
    stop.send(()).unwrap();
    let sent = flood.await.unwrap();
    assert!(sent > 1000, "only {sent} were forged");
    assert!(slowest < Duration::from_secs(2), "a record took {slowest:?}");
    assert!(timeout(Duration::from_millis(400), tail.next()).await.is_err(), "nothing is made up");
}

/// Old records go, newer ones stay, and readers of what is gone start at what is left.
#[tokio::test]
async fn retention_moves_the_first_offset() {
    let provider = postgres().await;
    let (topic, bus) = (provider.topic(2).await, provider.connect());
    for number in 0..10 {
        append(&bus, &topic, number % 2, number.to_string()).await;
    }
    let mut behind = bus.tail(&topic, &[0, 5]).await.unwrap();
    assert_eq!(bus.prune().await.unwrap(), 0);
    let mut superuser = provider.server.superuser().await;
    sqlx::query(r#"UPDATE acb.bus_record SET log_time = log_time - interval '10 years' WHERE tenant_id = $1 AND topic = $2 AND ("offset" < 3 OR partition = 1)"#)
        .bind(&provider.id()[..])
        .bind(topic.as_str())
        .execute(&mut superuser)
        .await
        .unwrap();
    assert_eq!(bus.prune().await.unwrap(), 8);
    assert_eq!(bus.bounds(&topic).await.unwrap(), [Bounds { first: 3, next: 5 }, Bounds { first: 5, next: 5 }]);
    let mut tail = bus.tail(&topic, &[1, 0]).await.unwrap();
    let mut next = [0, 0];
    while next != [5, 5] {
        let batch = timeout(DEADLINE, tail.next()).await.expect("in time").unwrap().unwrap();
        next[batch.partition as usize] = batch.next;
        assert!(batch.records.iter().all(|record| record.offset >= 3));
    }
    assert_eq!(texts(&take(&mut behind, 2).await), ["6", "8"]);
    assert_eq!(append(&bus, &topic, 1, "next").await, 5);
}

/// Replicas forget what is old without being asked to, all at once, and only where the topic is not compacted instead.
#[tokio::test]
async fn what_is_older_than_its_topic_keeps_it_goes_by_itself() {
    let provider = postgres().await;
    let (deleted, compacted) = (provider.topic(2).await, provider.topic(1).await);
    let mut superuser = provider.server.superuser().await;
    for (topic, cleanup) in [(&deleted, "delete"), (&compacted, "compact")] {
        sqlx::query("UPDATE acb.bus_topic SET retention_seconds = 1, cleanup = $3 WHERE tenant_id = $1 AND topic = $2")
            .bind(&provider.id()[..])
            .bind(topic.as_str())
            .bind(cleanup)
            .execute(&mut superuser)
            .await
            .unwrap();
    }
    let (one, other) = (provider.connect(), provider.connect());
    for number in 0..100 {
        append(&one, &deleted, number % 2, number.to_string()).await;
        append(&one, &compacted, 0, number.to_string()).await;
    }
    let every = Duration::from_millis(20);
    let gone = async {
        while one.bounds(&deleted).await.unwrap() != [Bounds { first: 50, next: 50 }; 2] {
            tokio::time::sleep(every).await;
        }
    };
    tokio::select! {
        () = one.keep_pruned(every) => {}
        () = other.keep_pruned(every) => {}
        gone = timeout(DEADLINE, gone) => gone.expect("in time"),
    }
    assert_eq!(one.bounds(&compacted).await.unwrap(), [Bounds { first: 0, next: 100 }]);
    assert_eq!(append(&one, &deleted, 0, "next").await, 50);
    let mut tail = other.tail(&deleted, &[0, 50]).await.unwrap();
    assert_eq!(texts(&take(&mut tail, 1).await), ["next"]);
}

/// A topic that is kept for ages, and one that PostgreSQL does not prune: the others are pruned all the same.
#[tokio::test]
async fn a_topic_that_is_not_pruned_stops_no_other() {
    let provider = postgres().await;
    let topics = [provider.topic(1).await, provider.topic(1).await, provider.topic(1).await];
    let [ages, broken, _] = &topics;
    let bus = provider.connect();
    let mut superuser = provider.server.superuser().await;
    for topic in &topics {
        append(&bus, topic, 0, "old").await;
    }
    let old = "UPDATE acb.bus_record SET log_time = log_time - interval '10 years' WHERE tenant_id = $1";
    sqlx::query(old).bind(&provider.id()[..]).execute(&mut superuser).await.unwrap();
    // As a resource could once say: 9999999d.
    sqlx::query("UPDATE acb.bus_topic SET retention_seconds = 863999913600 WHERE tenant_id = $1 AND topic = $2")
        .bind(&provider.id()[..])
        .bind(ages.as_str())
        .execute(&mut superuser)
        .await
        .unwrap();
    let refuse = format!(
        "CREATE FUNCTION pg_temp.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not this one'; END$$;
         CREATE TRIGGER refuse BEFORE DELETE ON acb.bus_record FOR EACH ROW WHEN (old.topic = '{broken}')
         EXECUTE FUNCTION pg_temp.refuse()"
    );
    // Gone with its session.
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(&mut superuser).await.unwrap();
    let error = bus.prune().await.unwrap_err();
    assert!(error.to_string().contains(broken.as_str()) && error.to_string().contains("P0001"), "{error}");
    let mut held = Vec::new();
    for topic in &topics {
        held.push(bus.read(topic, 0, 0, 10).await.unwrap().len());
    }
    assert_eq!(held, [1, 1, 0]);
    drop(superuser);
}

/// Of what is old a compacted topic keeps the last of each key, without what was deleted; a reader passes over the holes.
#[tokio::test]
async fn a_compacted_topic_keeps_the_last_of_each_key() {
    let provider = postgres().await;
    let (topic, bus) = (provider.topic(2).await, provider.connect());
    let mut superuser = provider.server.superuser().await;
    sqlx::query("UPDATE acb.bus_topic SET cleanup = 'compact' WHERE tenant_id = $1 AND topic = $2")
        .bind(&provider.id()[..])
        .bind(topic.as_str())
        .execute(&mut superuser)
        .await
        .unwrap();
    let keyed = |key: Option<&'static str>, value: Option<&'static str>| Record {
        key: key.map(|key| Bytes::from_static(key.as_bytes())),
        value: value.map(|value| Bytes::from_static(value.as_bytes())),
        ..Record::default()
    };
    let records = [
        (Some("a"), Some("a0")),
        (Some("b"), Some("b1")),
        (None, Some("none2")),
        (Some("a"), Some("a3")),
        (Some("b"), None),
        (Some("c"), Some("c5")),
        // From here on they are young.
        (Some("a"), Some("a6")),
        (Some("c"), None),
        (Some("c"), Some("c8")),
    ];
    for (key, value) in records {
        bus.append(&topic, 0, keyed(key, value)).await.unwrap().await.unwrap();
    }
    bus.append(&topic, 1, keyed(Some("only"), None)).await.unwrap().await.unwrap();
    let mut early = bus.tail(&topic, &[0, 0]).await.unwrap();
    assert_eq!(take(&mut early, 10).await.len(), 10);
    assert_eq!(bus.prune().await.unwrap(), 0);
    sqlx::query(r#"UPDATE acb.bus_record SET log_time = log_time - interval '10 years' WHERE tenant_id = $1 AND topic = $2 AND "offset" < 6"#)
        .bind(&provider.id()[..])
        .bind(topic.as_str())
        .execute(&mut superuser)
        .await
        .unwrap();
    assert_eq!(bus.prune().await.unwrap(), 5);
    assert_eq!(bus.prune().await.unwrap(), 0);
    let left = |records: &[Logged]| records.iter().map(|record| (record.partition, record.offset)).collect::<Vec<_>>();
    let mut tail = bus.tail(&topic, &[0, 0]).await.unwrap();
    let mut all = left(&take(&mut tail, 5).await);
    all.sort_unstable();
    assert_eq!(all, [(0, 2), (0, 6), (0, 7), (0, 8), (1, 0)]);
    assert_eq!(left(&bus.read(&topic, 0, 3, 1).await.unwrap()), [(0, 6)]);
    assert_eq!(bus.bounds(&topic).await.unwrap(), [Bounds { first: 0, next: 9 }, Bounds { first: 0, next: 1 }]);
    assert_eq!(append(&bus, &topic, 0, "next").await, 9);
    for tail in [&mut early, &mut tail] {
        assert_eq!(texts(&take(tail, 1).await), ["next"]);
    }
}

/// The bus appends over a session of its own: it needs none of the pool, and one that was lost while nothing was appended costs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_have_a_session_of_their_own() {
    let provider = postgres().await;
    let (topic, other) = (provider.topic(1).await, provider.topic(1).await);
    let pool = Pool::new(provider.tenant.connect_options(), Limits { connections: 1, ..Limits::default() });
    let bus = PostgresBus::connect(provider.id(), pool.clone(), &Supervisor::default());
    append(&bus, &topic, 0, "0").await;
    append(&bus, &other, 0, "0").await;
    let held = pool.acquire().await.unwrap();
    for number in 1..20 {
        assert_eq!(append(&bus, &topic, 0, number.to_string()).await, number);
    }
    drop(held);
    // A topic that stands still has the session: another takes one of the pool's.
    let stall = provider.stall(&topic).await;
    let waiting = bus.append(&topic, 0, record("waits")).await.unwrap();
    for number in 1..20 {
        assert_eq!(append(&bus, &other, 0, number.to_string()).await, number);
    }
    stall.release().await;
    waiting.await.unwrap();
    // Longer than a session is trusted.
    tokio::time::sleep(Duration::from_millis(50)).await;
    provider.end_sessions().await;
    assert_eq!(append(&bus, &topic, 0, "after").await, 21);
}

/// A topic that is removed, or made anew, ends its tails: old offsets mean nothing there.
#[tokio::test]
async fn a_topic_made_anew_ends_its_tails() {
    let provider = postgres().await;
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    append(&*bus, &topic, 0, "old").await;
    let mut tail = bus.tail(&topic, &[1]).await.unwrap();
    let mut superuser = provider.server.superuser().await;
    sqlx::query("UPDATE acb.bus_topic SET epoch = epoch + 1 WHERE tenant_id = $1 AND topic = $2")
        .bind(&provider.id()[..])
        .bind(topic.as_str())
        .execute(&mut superuser)
        .await
        .unwrap();
    let ended = timeout(DEADLINE, tail.next()).await.expect("in time").unwrap();
    assert!(matches!(ended, Err(BusError::Unavailable(_))), "{ended:?}");
    assert!(tail.next().await.is_none());
    assert!(matches!(bus.tail(&topic, &[7]).await.err(), Some(BusError::Unavailable(_))), "past the end is an error");
}

/// The bus uses no more sessions than it is allowed: the pool's four and three of its own, as the operator gives it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seven_sessions_are_enough() {
    let provider = postgres().await;
    let bus = provider.bus().await;
    let mut topics = Vec::new();
    for _ in 0..8 {
        topics.push(provider.topic(2).await);
    }
    let mut tails = Vec::new();
    for topic in &topics {
        tails.push(bus.tail(topic, &[0, 0]).await.unwrap());
    }
    let mut pending = Vec::new();
    for number in 0..400_usize {
        pending.push(bus.append(&topics[number % 8], 0, record(number.to_string())).await.unwrap());
    }
    for pending in pending {
        pending.await.unwrap();
    }
    for tail in &mut tails {
        take(tail, 50).await;
    }
    let sessions: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE usename = $1")
        .bind(provider.tenant.username())
        .fetch_one(&mut provider.server.superuser().await)
        .await
        .unwrap();
    assert!(sessions <= 7, "{sessions} sessions");
}

/// Not a test of speed: it tells what it measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test -p acb-bus-conformance -- --ignored --nocapture latency"]
async fn latency() {
    let provider = postgres().await;
    let (topic, here, there) = (provider.topic(8).await, provider.bus().await, provider.bus().await);
    crate::measure(&*here, &*there, &topic).await;
}
