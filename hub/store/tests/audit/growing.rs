//! The tree grows as the log does, and proves what it holds.

use acb_hub_core::{
    audit::{
        ports::{AuditFilter, AuditStore as _},
        reading::Statement,
        record::{AuditRecord, Phase},
    },
    log::bus::Record,
};
use acb_tlog::{
    proof::{verify_consistency, verify_inclusion},
    tree::leaf_hash,
};
use bytes::Bytes;

use crate::world::{World, objects, record, root};

#[tokio::test]
async fn what_is_logged_is_listed_in_its_order_and_signed() {
    let world = World::new().await;
    let _sink = world.sink("hub-0");
    world.log(0..10).await;
    let kept = world.grown(10).await;
    assert_eq!(objects(&kept), (0..10).map(|number| format!("number {number}")).collect::<Vec<_>>());
    let first = world.signed(10).await;
    assert_eq!((first.size, first.root), (10, root(&kept)));

    world.log(10..25).await;
    let kept = world.grown(25).await;
    let second = world.signed(25).await;
    assert_eq!((second.size, second.root), (25, root(&kept)));
    for kept in &kept {
        let proof = world.trail.prove(Statement::Inclusion { number: kept.number, size: 25 }).await.unwrap();
        verify_inclusion(kept.number, 25, leaf_hash(&kept.record), &proof, &second.root).unwrap();
    }
    let proof = world.trail.prove(Statement::Consistency { first: 10, second: 25 }).await.unwrap();
    verify_consistency((10, &first.root), (25, &second.root), &proof).unwrap();
    assert_eq!(world.trail.prove(Statement::Inclusion { number: 3, size: 26 }).await.unwrap_err().reason, "AUDIT_TREE_SMALLER");
    // Checkpoints are in the log, and no leaves of the tree that they are about.
    let bounds = world.bus.bounds(&world.topic).await.unwrap();
    assert!(bounds[0].next >= 27, "{bounds:?}");
}

#[tokio::test]
async fn records_are_found_by_who_and_what_and_when_page_after_page() {
    let world = World::new().await;
    let _sink = world.sink("hub-0");
    world.log(0..30).await;
    world.grown(30).await;
    let numbers = async |filter: AuditFilter| {
        let (mut numbers, mut token) = (Vec::new(), String::new());
        loop {
            let page = world.trail.list(&filter, 0, 3, &token).await.unwrap();
            assert!(page.records.len() <= 3);
            numbers.extend(page.records.iter().map(|record| record.number));
            token = page.next_page_token;
            if token.is_empty() {
                return numbers;
            }
        }
    };
    assert_eq!(numbers(AuditFilter::default()).await, (0..30).collect::<Vec<_>>());
    let alice =
        AuditFilter { agent: Some("alice".to_owned()), operation: Some("GetContext".to_owned()), ..AuditFilter::default() };
    assert_eq!(numbers(alice).await, [0, 6, 12, 18, 24]);
    let some = AuditFilter { since: Some(record(3).at), until: Some(record(6).at), ..AuditFilter::default() };
    assert_eq!(numbers(some).await, [3, 4, 5]);
    let from = world.trail.list(&AuditFilter::default(), 28, 0, "").await.unwrap();
    assert_eq!(from.records.iter().map(|record| record.number).collect::<Vec<_>>(), [28, 29]);
    assert_eq!(world.trail.list(&AuditFilter::default(), 0, 0, "x").await.unwrap_err().reason, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn what_is_no_audit_record_is_a_leaf_all_the_same() {
    let world = World::new().await;
    let _sink = world.sink("hub-0");
    let hostile = AuditRecord { agent: "a\0b".to_owned(), ..record(1) };
    for value in [Bytes::from_static(b"\xff\xff"), hostile.encode(), Bytes::new()] {
        let record = Record { key: None, headers: Vec::new(), value: Some(value) };
        world.bus.append(&world.topic, 0, record).await.unwrap().await.unwrap();
    }
    let kept = world.grown(3).await;
    assert_eq!((&kept[0].record[..], kept[1].record.clone()), (&b"\xff\xff"[..], hostile.encode()));
    root(&kept);
    // No index takes it as it is, nor compressed.
    let long: String = std::iter::repeat_with(|| uuid::Uuid::new_v4().to_string()).take(100).collect();
    let long = AuditRecord { agent: long, ..record(2) };
    let logged = Record { key: None, headers: Vec::new(), value: Some(long.encode()) };
    world.bus.append(&world.topic, 0, logged).await.unwrap().await.unwrap();
    assert_eq!(world.grown(4).await[3].record, long.encode());
    let found = AuditFilter { agent: Some("ab".to_owned()), ..AuditFilter::default() };
    assert_eq!(world.store.records(&found, 0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_hub_can_add_and_not_change() {
    let world = World::new().await;
    let sink = world.with_three_signed().await;
    drop(sink);
    let pool = world.store.pool();
    for table in ["audit_record", "audit_node", "audit_growth", "audit_checkpoint"] {
        // What it may remove of the others is in `retention.rs`.
        let removal = (table == "audit_node").then(|| format!("DELETE FROM acb.{table}"));
        let changes = [format!("UPDATE acb.{table} SET tenant_id = tenant_id"), format!("TRUNCATE acb.{table}")];
        for change in removal.into_iter().chain(changes) {
            let refused = sqlx::query(sqlx::AssertSqlSafe(change.clone())).execute(pool).await.unwrap_err();
            assert!(refused.to_string().contains("permission denied"), "{change}: {refused}");
        }
    }
    assert!(world.kept().await.iter().all(|kept| AuditRecord::decode(&kept.record).unwrap().phase == Phase::Outcome));
}
