//! What is past its retention goes, and what is kept is proved as before.

use acb_hub_core::audit::{
    ports::{AuditFilter, AuditStore as _},
    reading::Statement,
};
use acb_tlog::{
    proof::{verify_consistency, verify_inclusion},
    tree::leaf_hash,
    verification::Verification,
};

use crate::world::World;

/// What was in the tree when it had ten records, as if that had been so many days ago.
const AGED_91: &str = "UPDATE acb.audit_growth SET at = at - interval '91 days' WHERE tenant_id = $1 AND first < 10";

#[tokio::test]
async fn what_is_past_its_retention_goes_and_the_rest_is_proved_as_before() {
    let world = World::new().await;
    let sink = world.sink("hub-0");
    world.log(0..5).await;
    world.grown(5).await;
    world.log(5..10).await;
    world.grown(10).await;
    let before = world.signed(10).await;
    world.log(10..25).await;
    let all = world.grown(25).await;
    let after = world.signed(25).await;
    assert_eq!(world.store.forget(100).await.unwrap(), 0, "nothing is old");

    assert!(world.sql(AGED_91).await >= 2);
    let first = async || world.kept().await.first().unwrap().number;
    world.until(|| async { first().await > 0 }).await;
    let kept_from = first().await;
    assert_eq!(kept_from, 10);
    let kept = world.kept().await;
    assert_eq!(kept, all[usize::try_from(kept_from).unwrap()..]);

    for kept in &kept {
        let proof = world.trail.prove(Statement::Inclusion { number: kept.number, size: 25 }).await.unwrap();
        verify_inclusion(kept.number, 25, leaf_hash(&kept.record), &proof, &after.root).unwrap();
    }
    let proof = world.trail.prove(Statement::Consistency { first: 10, second: 25 }).await.unwrap();
    verify_consistency((10, &before.root), (25, &after.root), &proof).unwrap();
    let mut verification = Verification::default();
    verification.expect(&after).unwrap();
    let prefix = world.trail.prove(Statement::Prefix { size: kept_from }).await.unwrap();
    verification.prefix(kept_from, prefix).unwrap();
    for kept in &kept {
        verification.record(kept.number, &kept.record, kept.leaf).unwrap();
    }
    assert_eq!(verification.end().unwrap().signed, 25);
    drop(sink);

    // Another replica goes on from there.
    let _sink = world.sink("hub-1");
    world.log(25..27).await;
    let size = || async { world.store.size().await.unwrap() };
    world.until(|| async { size().await == 27 }).await;
    world.signed(27).await;
}

#[tokio::test]
async fn a_trail_that_nothing_was_added_to_for_long_keeps_its_last_records() {
    let world = World::new().await;
    drop(world.with_three_signed().await);
    world.sql("UPDATE acb.audit_growth SET at = at - interval '10 years' WHERE tenant_id = $1").await;
    world.store.forget(100).await.unwrap();
    assert_eq!(world.kept().await.last().unwrap().number, 2);
    assert_eq!((world.store.size().await.unwrap(), world.store.head().await.unwrap().tree.size()), (3, 3));
    assert_eq!(world.store.checkpoint().await.unwrap().unwrap().size, 3);
}

#[tokio::test]
async fn a_tenant_that_keeps_its_trail_longer_has_it_longer() {
    let world = World::new().await;
    let sink = world.sink("hub-0");
    for end in [5, 10] {
        world.log(end - 5..end).await;
        world.grown(end).await;
    }
    drop(sink);
    world.sql("UPDATE acb.tenant SET audit_days = 100 WHERE tenant_id = $1").await;
    world.sql(AGED_91).await;
    assert_eq!(world.store.forget(100).await.unwrap(), 0);
    world.sql("UPDATE acb.tenant SET audit_days = 90 WHERE tenant_id = $1").await;
    let first = || async { world.kept().await.first().unwrap().number };
    assert_eq!((world.store.forget(2).await.unwrap(), first().await), (2, 2), "a few at a time");
    world.store.forget(100).await.unwrap();
    assert!((5..10).contains(&first().await), "the last growth stays");
}

#[tokio::test]
async fn a_hub_can_remove_nothing_that_is_to_be_kept() {
    let world = World::new().await;
    let sink = world.sink("hub-0");
    for end in [5, 10] {
        world.log(end - 5..end).await;
        world.grown(end).await;
    }
    world.signed(10).await;
    drop(sink);
    let pool = world.store.pool();
    for table in ["audit_record", "audit_growth", "audit_checkpoint"] {
        let removed = sqlx::query(sqlx::AssertSqlSafe(format!("DELETE FROM acb.{table}"))).execute(pool).await.unwrap();
        assert_eq!(removed.rows_affected(), 0, "{table}");
    }
    // By when the tree grew records are let go: that is PostgreSQL's to say.
    let aged = "INSERT INTO acb.audit_growth (tenant_id, first, size, epoch, next_offset, at)
                SELECT acb.current_tenant(), 10, 11, 0, 11, now() - interval '1 year'";
    let refused = sqlx::query(aged).execute(pool).await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    // One early time, as of a clock that was behind, lets go of nothing that is before it.
    world.sql("UPDATE acb.audit_growth SET at = at - interval '1 year' WHERE tenant_id = $1 AND first >= 5").await;
    for zone in ["SET timezone = '-15:59'", "SET timezone = '15:59'"] {
        sqlx::query(zone).execute(pool).await.unwrap();
        let removed = sqlx::query("DELETE FROM acb.audit_record").execute(pool).await.unwrap().rows_affected();
        assert_eq!(removed, 0);
    }
    world.sql(AGED_91).await;
    let removed = sqlx::query("DELETE FROM acb.audit_record").execute(pool).await.unwrap().rows_affected();
    assert!((5..10).contains(&removed), "{removed}");
    assert!(world.store.records(&AuditFilter::default(), 0, 100).await.unwrap().last().unwrap().number == 9);
}
