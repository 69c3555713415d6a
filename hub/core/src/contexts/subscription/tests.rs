//! Subscriptions to a log in memory, of which the test says what it shows.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use prost::Message as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::{
    contexts::{
        audience::{Access, tests::agent},
        change::{self, ContextChange},
        context::{Context, Payload},
        tail::WindowSize,
    },
    directory::{agent::Role, snapshot::ContextType},
    kit::{budget::Budget, supervisor::Supervisor},
    log::bus::{AppendError, Pending, Record, Tail},
};

const MIB: usize = 1024 * 1024;
const TOPIC: TopicInfo = TopicInfo { epoch: 7, partitions: 0 };

/// Bytes that were read, and are held by someone.
#[derive(Default)]
struct Held {
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Counted(Vec<u8>, Arc<Held>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.now.fetch_sub(self.0.len(), Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Log {
    partitions: Vec<Vec<Bytes>>,
    /// What retention has left begins here.
    first: Mutex<Offset>,
    /// So often it shows nothing, as after a change of leader.
    shows_nothing: AtomicUsize,
    /// So often it tells that it ends after this many records, once the test says so.
    ends_early: Mutex<(usize, Offset)>,
    /// How often it was asked what it holds.
    asked: AtomicUsize,
    /// It has no leader.
    away: Mutex<Option<Partition>>,
    held: Arc<Held>,
}

impl Log {
    fn of(partitions: usize, records: usize, event: impl Fn() -> Bytes) -> Arc<Self> {
        let partitions = (0..partitions).map(|_| (0..records).map(|_| event()).collect()).collect();
        Arc::new(Self { partitions, ..Self::default() })
    }

    fn leader(&self, partition: Partition) -> Result<(), BusError> {
        if *self.away.lock().unwrap() == Some(partition) { Err(BusError::Unavailable("no leader".into())) } else { Ok(()) }
    }

    fn late(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.shows_nothing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[async_trait]
impl Bus for Log {
    async fn topic(&self, _: &TopicName) -> Result<TopicInfo, BusError> {
        Ok(TopicInfo { partitions: u32::try_from(self.partitions.len()).unwrap(), ..TOPIC })
    }

    async fn append(&self, _: &TopicName, _: Partition, _: Record) -> Result<Pending, AppendError> {
        Err(AppendError::Refused("it is only read".into()))
    }

    async fn tail(&self, _: &TopicName, _: &[Offset]) -> Result<Tail, BusError> {
        Ok(Box::pin(futures::stream::pending()))
    }

    async fn read(&self, _: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        self.leader(partition)?;
        if self.late() {
            return Ok(Vec::new());
        }
        let records = (0..).zip(&self.partitions[partition as usize]).skip(usize::try_from(offset).unwrap());
        // What compaction has removed has no bytes here.
        let records = records.filter(|(_, event)| !event.is_empty()).take(limit);
        let read = records.map(|(offset, event)| {
            let now = self.held.now.fetch_add(event.len(), Ordering::Relaxed) + event.len();
            self.held.most.fetch_max(now, Ordering::Relaxed);
            let value = Bytes::from_owner(Counted(event.to_vec(), self.held.clone()));
            let record = Record { value: Some(value), ..Record::default() };
            Logged { partition, offset, log_time: OffsetDateTime::UNIX_EPOCH, record }
        });
        let read = read.collect();
        tokio::task::yield_now().await;
        Ok(read)
    }

    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError> {
        self.bounds_each(topic).await?.into_iter().collect()
    }

    async fn bounds_each(&self, _: &TopicName) -> Result<Vec<Result<Bounds, BusError>>, BusError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let first = *self.first.lock().unwrap();
        let mut early = self.ends_early.lock().unwrap();
        let end = if early.0 > 0 { early.1 } else { Offset::MAX };
        early.0 = early.0.saturating_sub(1);
        let bounds = |records: &Vec<Bytes>| Bounds { first, next: end.min(records.len() as Offset) };
        let bounds = (0..).zip(&self.partitions).map(|(partition, records)| self.leader(partition).map(|()| bounds(records)));
        Ok(bounds.collect())
    }

    async fn offsets_at(&self, _: &TopicName, _: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
        Ok(Vec::new())
    }
}

/// A change of a context of its own, with a payload of so many bytes.
fn event(access: &Access, size: usize) -> Bytes {
    let payload = Payload::Inline(vec![7; size].into());
    let context = Context { access: access.clone(), expires_at: None, ..change::tests::context(payload) };
    change::encode(Change::Created, &context, None).unwrap()
}

/// Nothing was withdrawn since.
struct AsInTheLog;

#[async_trait]
impl AccessStore for AsInTheLog {
    async fn access(&self, _: &[ContextId]) -> Result<Vec<(ContextId, Access)>, Fault> {
        Ok(Vec::new())
    }
}

struct Hub {
    log: Arc<Log>,
    tail: Arc<ContextTail>,
    directory: Directory,
    reads: Arc<Shares<AgentId>>,
    whole: Budget,
    supervisor: Supervisor,
}

impl Hub {
    async fn of(log: Arc<Log>, agents: usize) -> Self {
        let agents = (0..agents).map(|number| agent(&format!("agent-{number}"), Role::Full, &["notes"], &[])).collect();
        let mut snapshot = Snapshot::new(1, agents, Vec::new());
        let kind = ContextType { max_bytes: MAX_INLINE_BYTES, schema: None };
        snapshot.context_types.insert("notes".into(), kind);
        let supervisor = Supervisor::default();
        let size = WindowSize { events: 16, bytes: MIB };
        let tail = ContextTail::start(log.clone(), TopicName::context("acme", "notes"), size, &supervisor).await.unwrap();
        let whole = Budget::new(8 * MIB);
        let reads = Arc::new(Shares::strict(whole.clone(), 8 * MIB));
        Self { log, tail: Arc::new(tail), directory: Directory::new(snapshot), reads, whole, supervisor }
    }

    async fn subscribe(&self, number: usize, from: &StartPosition) -> Result<Subscription, Fault> {
        self.subscribe_matching(number, from, "").await
    }

    async fn subscribe_matching(&self, number: usize, from: &StartPosition, filter: &str) -> Result<Subscription, Fault> {
        let source = Source {
            bus: self.log.clone(),
            tail: self.tail.clone(),
            access: Arc::new(AsInTheLog),
            reads: self.reads.clone(),
            bookmark_every: Duration::from_secs(30),
            metrics: ContextMetrics::new("acme"),
            cancellation: self.supervisor.stop().clone(),
        };
        let agent = agent(&format!("agent-{number}"), Role::Full, &[], &[]);
        let subscriber = Subscriber::new(self.directory.clone(), &agent, "notes");
        let mut subscription = Subscription::open(source, subscriber, ContextFilter::compile(filter).unwrap(), from).await?;
        assert!(matches!(subscription.next().await, Ok(Notice::Subscribed { .. })));
        Ok(subscription)
    }
}

fn at(partition: Partition, offset: Offset) -> LogPosition {
    LogPosition { epoch: TOPIC.epoch, partition, offset }
}

async fn offsets(subscription: &mut Subscription, count: usize) -> Vec<Offset> {
    let mut offsets = Vec::new();
    for _ in 0..count {
        match subscription.next().await.unwrap() {
            Notice::Change { position, .. } => offsets.push(position.offset),
            other => panic!("{other:?} after {offsets:?}"),
        }
    }
    offsets
}

#[tokio::test(start_paused = true)]
async fn what_the_log_shows_late_is_not_skipped() {
    let hub = Hub::of(Log::of(1, 20, || event(&Access::public(), 10)), 1).await;
    let mut subscription = hub.subscribe(0, &StartPosition::Start).await.unwrap();
    let mut seen = offsets(&mut subscription, 1).await;
    hub.log.shows_nothing.store(5, Ordering::Relaxed);
    seen.extend(offsets(&mut subscription, 19).await);
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    // What never shows it is another matter, and the subscriber may have more luck elsewhere.
    let mut subscription = hub.subscribe(0, &StartPosition::Start).await.unwrap();
    hub.log.shows_nothing.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(subscription.next().await.map_err(|fault| fault.reason), Err("LOG_UNAVAILABLE"));
}

#[tokio::test(start_paused = true)]
async fn a_position_that_the_log_shows_late_is_taken() {
    let log = Log::of(1, 20, || event(&Access::public(), 10));
    // The hub that asks began while the end was told too early, too.
    *log.ends_early.lock().unwrap() = (5, 10);
    let hub = Hub::of(log, 1).await;
    let mut subscription = hub.subscribe(0, &StartPosition::After(vec![at(0, 17)])).await.unwrap();
    assert_eq!(hub.log.ends_early.lock().unwrap().0, 0);
    // Its tail is what reads on from here.
    assert!(tokio::time::timeout(Duration::from_secs(600), subscription.next()).await.is_err());
    let before = hub.log.asked.load(Ordering::Relaxed);
    let beyond = hub.subscribe(0, &StartPosition::After(vec![at(0, 20)])).await;
    assert_eq!(beyond.map(|_| ()).map_err(|fault| fault.reason), Err("POSITION_INVALID"));
    let asked = hub.log.asked.load(Ordering::Relaxed) - before;
    assert!(asked <= 10, "the log was asked {asked} times for a place that it never had");
}

#[tokio::test(start_paused = true)]
async fn so_many_subscriptions_of_an_agent_wait_to_read_and_those_of_others_are_not_held_up() {
    let hub = Hub::of(Log::of(1, 20, || event(&Access::public(), 10)), 2).await;
    let mut own = Vec::new();
    for _ in 0..=MAX_WAITING {
        own.push(hub.subscribe(0, &StartPosition::Start).await.unwrap());
    }
    let mut other = hub.subscribe(1, &StartPosition::Start).await.unwrap();
    let held = hub.reads.wait(agent("agent-9", Role::Full, &[], &[]).id, 8 * MIB).await;
    let mut waiting: Vec<_> = own.iter_mut().map(|subscription| Box::pin(subscription.next())).collect();
    let mut last = waiting.pop().unwrap();
    for next in &mut waiting {
        assert!(futures::poll!(next).is_pending());
    }
    assert_eq!(last.as_mut().await.map_err(|fault| fault.reason), Err("TOO_MANY_READS"));
    let mut other = Box::pin(other.next());
    assert!(futures::poll!(&mut other).is_pending(), "the others wait for their turn");
    drop(held);
    assert!(matches!(other.await, Ok(Notice::Change { .. })));
    for next in waiting {
        assert!(matches!(next.await, Ok(Notice::Change { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_sees_nothing_is_told_where_it_stands_and_does_not_expire() {
    let private = Access { scope: crate::contexts::audience::Scope::Private, ..Access::public() };
    let hub = Hub::of(Log::of(2, 100, || event(&private, 10)), 1).await;
    let mut quiet = hub.subscribe(0, &StartPosition::After(vec![at(0, 3), at(1, 3)])).await.unwrap();
    let begun = Instant::now();
    let Notice::Bookmark { after } = quiet.next().await.unwrap() else { panic!("there is nothing that it may see") };
    assert_eq!(after, [at(0, 99), at(1, 99)]);
    assert!(begun.elapsed() >= Duration::from_secs(29), "not more often than it must");
    let nothing = tokio::time::timeout(Duration::from_secs(600), quiet.next()).await;
    assert!(nothing.is_err(), "there is nothing new to say");

    *hub.log.first.lock().unwrap() = 50;
    let stale = hub.subscribe(0, &StartPosition::After(vec![at(0, 3), at(1, 3)])).await;
    assert_eq!(stale.map(|_| ()).map_err(|fault| fault.reason), Err("POSITION_EXPIRED"));
    hub.subscribe(0, &StartPosition::After(after)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_passes_much_is_told_in_between_and_at_the_end() {
    let private = Access { scope: crate::contexts::audience::Scope::Private, ..Access::public() };
    let hub = Hub::of(Log::of(1, 1500, || event(&private, 10)), 1).await;
    let mut quiet = hub.subscribe(0, &StartPosition::Start).await.unwrap();
    let Notice::Bookmark { after } = quiet.next().await.unwrap() else { panic!("there is nothing that it may see") };
    assert!((1023..1100).contains(&after[0].offset), "{after:?}");
    // Up to the end, but for the telling.
    assert!(tokio::time::timeout(Duration::from_secs(1), quiet.next()).await.is_err());
    hub.supervisor.stop().cancel();
    assert_eq!(quiet.next().await, Ok(Notice::Bookmark { after: vec![at(0, 1499)] }));
    assert_eq!(quiet.next().await.map_err(|fault| fault.reason), Err("HUB_STOPPING"));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_a_newer_hub_ends_a_subscription_and_is_not_passed_over() {
    let newer = ContextChange { format: 2, ..ContextChange::default() }.encode_to_vec();
    let partition = vec![event(&Access::public(), 10), newer.into(), event(&Access::public(), 10)];
    let hub = Hub::of(Arc::new(Log { partitions: vec![partition], ..Log::default() }), 1).await;
    let mut subscription = hub.subscribe(0, &StartPosition::Start).await.unwrap();
    assert_eq!(offsets(&mut subscription, 1).await, [0]);
    assert_eq!(subscription.next().await.map_err(|fault| fault.reason), Err("LOG_RECORD_NEWER"));
}

/// A hub whose clock is an hour behind shared it half an hour ago, to live for an hour.
#[tokio::test(start_paused = true)]
async fn what_has_expired_by_this_hubs_clock_is_told_until_it_is_deleted() {
    let (updated_at, expires_at) = (now() - time::Duration::minutes(90), now() - time::Duration::minutes(30));
    let payload = Payload::Inline(vec![7; 10].into());
    let shared = Context {
        access: Access::public(),
        created_at: updated_at,
        updated_at,
        expires_at: Some(expires_at),
        ..change::tests::context(payload)
    };
    let created = change::encode(Change::Created, &shared, None).unwrap();
    let hub = Hub::of(Arc::new(Log { partitions: vec![vec![created]], ..Log::default() }), 1).await;
    let mut subscription = hub.subscribe(0, &StartPosition::Start).await.unwrap();
    assert_eq!(offsets(&mut subscription, 1).await, [0]);
}

/// Versions of one context, as the log has them: each with the priority that it has.
fn versions(priorities: &[&str], is_deleted: bool) -> Vec<Bytes> {
    let first = Context { access: Access::public(), expires_at: None, ..change::tests::context(Payload::Unread) };
    let labels = |priority: &str| [("priority".to_owned(), priority.to_owned())].into();
    let versions = (1..).zip(priorities);
    let mut versions: Vec<_> =
        versions.map(|(version, priority)| Context { version, metadata: labels(priority), ..first.clone() }).collect();
    if is_deleted {
        let last = versions.last().unwrap();
        versions.push(Context { version: last.version + 1, ..last.clone() });
    }
    let mut previous = None;
    let count = versions.len();
    let change = |(index, version): (usize, &Context)| {
        let change = match index {
            0 => Change::Created,
            _ if is_deleted && index + 1 == count => Change::Deleted,
            _ => Change::Updated,
        };
        let before = previous.replace(version.clone()).filter(|_| change == Change::Updated);
        change::encode(change, version, before.as_ref()).unwrap()
    };
    versions.iter().enumerate().map(change).collect()
}

/// What a subscriber to high priority is told of a partition, in short, and where it then stands.
async fn told(partition: Vec<Bytes>, from: StartPosition, count: usize) -> Vec<String> {
    let hub = Hub::of(Arc::new(Log { partitions: vec![partition], ..Log::default() }), 1).await;
    let high = "context.metadata.priority == 'high'";
    let mut subscription = hub.subscribe_matching(0, &from, high).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(match subscription.next().await.unwrap() {
            Notice::Change { event, .. } => format!("{:?} {}", event.change, event.context.version),
            Notice::Left { version, .. } => format!("Left {version}"),
            other => panic!("{other:?}"),
        });
    }
    // Nothing more, but for where it stands.
    let Notice::Bookmark { .. } = subscription.next().await.unwrap() else { panic!("there is nothing more") };
    all
}

#[tokio::test(start_paused = true)]
async fn a_filter_tells_what_enters_stays_leaves_and_goes() {
    let all = versions(&["low", "high", "high", "low", "low", "high"], true);
    let quiet = versions(&["low", "middle"], true);
    let log = || [all.clone(), quiet.clone()].concat();
    let expected = ["Updated 2", "Updated 3", "Left 4", "Updated 6", "Deleted 7"];
    assert_eq!(told(log(), StartPosition::Start, 5).await, expected);
    // One that goes on later knows from the record alone what left.
    assert_eq!(told(log(), StartPosition::After(vec![at(0, 2)]), 3).await, expected[2..]);
    // What is told of last does not match any more, and is gone all the same.
    assert_eq!(told([versions(&["high", "low"], true), quiet].concat(), StartPosition::Start, 2).await, ["Created 1", "Left 2"]);
}

/// Of versions 1 to 4 the first was told, and compaction has left the last.
#[tokio::test(start_paused = true)]
async fn what_left_while_the_log_was_compacted_is_told_of() {
    for (priorities, is_deleted, expected) in [
        (&["high", "low", "low", "low"][..], false, "Left 4"),
        (&["high", "low", "low"][..], true, "Deleted 4"),
        (&["high", "low", "low", "high"][..], false, "Updated 4"),
    ] {
        let mut log = versions(priorities, is_deleted);
        log[1] = Bytes::new();
        log[2] = Bytes::new();
        log.extend(versions(&["low"], false));
        assert_eq!(told(log, StartPosition::After(vec![at(0, 0)]), 1).await, [expected]);
    }
}

/// 300 subscribers are behind on 64 partitions with 16 MiB, and take their time.
#[tokio::test]
async fn subscribers_that_are_behind_hold_little() {
    const SUBSCRIBERS: usize = 300;
    let large = event(&Access::public(), MIB / 2);
    let partitions = (0..64_u8).map(|partition| {
        let own = |offset: u8| {
            let mut change = ContextChange::decode(large.clone()).unwrap();
            change.id = Bytes::copy_from_slice(Uuid::from_u128(u128::from(partition) << 8 | u128::from(offset)).as_bytes());
            Bytes::from(change.encode_to_vec())
        };
        (0..1).map(own).collect()
    });
    let hub = Hub::of(Arc::new(Log { partitions: partitions.collect(), ..Log::default() }), SUBSCRIBERS).await;
    let mut subscriptions = Vec::new();
    for number in 0..SUBSCRIBERS {
        subscriptions.push(hub.subscribe(number, &StartPosition::Start).await.unwrap());
    }
    for _ in 0..3 {
        let taken = subscriptions.iter_mut().map(|subscription| async { offsets(subscription, 1).await.len() });
        assert_eq!(futures::future::join_all(taken).await.into_iter().sum::<usize>(), SUBSCRIBERS);
    }
    // What is being read; what was handed out is with its taker.
    let most = hub.log.held.most.load(Ordering::Relaxed);
    assert!(most <= 16 * MIB, "{most} bytes were held at one time");
    assert_eq!((hub.log.held.now.load(Ordering::Relaxed), hub.whole.used()), (0, 0));
}

#[test]
fn a_subscription_begins_where_it_says() {
    let topic = TopicName::context("acme", "notes");
    let info = TopicInfo { epoch: 4, partitions: 3 };
    let bounds = [Bounds { first: 2, next: 9 }, Bounds { first: 0, next: 0 }, Bounds { first: 5, next: 6 }];
    let at = |epoch, partition, offset| LogPosition { epoch, partition, offset };
    let (bounds, times) = (bounds.map(Ok), [Ok(1), Ok(0)]);
    let partitions = Partitions { bounds: &bounds, read: &[None; 3], at: &times };
    let begin = |from| begin(&topic, info, partitions, &from).map_err(|fault| fault.reason);
    let after = |after| begin(StartPosition::After(after));
    assert_eq!(begin(StartPosition::Now), Ok(vec![9, 0, 6]));
    assert_eq!(begin(StartPosition::Start), Ok(vec![2, 0, 5]));
    assert_eq!(begin(StartPosition::At(OffsetDateTime::UNIX_EPOCH)), Ok(vec![2, 0, 5]), "not before what the log holds");
    assert_eq!(after(vec![at(4, 0, 6), at(4, 0, 7)]), Ok(vec![8, 0, 5]));
    assert_eq!(after(vec![at(4, 0, 1)]), Ok(vec![2, 0, 5]), "nothing was missed yet");
    assert_eq!(after(vec![at(4, 0, 0)]), Err("POSITION_EXPIRED"));
    assert_eq!(after(vec![at(4, 0, 9)]), Err("POSITION_INVALID"));
    assert_eq!(after(vec![at(4, 0, u64::MAX)]), Err("POSITION_INVALID"));
    assert_eq!(after(vec![at(4, 3, 0)]), Err("POSITION_INVALID"));
    assert_eq!(after(vec![at(3, 0, 6)]), Err("LOG_EPOCH_CHANGED"));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_goes_on_while_a_partition_has_no_leader() {
    let access = Access::public();
    let log = Log::of(2, 3, || event(&access, 10));
    *log.away.lock().unwrap() = Some(1);
    // A replica that starts meanwhile.
    let hub = Hub::of(log.clone(), 1).await;
    let mut subscription = hub.subscribe(0, &StartPosition::After(vec![at(0, 0), at(1, 0)])).await.unwrap();
    assert_eq!(offsets(&mut subscription, 2).await, [1, 2]);
    // Who does not say where it stands there would miss something.
    for from in [StartPosition::Now, StartPosition::Start, StartPosition::After(vec![at(0, 0)])] {
        assert_eq!(hub.subscribe(0, &from).await.err().map(|fault| fault.reason), Some("LOG_UNAVAILABLE"), "{from:?}");
    }
    *log.away.lock().unwrap() = None;
    assert_eq!(offsets(&mut subscription, 2).await, [1, 2], "of the other partition");
    assert!(hub.subscribe(0, &StartPosition::Now).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_read_a_partition_knows_where_now_is_without_its_leader() {
    let access = Access::public();
    let log = Log::of(2, 3, || event(&access, 10));
    let hub = Hub::of(log.clone(), 1).await;
    *log.away.lock().unwrap() = Some(1);
    assert!(hub.subscribe(0, &StartPosition::Now).await.is_ok());
}
