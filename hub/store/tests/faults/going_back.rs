//! PostgreSQL that goes back to what it was, and a log in it that loses its last records.

use acb_hub_core::{
    log::bus::TopicName,
    messages::{ports::LogLives as _, position::offset_of},
};
use acb_hub_store::PgStore;
use acb_testbed::{Postgres, TestTenant};
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use uuid::Uuid;

use crate::{
    lives, sums,
    world::{PATIENCE, deliveries, eventually, text, to},
    world_of,
};

const TABLES: [&str; 10] = [
    "mailbox",
    "mailbox_checkpoint",
    "cursor",
    "delivery",
    "presence",
    "log_cut",
    "usage_sum",
    "usage_checkpoint",
    "usage_gap",
    "usage_export",
];

/// The rows of the tenant that a backup would hold, by a name of their own.
async fn copy(tenant: &TestTenant, tables: &[&str]) -> String {
    let name = Uuid::new_v4().simple().to_string();
    let mut superuser = Postgres::shared().await.superuser().await;
    for table in tables {
        let copy =
            format!("CREATE TABLE public.copy_{table}_{name} AS SELECT * FROM acb.{table} WHERE tenant_id = {}", id(tenant));
        superuser.execute(AssertSqlSafe(copy)).await.unwrap();
    }
    name
}

/// In one step, as a server that is another one.
async fn go_back(tenant: &TestTenant, tables: &[&str], name: String) {
    let mut superuser = Postgres::shared().await.superuser().await;
    // A server that is another one waits for nobody: where the hub has rows of two tables in another order, it is the hub that gives way and tries again.
    superuser.execute("SET deadlock_timeout = '1min'").await.unwrap();
    let steps = tables.iter().map(|table| {
        let gone = format!("DELETE FROM acb.{table} WHERE tenant_id = {}", id(tenant));
        let copy = format!("public.copy_{table}_{name}");
        format!("{gone}; INSERT INTO acb.{table} SELECT * FROM {copy}; DROP TABLE {copy};")
    });
    superuser.execute(AssertSqlSafe(steps.collect::<String>())).await.unwrap();
}

/// The records of the messages log from this offset on are lost.
async fn cut(tenant: &TestTenant, left: u64) {
    let mut superuser = Postgres::shared().await.superuser().await;
    let which = format!("tenant_id = {} AND topic LIKE '%.sys.messages'", id(tenant));
    let cut = format!(
        r#"DELETE FROM acb.bus_record WHERE {which} AND "offset" >= {left};
           UPDATE acb.bus_partition SET next_offset = {left} WHERE {which} AND next_offset > {left};"#
    );
    superuser.execute(AssertSqlSafe(cut)).await.unwrap();
}

/// Retention: nothing of the messages log is left.
async fn forget(tenant: &TestTenant) {
    let mut superuser = Postgres::shared().await.superuser().await;
    let which = format!("tenant_id = {} AND topic LIKE '%.sys.messages'", id(tenant));
    let gone = format!(
        "DELETE FROM acb.bus_record WHERE {which}; UPDATE acb.bus_partition SET first_offset = next_offset WHERE {which};"
    );
    superuser.execute(AssertSqlSafe(gone)).await.unwrap();
}

/// Records that the index knows of.
async fn indexed(tenant: &TestTenant) -> u64 {
    let mut superuser = Postgres::shared().await.superuser().await;
    let sum =
        format!("SELECT coalesce(sum(next_position), 0)::bigint FROM acb.mailbox_checkpoint WHERE tenant_id = {}", id(tenant));
    offset_of(superuser.fetch_one(AssertSqlSafe(sum)).await.unwrap().get::<i64, _>(0).cast_unsigned())
}

fn id(tenant: &TestTenant) -> String {
    let hex: String = tenant.id_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!(r"'\x{hex}'::bytea")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_that_goes_back_loses_nothing() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (copy, harm, indexed) = (
        async || copy(&tenant, &TABLES).await,
        async |name| go_back(&tenant, &TABLES, name).await,
        async || indexed(&tenant).await,
    );
    lives::a_store_that_goes_back_loses_nothing(&world_of(&tenant), copy, harm, indexed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_after_postgres_went_back_moves_no_checkpoint_over_a_hole() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (copy, harm, indexed) = (
        async || copy(&tenant, &TABLES).await,
        async |name| go_back(&tenant, &TABLES, name).await,
        async || indexed(&tenant).await,
    );
    lives::a_message_after_a_store_went_back_moves_no_checkpoint_over_a_hole(&world_of(&tenant), copy, harm, indexed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lost_its_end_has_another_life() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (cut, indexed) = (async |left| cut(&tenant, left).await, async || indexed(&tenant).await);
    lives::a_log_that_lost_its_end_has_another_life(&world_of(&tenant), cut, indexed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_that_is_given_out_again_ends_the_replica() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    lives::an_offset_that_is_given_out_again_ends_the_replica(&world_of(&tenant), async |left| cut(&tenant, left).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_of_postgres_that_went_back_go_on() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (copy, harm) = (async || copy(&tenant, &TABLES).await, async |name| go_back(&tenant, &TABLES, name).await);
    sums::sums_of_a_store_that_went_back_go_on(&world_of(&tenant), copy, harm).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_of_the_sums_is_told() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (copy, harm) = (async || copy(&tenant, &TABLES).await, async |name| go_back(&tenant, &TABLES, name).await);
    sums::a_gap_of_the_sums_is_told(&world_of(&tenant), copy, harm, async || forget(&tenant).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_taken_back_from_the_topic() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (copy, harm) = (async || copy(&tenant, &TABLES).await, async |name| go_back(&tenant, &TABLES, name).await);
    sums::sums_are_taken_back_from_the_topic(&world_of(&tenant), copy, harm, async || forget(&tenant).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_neither_is_a_gap() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (copy, harm) = (async || copy(&tenant, &TABLES).await, async |name| go_back(&tenant, &TABLES, name).await);
    sums::what_is_in_neither_is_a_gap(&world_of(&tenant), copy, harm, async || forget(&tenant).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_life_told_is_not_taken() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let (copy, harm) = (async || copy(&tenant, &TABLES).await, async |name| go_back(&tenant, &TABLES, name).await);
    let (cut, forget) = (async |left| cut(&tenant, left).await, async || forget(&tenant).await);
    sums::what_another_life_told_is_not_taken(&world_of(&tenant), copy, harm, cut, forget).await;
}

/// The log is in PostgreSQL, and goes back with everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_goes_back_with_postgres_has_another_life() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let tables = [&TABLES[..], &["bus_partition", "bus_record"]].concat();
    let (world, store) = (world_of(&tenant), PgStore::new(tenant.connect_options()));
    let made = world.bus.topic(&TopicName::system(tenant.name(), "messages")).await.unwrap().epoch;
    let (replica, a) = (world.replica("before").await, world.agent("a"));
    replica.send(&a, to("b", "1")).await.unwrap();
    eventually(async || indexed(&tenant).await == 1).await;
    let before = copy(&tenant, &tables).await;
    replica.send(&a, to("b", "2")).await.unwrap();
    eventually(async || indexed(&tenant).await == 2).await;
    go_back(&tenant, &tables, before).await;
    tokio::time::timeout(PATIENCE, replica.stopped()).await.expect("it ends in time");
    let replica = world.replica("after").await;
    assert_ne!(store.epoch(made).await.unwrap(), made);
    replica.send(&a, to("b", "3")).await.unwrap();
    let mut inbox = world.receive(&replica, "b").await;
    let got: Vec<String> = deliveries(&mut inbox, 2).await.iter().map(text).collect();
    assert_eq!(got, ["1", "3"]);
    // What was summed of the message that is gone is gone, too, and nobody is left alone with that.
    let gaps = sums::gaps(&world, &replica).await;
    assert!(gaps.len() == 1 && gaps[0].contains("lost its last records"), "{gaps:?}");
}
