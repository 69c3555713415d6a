//! The sums of usage in PostgreSQL, where several replicas add to them at once.

use std::{collections::BTreeMap, time::Duration as StdDuration};

use acb_hub_core::{
    directory::agent::AgentId,
    log::bus::Partition,
    messages::{
        ports::Moved,
        position::first_of,
        sent::Sent,
        usage::month_began,
        usage_store::{Complete, Period, SumFilter, UsageAdvance, UsageStore as _, UsageSum, Whose},
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
                UsageAdvance {
                    partition,
                    from: first_of(from),
                    to: first_of(to),
                    hours: hours.collect(),
                    latest: None,
                    missing: 0,
                }
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
    assert_eq!(begun.months.len(), 8, "those of December, and the month before it: whoever asks may have another clock");
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

fn advance(from: u64, to: u64) -> UsageAdvance {
    let sum = UsageSum { sent: Sent { messages: to - from, bytes: 1 }, ..message(0, 0) };
    UsageAdvance { partition: 0, from: first_of(from), to: first_of(to), hours: vec![sum], latest: None, missing: 0 }
}

/// It ended a life of the log, and knew of no sums: their checkpoint stayed behind.
#[tokio::test]
async fn what_an_older_hub_cut_is_not_summed_twice() {
    let since = datetime!(2026-10-01 00:00 UTC);
    for (indexed, next) in [(60, 60), (150, 100)] {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let store = PgStore::new(tenant.connect_options());
        store.begin(EPOCH, &[0], since).await.unwrap();
        store.add(EPOCH, &[advance(0, 100)]).await.unwrap();
        let mut connection = tenant.connect().await;
        // Twice, before a newer one started.
        let cuts = "INSERT INTO acb.log_cut (tenant_id, ended, epoch) SELECT acb.current_tenant(), ended, ended + 1 FROM generate_series(7, 8) AS ended";
        sqlx::query(cuts).execute(&mut connection).await.unwrap();
        for _ in 0..2 {
            let begun = store.begin(EPOCH + 2, &[first_of(indexed)], since).await.unwrap();
            assert_eq!((begun.next, begun.gaps), (vec![first_of(next)], 1), "and that is told once");
        }
        store.add(EPOCH + 2, &[advance(next, next + 5)]).await.unwrap();
        let filter = SumFilter { whose: Whose::All, by: Period::Month, from: None, to: None, after: None };
        assert_eq!(store.sums(&filter, 10).await.unwrap()[0].sent.messages, 105);
        assert_eq!(store.gaps_lately().await.unwrap(), 1);
    }
}

/// A year of hours, page by page.
#[tokio::test]
async fn days_are_listed_without_a_gap_or_a_double() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let store = PgStore::new(tenant.connect_options());
    let mut connection = tenant.connect().await;
    // Three agents; nothing in spring.
    let hours = "INSERT INTO acb.usage_sum (tenant_id, period, starts_at, agent_id, agent, messages, bytes)
        SELECT acb.current_tenant(), 'hour', at, ('00000000-0000-0000-0000-00000000000' || n)::uuid, 'agent-' || n, 1, 2
        FROM generate_series('2025-01-01 00:00Z'::timestamptz, '2025-12-31 23:00Z', '6 hours') AS at, generate_series(1, 3) AS n
        WHERE extract(month FROM at AT TIME ZONE 'UTC') NOT IN (3, 4, 5)";
    sqlx::query(hours).execute(&mut connection).await.unwrap();
    let list = async |whose: Whose, from, to, size| {
        let mut filter = SumFilter { whose, by: Period::Day, from, to, after: None };
        let mut all = Vec::new();
        loop {
            let page = store.sums(&filter, size).await.unwrap();
            assert!(page.len() <= size);
            let Some(last) = page.last() else { return all };
            filter.after = Some((last.starts_at, last.agent));
            all.extend(page);
        }
    };
    let one = Whose::Agent(AgentId(Uuid::from_u128(2)));
    for (whose, size, agents) in
        [(Whose::All, 7, 3), (Whose::All, 1000, 3), (one, 100, 1), (Whose::Named("agent-3".to_owned()), 9, 1)]
    {
        let days = list(whose.clone(), None, None, size).await;
        assert_eq!(days.len(), (365 - 31 - 30 - 31) * agents, "{whose:?}");
        assert!(days.is_sorted_by(|one, next| (one.starts_at, one.agent) < (next.starts_at, next.agent)));
        assert!(days.iter().all(|day| day.sent == Sent { messages: 4, bytes: 8 }));
        let (from, to) = (datetime!(2025-02-27 00:00 UTC), datetime!(2025-06-02 00:30 UTC));
        assert_eq!(list(whose, Some(from), Some(to), size).await.len(), 4 * agents);
    }
    let whole = list(Whose::All, None, Some(datetime!(2025-01-02 00:00 UTC)), 10).await;
    assert_eq!(whole.len(), 3, "a day that begins then is none of them");
}

/// When an hour is closed.
const CLOSED: StdDuration = StdDuration::from_secs(3600);
/// A life of the topic of usage.
const TOPIC: u64 = 3;

/// What agent 1 sent in one record at this offset, and at which hour of a partition.
fn record(partition: Partition, offset: u64, hour: OffsetDateTime) -> UsageAdvance {
    let sum = UsageSum { starts_at: hour, sent: Sent { messages: 2, bytes: 10 }, ..message(0, 0) };
    UsageAdvance {
        partition,
        from: first_of(offset),
        to: first_of(offset + 1),
        hours: vec![sum],
        latest: Some((hour, first_of(offset))),
        missing: 0,
    }
}

#[tokio::test]
async fn it_is_told_of_closed_hours_what_and_how_far() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let store = PgStore::new(tenant.connect_options());
    store.begin(EPOCH, &[0, 0, 0], datetime!(2026-10-01 00:00 UTC)).await.unwrap();
    let mut connection = tenant.connect().await;
    sqlx::raw_sql("UPDATE acb.usage_checkpoint SET last_hour = '2026-01-01'").execute(&mut connection).await.unwrap();
    let now = OffsetDateTime::now_utc();
    // Early in an hour: the test must not run across the next one.
    let this = now - Duration::seconds(now.unix_timestamp().rem_euclid(3600)) - Duration::nanoseconds(now.nanosecond().into());
    let (last, before) = (this - Duration::HOUR, this - Duration::hours(2));
    let unexported = async |limit| store.unexported(EPOCH, TOPIC, CLOSED, limit).await.unwrap();
    let empty = unexported(10).await;
    assert_eq!((empty.hours.len(), empty.next.as_slice()), (0, &[][..]), "who has nothing to tell asks no further");
    store.add(EPOCH, &[record(0, 0, before), record(1, 0, before)]).await.unwrap();
    store.add(EPOCH, &[record(0, 1, last), record(1, 1, this)]).await.unwrap();
    store.add(EPOCH, &[record(1, 2, this)]).await.unwrap();
    // Two hours are closed; the third begins at the second record of partition 1, and nothing is known to be in partition 2.
    let (one, two, three) = (first_of(1), first_of(2), first_of(3));
    let found = unexported(10).await;
    let sums: Vec<_> = found.hours.iter().map(|sum| (sum.starts_at, sum.sent.messages)).collect();
    assert_eq!(sums, [(before, 4), (last, 2)]);
    assert_eq!(
        (found.next.clone(), found.complete),
        (vec![two, three, 0], Some(Complete { through: last, below: vec![two, one, 0] }))
    );
    let first = unexported(1).await;
    assert_eq!((first.hours.len(), first.complete), (1, None), "there is more");
    store.exported(TOPIC, &first.hours).await.unwrap();
    assert_eq!(unexported(1).await.hours, found.hours[1..]);
    // Late: that hour again, with its new total.
    store.add(EPOCH, &[record(2, 0, before)]).await.unwrap();
    let late = unexported(10).await;
    assert_eq!(late.hours.iter().map(|sum| sum.sent.messages).collect::<Vec<_>>(), [6, 2]);
    store.exported(TOPIC, &late.hours).await.unwrap();
    assert_eq!(unexported(10).await.hours, []);
    // A topic that was made anew has nothing, and who told the other one marks nothing.
    let anew = store.unexported(EPOCH, TOPIC + 1, CLOSED, 10).await.unwrap();
    assert_eq!(anew.hours, late.hours);
    store.exported(TOPIC, &late.hours).await.unwrap();
    assert_eq!(store.unexported(EPOCH, TOPIC + 1, CLOSED, 10).await.unwrap().hours, late.hours);
    // Of a life that is over nothing is told.
    assert_eq!(store.unexported(EPOCH + 1, TOPIC + 1, CLOSED, 10).await.unwrap().hours, []);
}

#[tokio::test]
async fn sums_are_raised_and_never_lowered() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let store = PgStore::new(tenant.connect_options());
    store.begin(EPOCH, &[0, 0], datetime!(2026-10-01 00:00 UTC)).await.unwrap();
    let (one, two) = (datetime!(2026-10-31 23:00 UTC), datetime!(2026-11-01 00:00 UTC));
    store.add(EPOCH, &[record(0, 0, one)]).await.unwrap();
    let next = [first_of(1), 0];
    assert!(store.rebuild(EPOCH, &[0, 0]).await.unwrap().is_none(), "they go on elsewhere");
    let sum = |starts_at, messages| UsageSum { starts_at, sent: Sent { messages, bytes: messages }, ..message(0, 0) };
    let listed = async |by| {
        let filter = SumFilter { whose: Whose::All, by, from: None, to: None, after: None };
        let sums = store.sums(&filter, 10).await.unwrap();
        sums.into_iter().map(|sum| (sum.sent.messages, sum.sent.bytes)).collect::<Vec<_>>()
    };
    // What is dropped changes nothing.
    let mut rebuild = store.rebuild(EPOCH, &next).await.unwrap().unwrap();
    rebuild.raise(&[sum(one, 100)]).await.unwrap();
    drop(rebuild);
    assert_eq!(listed(Period::Hour).await, [(2, 10)]);
    let mut rebuild = store.rebuild(EPOCH, &next).await.unwrap().unwrap();
    assert_eq!(rebuild.last_hour(), Some(one));
    // One is lower than what there is, one has more messages, and one is told twice.
    rebuild.raise(&[sum(one, 1), sum(two, 7)]).await.unwrap();
    rebuild.raise(&[sum(one, 30), sum(two, 7)]).await.unwrap();
    rebuild.done(&[first_of(1), first_of(9)], two).await.unwrap();
    assert_eq!(listed(Period::Hour).await, [(30, 30), (7, 7)]);
    assert_eq!(listed(Period::Month).await, [(30, 30), (7, 7)]);
    let begun = store.begin(EPOCH, &[0, 0], datetime!(2026-10-01 00:00 UTC)).await.unwrap();
    assert_eq!((begun.next, begun.gaps), (vec![first_of(1), first_of(9)], 0));
}

/// What a hub that was taken over could otherwise take off its tenant's bill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_removes_nothing_that_the_topic_of_usage_was_told_within_its_retention() {
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let mut connection = tenant.connect().await;
    let (usage, messages) = (format!("acb.{}.sys.usage", tenant.name()), format!("acb.{}.sys.messages", tenant.name()));
    for (topic, offset, age) in [(&usage, 0_i64, "1 day"), (&usage, 1, "400 days"), (&messages, 0, "1 day")] {
        sqlx::query(
            r#"INSERT INTO acb.bus_record (tenant_id, topic, partition, "offset", value, log_time)
               VALUES (acb.current_tenant(), $1, 0, $2, 'x', now() - $3::interval)"#,
        )
        .bind(topic)
        .bind(offset)
        .bind(age)
        .execute(&mut connection)
        .await
        .unwrap();
    }
    for (topic, gone) in [(&usage, 1), (&messages, 1), (&usage, 0)] {
        let removed =
            sqlx::query("DELETE FROM acb.bus_record WHERE topic = $1").bind(topic).execute(&mut connection).await.unwrap();
        assert_eq!(removed.rows_affected(), gone, "{topic}");
    }
}
