//! The outbox: who gets which entries, and in what order.

use std::{collections::HashSet, time::Instant};

use acb_hub_core::{
    contexts::{audience::Access, change::Change, outbox::NOUN, parts::ContextConfig},
    log::outbox::ports::{Claim, Instance, Outbox as _},
};
use sqlx::Row as _;
use uuid::Uuid;

use crate::{
    sharing::update,
    world::{DEADLINE, Replica, World},
};

/// From the beginning, passing over nothing.
pub(crate) async fn claim(replica: &Replica) -> Option<Box<dyn Claim>> {
    replica.outbox.claim(&[NOUN], None, &[]).await.unwrap()
}

fn instances(claim: &dyn Claim) -> HashSet<Uuid> {
    claim.entries().iter().map(|entry| entry.instance.id).collect()
}

/// Makes so many entries of one instance.
async fn fill(world: &World, instance: Uuid, count: i32) {
    let fill = "INSERT INTO acb.outbox (tenant_id, noun, instance, topic, kind, content)
                SELECT acb.current_tenant(), 'context', $1, 'notes', 2, '\\x00' FROM generate_series(1, $2)";
    sqlx::query(fill).bind(instance).bind(count).execute(&mut world.tenant.connect().await).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claimed_context_is_nobody_elses() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica_with(ContextConfig::default(), false).await;
    let first = one.share(alice, "first", Access::public()).await;
    let held = claim(&one).await.unwrap();
    one.contexts.update(&one.agent(alice), update(&first, "second")).await.unwrap();
    assert!(claim(&one).await.is_none(), "a later change must not overtake a claimed one");
    let other = one.share(alice, "other", Access::public()).await;
    let second = claim(&one).await.unwrap();
    assert_eq!(instances(&*second), HashSet::from([other.id.0]));
    let sequences: Vec<_> = held.entries().iter().map(|entry| entry.sequence).collect();
    held.done(&sequences).await.unwrap();
    let third = claim(&one).await.unwrap();
    let [entry] = third.entries() else { panic!("{:?}", third.entries()) };
    assert_eq!((entry.instance.id, entry.topic.as_str(), entry.kind), (first.id.0, "notes", Some(Change::Updated.number())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_many_entries_leaves_room_for_others() {
    let world = World::new().await;
    let one = world.replica_with(ContextConfig::default(), false).await;
    let (busy, quiet) = (Uuid::from_u128(1), Uuid::from_u128(2));
    fill(&world, busy, 20_000).await;
    fill(&world, quiet, 1).await;
    let began = Instant::now();
    let claim = claim(&one).await.unwrap();
    assert_eq!(instances(&*claim), HashSet::from([busy, quiet]));
    let sequences: Vec<_> = claim.entries().iter().map(|entry| entry.sequence).collect();
    assert!(sequences.is_sorted() && sequences.len() == 17, "{sequences:?}");
    // A walk over all of them at each claim would take hours for what an outage of the log leaves.
    assert!(began.elapsed().as_secs() < 2, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_take_turns() {
    let world = World::new().await;
    let one = world.replica_with(ContextConfig::default(), false).await;
    let all: Vec<Uuid> = (1..=40).map(Uuid::from_u128).collect();
    for instance in &all {
        fill(&world, *instance, 3).await;
    }
    let (mut after, mut seen) = (None::<Instance>, Vec::new());
    while let Some(claim) = one.outbox.claim(&[NOUN], after.as_ref(), &[]).await.unwrap() {
        after = Some(claim.last());
        seen.extend(instances(&*claim));
        // Nothing of it is done: even so it is the turn of others.
        drop(claim);
    }
    seen.sort_unstable();
    assert_eq!(seen, all);
    let passed_over = |count: usize| -> Vec<Instance> {
        all.iter().take(count).map(|id| Instance { noun: NOUN.to_owned(), id: *id }).collect()
    };
    // What was claimed last is free once its transaction has ended, which happens beside.
    let claim_rest = async || loop {
        if let Some(rest) = one.outbox.claim(&[NOUN], None, &passed_over(39)).await.unwrap() {
            return rest;
        }
        tokio::task::yield_now().await;
    };
    let rest = tokio::time::timeout(DEADLINE, claim_rest()).await.expect("it is free in time");
    assert_eq!(instances(&*rest), HashSet::from([all[39]]));
    assert!(one.outbox.claim(&["newer"], None, &[]).await.unwrap().is_none(), "others are left to who knows them");
}

/// Until the last of them is gone, hubs of the version before write what they know, and relay what is there.
#[tokio::test(flavor = "multi_thread")]
async fn hubs_of_the_version_before_and_of_this_one_work_side_by_side() {
    const HEADS: &str = "
        SELECT context_id, sequence FROM acb.context_outbox AS head
        WHERE NOT EXISTS (SELECT 1 FROM acb.context_outbox AS earlier
                          WHERE earlier.context_id = head.context_id AND earlier.sequence < head.sequence)
          AND context_id <> ALL ($1)
        ORDER BY sequence LIMIT 16 FOR UPDATE SKIP LOCKED";
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica_with(ContextConfig::default(), false).await;
    let shared = one.share(alice, "new", Access::public()).await;
    let mut old = world.tenant.connect().await;
    let (written, none): (Uuid, Vec<Uuid>) = (Uuid::from_u128(7), Vec::new());
    let insert = "INSERT INTO acb.context_outbox (tenant_id, context_id, type, event)
                  SELECT acb.current_tenant(), $1, 'notes', '\\x00' RETURNING context_id";
    let made = sqlx::query(insert).bind(written).fetch_all(&mut old).await.unwrap();
    assert_eq!(made.len(), 1, "the older hub takes an insert of no row for a key that is taken");

    let claimed = claim(&one).await.unwrap();
    let of_old = claimed.entries().iter().find(|entry| entry.instance.id == written).unwrap();
    assert_eq!((of_old.topic.as_str(), of_old.kind, of_old.content.as_ref()), ("notes", None, b"\0".as_slice()));
    assert_eq!(sqlx::query(HEADS).bind(&none).fetch_all(&mut old).await.unwrap().len(), 0, "they are claimed");
    drop(claimed);
    sqlx::query("BEGIN").execute(&mut old).await.unwrap();
    let heads = async || {
        let mut heads = Vec::new();
        // Until the claim is given back.
        while heads.len() < 2 {
            heads = sqlx::query(HEADS).bind(&none).fetch_all(&mut old).await.unwrap();
        }
        (heads, old)
    };
    let (heads, mut old) = tokio::time::timeout(crate::world::DEADLINE, heads()).await.unwrap();
    let ids: HashSet<Uuid> = heads.iter().map(|row| row.get("context_id")).collect();
    assert_eq!(ids, HashSet::from([written, shared.id.0]));
    assert!(claim(&one).await.is_none(), "and the other way round");
    let sequences: Vec<i64> = heads.iter().map(|row| row.get("sequence")).collect();
    sqlx::query("DELETE FROM acb.context_outbox WHERE sequence = ANY ($1)").bind(sequences).execute(&mut old).await.unwrap();
    sqlx::query("COMMIT").execute(&mut old).await.unwrap();
    assert!(claim(&one).await.is_none());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM acb.outbox").fetch_one(&mut old).await.unwrap();
    assert_eq!(left, 0);
}
