//! What agents have sent, summed by hour and month, and the limits of a month. Shared with the suite that runs on PostgreSQL.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use acb_hub_core::{
    directory::{
        agent::{Agent, Role},
        limits::Limits,
    },
    fault::Code,
    log::{
        bus::{Partition, TopicName},
        partition::partition_of,
    },
    messages::{
        config::MessagesConfig,
        sent::Sent,
        service::Messages,
        usage_event::UsageEvent,
        usage_store::Period,
        usage_sums::{UsagePage, UsageQuery},
    },
};

use crate::world::{World, eventually, keyed, to};

fn query(by: Period) -> UsageQuery {
    UsageQuery { agent: String::new(), by, from: None, to: None, page_size: 0, page_token: String::new() }
}

fn admin(world: &World) -> Agent {
    Agent { role: Role::Admin, ..(*world.agent("d")).clone() }
}

async fn list(world: &World, replica: &Messages, query: &UsageQuery) -> UsagePage {
    replica.usage_sums().list(&admin(world), query).await.unwrap()
}

/// What an agent has sent, as it is summed.
async fn summed(world: &World, replica: &Messages, agent: &str, by: Period) -> Sent {
    let page = list(world, replica, &UsageQuery { agent: agent.to_owned(), ..query(by) }).await;
    let add = |all: Sent, sent: Sent| Sent { messages: all.messages + sent.messages, bytes: all.bytes + sent.bytes };
    page.sums.iter().map(|sum| sum.sent).fold(Sent::default(), add)
}

/// Where the sums lack something.
pub(crate) async fn gaps(world: &World, replica: &Messages) -> Vec<String> {
    list(world, replica, &query(Period::Hour)).await.gaps.into_iter().map(|gap| gap.what).collect()
}

/// Whoever dies when.
pub(crate) async fn what_is_sent_is_in_one_sum(world: &World) {
    let (a, b) = (world.agent("a"), world.agent("b"));
    let mut replicas = vec![world.replica("0").await, world.replica("1").await];
    for number in 0..60_usize {
        let replica = &replicas[number % 2];
        let key = number.to_string();
        replica.send(&a, keyed("c", "12345", &key)).await.unwrap();
        // A repetition counts for nothing, on whichever replica.
        replicas[(number + 1) % 2].send(&a, keyed("c", "12345", &key)).await.unwrap();
        replica.send(&b, to("c", "1")).await.unwrap();
        if number % 12 == 7 {
            let place = number / 12 % 2;
            replicas[place].stop();
            replicas[place] = world.replica(&format!("{number}")).await;
        }
    }
    let expected = [("a", Sent { messages: 60, bytes: 300 }), ("b", Sent { messages: 60, bytes: 60 })];
    for (agent, expected) in expected {
        eventually(async || summed(world, &replicas[0], agent, Period::Hour).await == expected).await;
        for by in [Period::Day, Period::Month] {
            assert_eq!(summed(world, &replicas[1], agent, by).await, expected, "{agent} {by:?}");
        }
    }
    assert_eq!(list(world, &replicas[0], &query(Period::Hour)).await.gaps, []);
    // One that starts counts the same months, and sums nothing once more.
    let late = world.replica("late").await;
    assert_eq!(late.usage(&a)[2].used, 60);
    late.send(&a, to("c", "12345")).await.unwrap();
    let expected = Sent { messages: 61, bytes: 305 };
    eventually(async || summed(world, &late, "a", Period::Hour).await == expected).await;
    for replica in replicas {
        replica.stop();
    }
}

pub(crate) async fn sums_are_one_s_own_and_an_administrator_s(world: &World) {
    let replica = world.replica("only").await;
    let (a, b) = (world.agent("a"), world.agent("b"));
    for agent in [&a, &b] {
        replica.send(agent, to("c", "x")).await.unwrap();
    }
    eventually(async || list(world, &replica, &query(Period::Month)).await.sums.len() == 2).await;
    let sums = replica.usage_sums();
    let own = sums.list(&a, &query(Period::Day)).await.unwrap();
    assert_eq!(own.sums.iter().map(|sum| (sum.agent, sum.name.as_str())).collect::<Vec<_>>(), [(a.id, "a")]);
    let others = UsageQuery { agent: "b".to_owned(), ..query(Period::Hour) };
    assert_eq!(sums.list(&a, &others).await.unwrap_err().code, Code::PermissionDenied);
    let auditor = Agent { role: Role::Auditor, ..(*a).clone() };
    assert_eq!(sums.list(&auditor, &others).await.unwrap().sums[0].agent, b.id);
    let nobody = UsageQuery { agent: "nobody".to_owned(), ..query(Period::Hour) };
    assert_eq!(sums.list(&auditor, &nobody).await.unwrap().sums, []);
    // Page after page, and only of the time that was asked for.
    for by in [Period::Hour, Period::Day, Period::Month] {
        let mut page = UsageQuery { page_size: 1, ..query(by) };
        let mut found = Vec::new();
        loop {
            let UsagePage { sums, next_page_token, .. } = list(world, &replica, &page).await;
            found.extend(sums);
            page.page_token = next_page_token;
            if page.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(found.len(), 2, "{by:?}");
        let (first, later) = (found[0].starts_at, found[0].starts_at + time::Duration::days(40));
        let count = async |from, to| list(world, &replica, &UsageQuery { from, to, ..query(by) }).await.sums.len();
        assert_eq!(count(Some(first), None).await, 2, "{by:?}");
        assert_eq!(count(Some(first + time::Duration::MINUTE), Some(later)).await, 2, "{by:?} that the time is in");
        assert_eq!(count(None, Some(first)).await, 0, "{by:?}");
        assert_eq!(count(Some(later), None).await, 0, "{by:?}");
    }
}

pub(crate) async fn a_month_holds_over_replicas_that_come_and_go(world: &World) {
    world.limit_all("a", Limits { messages_per_month: Some(5), ..Limits::default() });
    let a = world.agent("a");
    let one = world.replica("one").await;
    for _ in 0..3 {
        one.send(&a, to("b", "x")).await.unwrap();
    }
    eventually(async || summed(world, &one, "a", Period::Month).await.messages == 3).await;
    one.stop();
    let (two, three) = (world.replica("two").await, world.replica("three").await);
    assert_eq!(two.usage(&a)[2].used, 3);
    two.send(&a, to("b", "x")).await.unwrap();
    eventually(async || three.usage(&a)[2].used == 4).await;
    three.send(&a, to("b", "x")).await.unwrap();
    for replica in [&two, &three] {
        eventually(async || replica.usage(&a)[2].used == 5).await;
        let refused = replica.send(&a, to("b", "x")).await.unwrap_err();
        assert_eq!((refused.code, refused.reason), (Code::ResourceExhausted, "MONTHLY_LIMIT_EXCEEDED"));
        let exhausted = refused.exhausted.unwrap();
        assert_eq!((exhausted.subject.as_str(), exhausted.limit, exhausted.most), ("agent a", "messagesPerMonth", 5));
        assert!(exhausted.retry_after.is_some());
    }
    // Up at once, and others have months of their own.
    two.send(&world.agent("b"), to("a", "x")).await.unwrap();
    world.limit_all("a", Limits { messages_per_month: Some(6), ..Limits::default() });
    two.send(&a, to("b", "x")).await.unwrap();
    assert_eq!(two.send(&a, to("b", "x")).await.unwrap_err().reason, "MONTHLY_LIMIT_EXCEEDED");
}

/// The store is what it was before, and the log is not: the sums go on from where they are.
pub(crate) async fn sums_of_a_store_that_went_back_go_on<B>(world: &World, copy: impl AsyncFn() -> B, harm: impl AsyncFn(B)) {
    let (replica, a) = (world.replica("before").await, world.agent("a"));
    replica.send(&a, to("b", "1")).await.unwrap();
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 1).await;
    let before = copy().await;
    for _ in 0..4 {
        replica.send(&a, to("b", "2")).await.unwrap();
    }
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 5).await;
    harm(before).await;
    tokio::time::timeout(crate::world::PATIENCE, replica.stopped()).await.expect("it ends in time");
    let replica = world.replica("after").await;
    assert_eq!(replica.usage(&a)[2].used, 5, "the month is whole again");
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 5).await;
    assert_eq!(summed(world, &replica, "a", Period::Month).await.messages, 5);
    assert_eq!(gaps(world, &replica).await, [""; 0]);
}

/// The store is what it was before, and the log has forgotten what came after.
pub(crate) async fn a_gap_of_the_sums_is_told<B>(
    world: &World,
    copy: impl AsyncFn() -> B,
    harm: impl AsyncFn(B),
    forget: impl AsyncFn(),
) {
    let (replica, a) = (world.replica("before").await, world.agent("a"));
    replica.send(&a, to("b", "1")).await.unwrap();
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 1).await;
    let before = copy().await;
    for _ in 0..4 {
        replica.send(&a, to("b", "2")).await.unwrap();
    }
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 5).await;
    replica.stop();
    harm(before).await;
    forget().await;
    let replica = world.replica("after").await;
    replica.send(&a, to("b", "3")).await.unwrap();
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 2).await;
    let gaps = list(world, &replica, &query(Period::Hour)).await.gaps;
    assert_eq!(gaps.iter().map(|gap| gap.records).collect::<Vec<_>>(), [Some(4)]);
    // Once, however often a replica starts.
    replica.stop();
    let replica = world.replica("again").await;
    replica.send(&a, to("b", "3")).await.unwrap();
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 3).await;
    assert_eq!(list(world, &replica, &query(Period::Hour)).await.gaps.len(), 1);
}

/// It was too slow, and the log's retention overtook it.
pub(crate) async fn a_gap_that_comes_while_a_replica_reads_is_told(world: &World, lose: impl AsyncFn(Partition)) {
    let (replica, a) = (world.replica("only").await, world.agent("a"));
    replica.send(&a, to("b", "1")).await.unwrap();
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 1).await;
    let topic = TopicName::system(&world.tenant, "messages");
    lose(partition_of(a.id.0, world.bus.topic(&topic).await.unwrap().partitions)).await;
    replica.send(&a, to("b", "2")).await.unwrap();
    eventually(async || summed(world, &replica, "a", Period::Hour).await.messages == 2).await;
    let gaps = list(world, &replica, &query(Period::Hour)).await.gaps;
    assert_eq!(gaps.iter().map(|gap| gap.records).collect::<Vec<_>>(), [Some(7)]);
}

/// Who sent it is gone by then: it is on the account of who registered that.
pub(crate) async fn what_an_agent_sent_that_is_unregistered_since_is_its_registrar_s(world: &World) {
    let (a, b) = (world.agent("a"), world.agent("b"));
    let snapshot = world.directory.snapshot();
    let helper = Agent { name: "a.helper".to_owned(), ..crate::world::agent("a.helper", a.created_at) };
    let registered = (*snapshot).clone().with_registered(vec![(helper.clone(), a.id)]);
    world.directory.replace(registered);
    let idle = MessagesConfig { sum_every: Duration::from_secs(3600), ..world.config.clone() };
    let late = World { config: idle, ..world.clone() };
    let sender = late.replica("sender").await;
    sender.send(&helper, to("b", "12345")).await.unwrap();
    sender.send(&b, to("c", "1")).await.unwrap();
    sender.stop();
    world.directory.replace((*snapshot).clone());
    let after = world.replica("after").await;
    let expected = Sent { messages: 1, bytes: 5 };
    eventually(async || summed(world, &after, "a", Period::Hour).await == expected).await;
    assert_eq!(after.usage(&a)[2].used, 1);
}

/// Whose hours are closed at once, and told soon.
fn telling(world: &World) -> World {
    let config = MessagesConfig { close_after: Duration::ZERO, export_every: Duration::from_millis(50), ..world.config.clone() };
    World { config, ..world.clone() }
}

/// Who sums, and tells nothing.
fn silent(world: &World) -> World {
    World { config: MessagesConfig { export_every: Duration::from_secs(3600), ..world.config.clone() }, ..world.clone() }
}

/// What the topic of usage was told.
async fn events(world: &World) -> Vec<UsageEvent> {
    let topic = TopicName::system(&world.tenant, "usage");
    let records = world.bus.read(&topic, 0, 0, 10_000).await.unwrap();
    records.iter().map(|logged| UsageEvent::decode(&world.tenant, &logged.record).expect("a CloudEvent")).collect()
}

/// What it says of an agent: of each hour the highest revision.
fn told(events: &[UsageEvent], agent: &str) -> Sent {
    let mut hours = BTreeMap::new();
    for event in events.iter().filter(|event| event.sum.name == agent) {
        let held = hours.entry(event.sum.starts_at).or_insert(event);
        if event.revision() > held.revision() {
            *held = event;
        }
    }
    let add = |all: Sent, sent: Sent| Sent { messages: all.messages + sent.messages, bytes: all.bytes + sent.bytes };
    hours.values().map(|event| event.sum.sent).fold(Sent::default(), add)
}

async fn until_told(world: &World, agent: &str, messages: u64) {
    eventually(async || {
        let events = events(world).await;
        told(&events, agent).messages == messages && events.last().is_some_and(|last| last.complete.is_some())
    })
    .await;
}

/// By several replicas, of which one dies.
pub(crate) async fn closed_hours_are_told(world: &World) {
    let world = telling(world);
    let (a, b) = (world.agent("a"), world.agent("b"));
    let (one, two) = (world.replica("one").await, world.replica("two").await);
    for _ in 0..3 {
        one.send(&a, to("c", "12345")).await.unwrap();
        two.send(&b, to("c", "1")).await.unwrap();
    }
    until_told(&world, "a", 3).await;
    until_told(&world, "b", 3).await;
    one.stop();
    // Late, in the same hour.
    two.send(&a, to("c", "12345")).await.unwrap();
    until_told(&world, "a", 4).await;
    let events = events(&world).await;
    assert_eq!(told(&events, "a"), Sent { messages: 4, bytes: 20 });
    assert_eq!(told(&events, "b"), Sent { messages: 3, bytes: 3 });
    let mut totals = HashMap::new();
    for event in &events {
        let sum = (event.sum.starts_at, event.sum.agent, event.sum.sent);
        assert_eq!(*totals.entry(event.id()).or_insert(sum), sum, "an id names one sum");
    }
    // Nothing is left to be told, and nothing is told without end.
    let count = events.len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(self::events(&world).await.len(), count);
}

/// Hours that are not over are told to nobody.
pub(crate) async fn open_hours_are_not_told(world: &World) {
    let world = telling(world);
    let config = MessagesConfig { close_after: Duration::from_secs(3720), ..world.config.clone() };
    let world = World { config, ..world };
    let (replica, a) = (world.replica("only").await, world.agent("a"));
    replica.send(&a, to("b", "1")).await.unwrap();
    eventually(async || summed(&world, &replica, "a", Period::Hour).await.messages == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(events(&world).await, []);
}

/// The store is what it was before, and the log has forgotten what came after: the topic of usage has it.
pub(crate) async fn sums_are_taken_back_from_the_topic<B>(
    world: &World,
    copy: impl AsyncFn() -> B,
    harm: impl AsyncFn(B),
    forget: impl AsyncFn(),
) {
    let world = telling(world);
    let (a, b) = (world.agent("a"), world.agent("b"));
    let replica = world.replica("before").await;
    let send = async |replica: &Messages, agent, count| {
        for _ in 0..count {
            replica.send(agent, to("c", "12")).await.unwrap();
        }
    };
    send(&replica, &a, 1).await;
    until_told(&world, "a", 1).await;
    let before = copy().await;
    send(&replica, &a, 2).await;
    send(&replica, &b, 2).await;
    until_told(&world, "a", 3).await;
    until_told(&world, "b", 2).await;
    forget().await;
    send(&replica, &a, 4).await;
    until_told(&world, "a", 7).await;
    drop(replica);
    // What nobody is told of any more, and the log still has.
    let late = silent(&world).replica("silent").await;
    send(&late, &a, 2).await;
    eventually(async || summed(&world, &late, "a", Period::Hour).await.messages == 9).await;
    drop(late);
    harm(before).await;
    let after = world.replica("after").await;
    eventually(async || summed(&world, &after, "a", Period::Hour).await == Sent { messages: 9, bytes: 18 }).await;
    assert_eq!(summed(&world, &after, "b", Period::Hour).await, Sent { messages: 2, bytes: 4 });
    for by in [Period::Day, Period::Month] {
        assert_eq!(summed(&world, &after, "a", by).await, Sent { messages: 9, bytes: 18 }, "{by:?}");
    }
    assert_eq!(gaps(&world, &after).await, [""; 0]);
    assert_eq!((after.usage(&a)[2].used, after.usage(&b)[2].used), (9, 2), "the month is whole");
    // It goes on, and is told.
    send(&after, &a, 1).await;
    until_told(&world, "a", 10).await;
    until_told(&world, "b", 2).await;
    // Once: who starts now finds it done.
    drop(after);
    let again = world.replica("again").await;
    assert_eq!(summed(&world, &again, "a", Period::Month).await.messages, 10);
}

/// What came between is in neither.
pub(crate) async fn what_is_in_neither_is_a_gap<B>(
    world: &World,
    copy: impl AsyncFn() -> B,
    harm: impl AsyncFn(B),
    forget: impl AsyncFn(),
) {
    let world = telling(world);
    let a = world.agent("a");
    let replica = world.replica("before").await;
    replica.send(&a, to("b", "1")).await.unwrap();
    until_told(&world, "a", 1).await;
    let before = copy().await;
    for _ in 0..4 {
        replica.send(&a, to("b", "2")).await.unwrap();
    }
    until_told(&world, "a", 5).await;
    drop(replica);
    let late = silent(&world).replica("silent").await;
    for _ in 0..3 {
        late.send(&a, to("b", "3")).await.unwrap();
    }
    eventually(async || summed(&world, &late, "a", Period::Hour).await.messages == 8).await;
    drop(late);
    harm(before).await;
    forget().await;
    let after = world.replica("after").await;
    eventually(async || list(&world, &after, &query(Period::Hour)).await.gaps.len() == 1).await;
    let gaps = list(&world, &after, &query(Period::Hour)).await.gaps;
    assert_eq!(gaps[0].records, Some(3));
    assert_eq!(summed(&world, &after, "a", Period::Hour).await.messages, 5);
    after.send(&a, to("b", "4")).await.unwrap();
    eventually(async || summed(&world, &after, "a", Period::Month).await.messages == 6).await;
    assert_eq!(list(&world, &after, &query(Period::Hour)).await.gaps.len(), 1);
}

/// Both went back: what was told since is about records in whose place there are others.
pub(crate) async fn what_another_life_told_is_not_taken<B>(
    world: &World,
    copy: impl AsyncFn() -> B,
    harm: impl AsyncFn(B),
    cut: impl AsyncFn(u64),
    forget: impl AsyncFn(),
) {
    let world = telling(world);
    let a = world.agent("a");
    let send = async |replica: &Messages, count| {
        for _ in 0..count {
            replica.send(&a, to("b", "1")).await.unwrap();
        }
    };
    let replica = world.replica("before").await;
    send(&replica, 3).await;
    until_told(&world, "a", 3).await;
    let before = copy().await;
    drop(replica);
    cut(1).await;
    let replica = world.replica("cut").await;
    send(&replica, 3).await;
    until_told(&world, "a", 6).await;
    drop(replica);
    harm(before).await;
    forget().await;
    let after = world.replica("after").await;
    eventually(async || list(&world, &after, &query(Period::Hour)).await.gaps.len() == 1).await;
    assert_eq!(list(&world, &after, &query(Period::Hour)).await.gaps[0].records, Some(1));
    assert_eq!(summed(&world, &after, "a", Period::Hour).await.messages, 3);
}
