//! The sums of usage in PostgreSQL, where several replicas add to them at once.

use std::collections::BTreeMap;

use acb_hub_core::{
    directory::agent::AgentId,
    log::bus::Partition,
    messages::{
        ports::Moved,
        position::first_of,
        sent::Sent,
        usage::month_began,
        usage_store::{Period, SumFilter, UsageAdvance, UsageStore as _, UsageSum, Whose},
    },
};
use acb_hub_store::PgStore;
use acb_testbed::Postgres;
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::Uuid;

const PARTITIONS: usize = 3;
const RECORDS: u64 = 400;
const EPOCH: u64 = 7;

/// A message of each record, over five days and the end of a month: the place in its partition says when it was sent and by whom.
fn message(partition: usize, offset: u64) -> UsageSum {
    let at = datetime!(2026-11-28 00:00 UTC) + Duration::minutes(18) * i32::try_from(offset).unwrap();
    // One in ten was read late.
    let at = if offset % 10 == 9 { at - Duration::hours(2) } else { at };
    UsageSum {
        starts_at: at - Duration::seconds(at.unix_timestamp().rem_euclid(3600)),
        agent: AgentId(Uuid::from_u128(u128::from(offset % 4) + 1)),
        name: format!("agent-{}", offset % 4),
        sent: Sent { messages: 1 + offset % 3, bytes: 100 + offset + partition as u64 },
    }
}

type Sums = BTreeMap<(OffsetDateTime, AgentId), Sent>;

fn add(sums: &mut Sums, at: OffsetDateTime, sum: &UsageSum) {
    let sent = sums.entry((at, sum.agent)).or_default();
    sent.messages += sum.sent.messages;
    sent.bytes += sum.sent.bytes;
}

/// What was sent, counted from the messages themselves.
fn counted(begin: impl Fn(OffsetDateTime) -> OffsetDateTime) -> Sums {
    let mut sums = Sums::new();
    for (partition, offset) in (0..PARTITIONS).flat_map(|partition| (0..RECORDS).map(move |offset| (partition, offset))) {
        let sum = message(partition, offset);
        add(&mut sums, begin(sum.starts_at), &sum);
    }
    sums
}

/// Adds what a replica has read, in steps of its own, until nothing is left.
async fn replica(store: PgStore, step: u64) {
    let mut next = store.begin(EPOCH, &[0; PARTITIONS], datetime!(2026-10-01 00:00 UTC)).await.unwrap().next;
    while next.iter().any(|next| *next < first_of(RECORDS)) {
        let advances: Vec<UsageAdvance> = (0..PARTITIONS)
            .map(|partition| {
                let from = next[partition] / first_of(1);
                let to = (from + 1 + (from * 31 + step) % step).min(RECORDS);
                let mut hours = Sums::new();
                let mut names = BTreeMap::new();
                for offset in from..to {
                    let sum = message(partition, offset);
                    add(&mut hours, sum.starts_at, &sum);
                    names.insert(sum.agent, sum.name);
                }
                let hours = hours.into_iter().map(|((starts_at, agent), sent)| UsageSum {
                    starts_at,
                    agent,
                    name: names[&agent].clone(),
                    sent,
                });
                let partition = Partition::try_from(partition).unwrap();
                UsageAdvance { partition, from: first_of(from), to: first_of(to), hours: hours.collect(), missing: 0 }
            })
            .filter(|advance| advance.from < advance.to)
            .collect();
        let (moved, gaps) = store.add(EPOCH, &advances).await.unwrap();
        assert_eq!(gaps, 0);
        for (advance, moved) in advances.iter().zip(moved) {
            next[advance.partition as usize] = match moved {
                Moved::Won => advance.to,
                Moved::Lost(at) => at,
                Moved::Gone => panic!("it is there"),
            };
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_over_five_days_agree_with_the_messages() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let store = || PgStore::new(tenant.connect_options());
    tokio::join!(replica(store(), 7), replica(store(), 20), replica(store(), 60));
    for (by, begin) in [
        (Period::Hour, (|at| at) as fn(OffsetDateTime) -> OffsetDateTime),
        (Period::Day, |at| at.date().midnight().assume_utc()),
        (Period::Month, month_began),
    ] {
        let filter = SumFilter { whose: Whose::All, by, from: None, to: None, after: None };
        let found = store().sums(&filter, 10_000).await.unwrap();
        let found: Sums = found.into_iter().map(|sum| ((sum.starts_at, sum.agent), sum.sent)).collect();
        assert_eq!(found, counted(begin), "{by:?}");
    }
    let begun = store().begin(EPOCH, &[0; PARTITIONS], datetime!(2026-12-01 00:00 UTC)).await.unwrap();
    assert_eq!(begun.next, [first_of(RECORDS); PARTITIONS]);
    assert_eq!(begun.months.len(), 4, "those of December");
    // Another log: what was summed stays, and that something may be missing is told once.
    for _ in 0..2 {
        let begun = store().begin(EPOCH + 1, &[5; PARTITIONS], datetime!(2026-12-01 00:00 UTC)).await.unwrap();
        assert_eq!((begun.next, begun.gaps), (vec![0; PARTITIONS], 1));
    }
    // Whatever a hub takes for the time: none of them is 399 days old.
    assert_eq!(store().forget_hours(datetime!(2027-12-01 00:00 UTC), 10_000).await.unwrap(), 0);
    let mut superuser = Postgres::shared().await.superuser().await;
    let age = format!(
        "SET session_replication_role = replica;
         UPDATE acb.usage_sum SET starts_at = starts_at - interval '3 years' WHERE period = 'hour' AND tenant_id = '\\x{}'",
        tenant.id_hex()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(age)).execute(&mut superuser).await.unwrap();
    // Hours are forgotten, and months are not.
    let forgotten = store().forget_hours(datetime!(2024-12-01 00:00 UTC), 10_000).await.unwrap();
    assert_eq!(forgotten as usize, counted(|at| at).len());
    let months = SumFilter { whose: Whose::Named("agent-1".to_owned()), by: Period::Month, from: None, to: None, after: None };
    assert_eq!(store().sums(&months, 10).await.unwrap().len(), 2);
}
