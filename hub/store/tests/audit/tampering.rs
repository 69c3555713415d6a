//! Whoever owns the tables changes rows by hand: verification names the first record that is wrong.

use acb_tlog::verification::{Verification, Verified, Wrong};

use crate::world::World;

const SIZE: u64 = 12;

/// What verification says of twelve signed records after this was done to the rows.
async fn verified_after(changes: &[&'static str]) -> Result<Verified, Wrong> {
    let world = World::new().await;
    let sink = world.sink("hub-0");
    world.log(0..SIZE).await;
    world.grown(SIZE).await;
    let checkpoint = world.signed(SIZE).await;
    drop(sink);
    for change in changes {
        assert_ne!(world.sql(change).await, 0, "{change}");
    }
    let mut verification = Verification::default();
    verification.expect(&checkpoint)?;
    for kept in world.kept().await {
        verification.record(kept.number, &kept.record, kept.leaf)?;
    }
    verification.end()
}

/// By way of numbers that are not taken: each must be another's at no time.
const UP: [&str; 2] = [
    "UPDATE acb.audit_record SET number = number + 1000 WHERE tenant_id = $1 AND number >= 5",
    "UPDATE acb.audit_record SET number = number - 999 WHERE tenant_id = $1 AND number >= 1000",
];
const DOWN: [&str; 2] = [UP[0], "UPDATE acb.audit_record SET number = number - 1001 WHERE tenant_id = $1 AND number >= 1000"];
const REMOVE: &str = "DELETE FROM acb.audit_record WHERE tenant_id = $1 AND number = 5";
const INSERT: &str = "INSERT INTO acb.audit_record SELECT tenant_id, 5, record, at, agent, operation FROM acb.audit_record
                      WHERE tenant_id = $1 AND number = 2";

#[tokio::test]
async fn rows_that_nobody_touched_are_as_they_were_signed() {
    assert_eq!(verified_after(&[]).await, Ok(Verified { records: (0, SIZE), signed: SIZE, before: 0 }));
}

#[tokio::test]
async fn a_record_that_was_changed_is_named() {
    let change = "UPDATE acb.audit_record SET record = record || '\\x00' WHERE tenant_id = $1 AND number = 5";
    assert_eq!(verified_after(&[change]).await, Err(Wrong::Changed(5)));
}

#[tokio::test]
async fn a_record_that_was_removed_is_named() {
    assert_eq!(verified_after(&[REMOVE]).await, Err(Wrong::Missing(5, 6)));
    assert_eq!(verified_after(&[REMOVE, DOWN[0], DOWN[1]]).await, Err(Wrong::Changed(5)), "and the others moved up");
    let last = "DELETE FROM acb.audit_record WHERE tenant_id = $1 AND number >= 9";
    assert_eq!(verified_after(&[last]).await, Err(Wrong::CutOff(9, 11)));
}

#[tokio::test]
async fn a_record_that_was_put_in_is_named() {
    assert_eq!(verified_after(&[UP[0], UP[1], INSERT]).await, Err(Wrong::Changed(5)));
    let behind = "INSERT INTO acb.audit_record SELECT tenant_id, 12, record, at, agent, operation FROM acb.audit_record
                  WHERE tenant_id = $1 AND number = 2";
    assert_eq!(verified_after(&[behind]).await, Err(Wrong::PutIn(12)));
}

#[tokio::test]
async fn records_that_changed_places_are_named() {
    let swap = [
        "UPDATE acb.audit_record SET number = 1005 WHERE tenant_id = $1 AND number = 5",
        "UPDATE acb.audit_record SET number = 5 WHERE tenant_id = $1 AND number = 7",
        "UPDATE acb.audit_record SET number = 7 WHERE tenant_id = $1 AND number = 1005",
    ];
    assert_eq!(verified_after(&swap).await, Err(Wrong::Changed(5)));
}

#[tokio::test]
async fn who_changes_the_tree_with_the_record_meets_the_signature() {
    let forge = [
        "UPDATE acb.audit_record SET record = '\\x00' WHERE tenant_id = $1 AND number = 5",
        "UPDATE acb.audit_node SET hash = sha256('\\x0000') WHERE tenant_id = $1 AND level = 0 AND index = 5",
    ];
    assert_eq!(verified_after(&forge).await, Err(Wrong::NotSigned(0, 11)));
}
