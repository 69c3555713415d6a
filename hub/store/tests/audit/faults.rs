//! Sinks that end, that are two at once, and a log or a database that went back.

use std::time::Duration;

use acb_hub_core::audit::{
    ports::{AuditStore as _, Growth, Leaf, SignedCheckpoint, TreePosition},
    record::{AuditRecord, Phase},
};
use acb_testbed::Postgres;
use acb_tlog::tree::leaf_hash;
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::world::{World, objects, root};

#[tokio::test]
async fn of_several_replicas_one_builds_and_another_goes_on_where_it_ends() {
    let world = World::new().await;
    let mut sinks: Vec<_> = ["hub-0", "hub-1", "hub-2"].into_iter().map(|replica| world.sink(replica)).collect();
    let mut logged = 0;
    while let Some(sink) = sinks.pop() {
        world.log(logged..logged + 20).await;
        logged += 20;
        world.grown(logged).await;
        // Perhaps the one that builds, and in the midst of it.
        drop(sink);
    }
    let _last = world.sink("hub-3");
    world.log(logged..logged + 20).await;
    let kept = world.grown(logged + 20).await;
    assert_eq!(objects(&kept), (0..logged + 20).map(|number| format!("number {number}")).collect::<Vec<_>>());
    assert_eq!(world.signed(logged + 20).await.root, root(&kept));
}

#[tokio::test]
async fn two_that_write_at_once_make_one_tree() {
    let world = World::new().await;
    let (one, other) = (growth(0, "one"), growth(0, "other"));
    let (one, other) = tokio::join!(world.store.grow(&one), world.store.grow(&other));
    let grown = [one.unwrap(), other.unwrap()];
    assert_eq!(grown.iter().filter(|grown| **grown).count(), 1, "{grown:?}");
    assert_eq!(root(&world.kept().await), world.store.head().await.unwrap().tree.root());
}

#[tokio::test]
async fn a_database_that_went_back_has_the_same_tree_again() {
    let world = World::new().await;
    let sink = world.sink("hub-0");
    world.log(0..8).await;
    world.grown(8).await;
    let before = world.signed(8).await;
    drop(sink);
    // As a restore does: the rows of what came last are not there.
    world.sql("DELETE FROM acb.audit_growth WHERE tenant_id = $1").await;
    world.sql("DELETE FROM acb.audit_checkpoint WHERE tenant_id = $1").await;
    world.sql("DELETE FROM acb.audit_node WHERE tenant_id = $1").await;
    assert_eq!(world.sql("DELETE FROM acb.audit_record WHERE tenant_id = $1").await, 8);
    let _sink = world.sink("hub-1");
    let kept = world.grown(8).await;
    assert_eq!(objects(&kept), (0..8).map(|number| format!("number {number}")).collect::<Vec<_>>());
    assert_eq!((before.root, before.size), (root(&kept), 8), "what was signed before is still true");
}

#[tokio::test]
async fn what_the_log_has_no_more_is_a_gap_that_is_told() {
    let world = World::new().await;
    let sink = world.with_three_signed().await;
    let end = world.ends_signed(3).await;
    drop(sink);
    world.log(3..6).await;
    // Retention took what nobody had read, but for the last of it.
    retain_from(&world, end + 2).await;
    let _sink = world.sink("hub-1");
    world.log(6..7).await;
    world.until(|| async { objects(&world.kept().await).last().is_some_and(|last| last == "number 6") }).await;
    let kept = world.kept().await;
    let gap = AuditRecord::decode(&kept[3].record).unwrap();
    assert_eq!(gap.phase, Phase::Gap);
    assert!(gap.object.starts_with("records ") && gap.object.contains("gone before they were read"), "{gap:?}");
    assert!(world.metrics.render().contains("acb_audit_gaps_total 1"));
    assert_eq!(world.signed(kept.len() as u64).await.root, root(&kept), "the gap is signed with the rest");
}

#[tokio::test]
async fn a_log_that_was_made_anew_or_cut_short_is_a_gap_that_is_told() {
    let world = World::new().await;
    let sink = world.with_three_signed().await;
    drop(sink);
    world.sql("DELETE FROM acb.bus_record WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'").await;
    world
        .sql("UPDATE acb.bus_partition SET next_offset = 0, first_offset = 0 WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'")
        .await;
    let sink = world.sink("hub-1");
    let kept = world.grown(4).await;
    assert!(objects(&kept)[3].contains("was cut short"), "{:?}", objects(&kept));
    world.log(10..11).await;
    let kept = world.grown(5).await;
    assert_eq!(objects(&kept)[4], "number 10");

    world.sql("UPDATE acb.bus_topic SET epoch = epoch + 1 WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'").await;
    drop(sink);
    let _sink = world.sink("hub-2");
    world.until(|| async { objects(&world.kept().await).iter().any(|object| object.contains("made anew")) }).await;
}

fn growth(first: u64, text: &'static str) -> Growth {
    let mut tree = acb_tlog::tree::Tree::default();
    let record = Bytes::from_static(text.as_bytes());
    let nodes = tree.push(leaf_hash(&record));
    let leaf = Leaf { record, at: OffsetDateTime::UNIX_EPOCH, agent: String::new(), operation: String::new() };
    Growth { first, leaves: vec![leaf], nodes, place: TreePosition { epoch: 1, next: 1 }, acts: Vec::new() }
}

#[tokio::test]
async fn a_tree_grows_only_from_the_size_that_it_has_and_only_that_is_signed() {
    let world = World::new().await;
    assert!(!world.store.grow(&growth(5, "far")).await.unwrap());
    assert_eq!((world.kept().await.len(), world.store.head().await.unwrap().tree.size()), (0, 0));
    let signed = |size| SignedCheckpoint { size, verifier: "k".to_owned(), note: "n".to_owned(), at: OffsetDateTime::UNIX_EPOCH };
    assert!(!world.store.keep_checkpoint(&signed(1)).await.unwrap());
    assert!(world.store.grow(&growth(0, "one")).await.unwrap());
    assert!(!world.store.grow(&growth(0, "one")).await.unwrap());
    assert!(!world.store.keep_checkpoint(&signed(2)).await.unwrap());
    assert!(world.store.keep_checkpoint(&signed(1)).await.unwrap());
    assert!(!world.store.keep_checkpoint(&signed(1)).await.unwrap());
}

#[tokio::test]
async fn a_database_that_went_back_under_a_sink_loses_no_record() {
    let world = World::new().await;
    let _sink = world.sink("hub-0");
    world.log(0..5).await;
    world.grown(5).await;
    world.log(5..8).await;
    world.grown(8).await;
    let before = world.signed(8).await;
    // As after a failover to a standby that was behind.
    world.sql("DELETE FROM acb.audit_checkpoint WHERE tenant_id = $1 AND size > 5").await;
    world.sql("DELETE FROM acb.audit_node WHERE tenant_id = $1 AND ((index + 1) << level::int) > 5").await;
    world.sql("DELETE FROM acb.audit_record WHERE tenant_id = $1 AND number >= 5").await;
    assert_ne!(world.sql("DELETE FROM acb.audit_growth WHERE tenant_id = $1 AND first >= 5").await, 0);
    world.log(8..10).await;
    let kept = world.grown(10).await;
    assert_eq!(objects(&kept), (0..10).map(|number| format!("number {number}")).collect::<Vec<_>>());
    assert_eq!(before.root, root(&kept[..8]), "what was signed before is still true");
}

#[tokio::test]
async fn a_log_that_is_cut_short_under_a_sink_is_a_gap_that_is_told() {
    let world = World::new().await;
    let _sink = world.with_three_signed().await;
    world.sql("DELETE FROM acb.bus_record WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'").await;
    world
        .sql("UPDATE acb.bus_partition SET next_offset = 0, first_offset = 0 WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'")
        .await;
    let kept = world.grown(4).await;
    assert!(objects(&kept)[3].contains("was cut short"), "{:?}", objects(&kept));
    world.log(10..11).await;
    assert_eq!(objects(&world.grown(5).await)[4], "number 10");
}

#[tokio::test]
async fn a_sink_that_is_stuck_says_so_and_how_far_it_is_behind() {
    let world = World::new().await;
    world.log(0..3).await;
    // A node where the tree's first is to be.
    let put = "INSERT INTO acb.audit_node (tenant_id, level, index, hash) VALUES ($1, 0, 0, decode(repeat('00', 32), 'hex'))";
    world.sql(put).await;
    let _sink = world.sink("hub-0");
    let failures = || {
        let rendered = world.metrics.render();
        let line = rendered.lines().find_map(|line| line.strip_prefix("acb_audit_sink_failures_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    world.until(|| async { failures() >= 3 }).await;
    assert!(world.metrics.render().contains("acb_audit_sink_lag 3"), "{}", world.metrics.render());
}

/// The log loses its records from this offset on, without telling anybody.
async fn cut(world: &World, at: u64) {
    change(world, r#"DELETE FROM acb.bus_record WHERE tenant_id = $1 AND topic LIKE '%.sys.audit' AND "offset" >= $2"#, at).await;
    change(world, "UPDATE acb.bus_partition SET next_offset = $2 WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'", at).await;
}

/// The log keeps its records from this offset on.
async fn retain_from(world: &World, at: u64) {
    change(world, r#"DELETE FROM acb.bus_record WHERE tenant_id = $1 AND topic LIKE '%.sys.audit' AND "offset" < $2"#, at).await;
    change(world, "UPDATE acb.bus_partition SET first_offset = $2 WHERE tenant_id = $1 AND topic LIKE '%.sys.audit'", at).await;
}

async fn change(world: &World, sql: &'static str, at: u64) {
    let mut superuser = Postgres::shared().await.superuser().await;
    let changed = sqlx::query(sql).bind(world.tenant.id_bytes()).bind(i64::try_from(at).unwrap()).execute(&mut superuser).await;
    assert_ne!(changed.unwrap().rows_affected(), 0);
}

/// Five records, and checkpoints, of three and of all at least. Where in the log the two records are that came later.
async fn of_two_growths(world: &World) -> u64 {
    let mut ends = Vec::new();
    for (size, numbers) in [(3, 0..3), (5, 3..5)] {
        world.log(numbers).await;
        world.grown(size).await;
        world.signed(size).await;
        ends.push(world.ends_signed(size).await);
    }
    ends[0]
}

/// What was read before, the gap, and all that the log has now from the cut on.
async fn told_all(world: &World) {
    let is_told = || async { objects(&world.kept().await).last().is_some_and(|last| last == "number 15") };
    world.until(is_told).await;
    let objects = objects(&world.kept().await);
    let numbers = |numbers: std::ops::Range<u64>| numbers.map(|number| format!("number {number}")).collect::<Vec<_>>();
    assert_eq!(objects[..5], numbers(0..5));
    assert!(objects[5].contains("was cut short"), "{objects:?}");
    assert_eq!(objects[6..], numbers(10..16));
}

#[tokio::test]
async fn a_log_that_was_cut_short_and_grew_again_is_a_gap_and_read_from_there() {
    let world = World::new().await;
    let sink = world.sink("hub-0");
    let later = of_two_growths(&world).await;
    drop(sink);
    cut(&world, later).await;
    world.log(10..16).await;
    let _sink = world.sink("hub-1");
    told_all(&world).await;
}

#[tokio::test]
async fn a_log_that_is_cut_short_and_grows_again_under_a_sink_is_a_gap_and_read_from_there() {
    let world = World::new().await;
    let _sink = world.sink("hub-0");
    let later = of_two_growths(&world).await;
    // A sink looks back where nothing came for a second: no real log loses its end, and has others in their place, in less.
    sleep(Duration::from_millis(1100)).await;
    cut(&world, later).await;
    world.log(10..16).await;
    told_all(&world).await;
}
