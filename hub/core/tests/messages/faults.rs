//! Ports that fail in ways that no port should, and a log that stands still.

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use acb_hub_core::{
    directory::{agent::AgentId, snapshot::Snapshot},
    fault::{Code, Fault},
    log::{
        bus::{
            AppendError, Bounds, Bus, BusError, Epoch, Logged, Offset, Partition, Pending, Record, Tail, TopicInfo, TopicName,
        },
        partition::partition_of,
    },
    messages::{
        config::MessagesConfig,
        cursor::CursorState,
        message::{Address, OutgoingMessage},
        ports::{
            Acknowledged, Advance, ClaimOutcome, CursorFlush, CursorStore, Expired, IndexEntry, LogLives, MailboxAddress,
            MailboxStore, Moved, Opened, Opening,
        },
        position::first_of,
        service::Messages,
        session::{Session, SessionEvent},
    },
    metrics::Metrics,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use time::OffsetDateTime;
use tokio::{sync::mpsc, time::Instant};
use uuid::Uuid;

use crate::{
    model::{ModelBus, ModelStore},
    world::{PATIENCE, Ports, World, agent, deliveries, delivery, event, eventually, text, to},
};

/// An index whose writing panics, and which never says what expired.
struct Panicking(ModelStore);

#[async_trait]
impl LogLives for Panicking {
    async fn epoch(&self, log: Epoch) -> Result<Epoch, Fault> {
        self.0.epoch(log).await
    }

    async fn reached(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Offset>, Fault> {
        self.0.reached(epoch, partitions).await
    }

    async fn cut(&self, ended: Epoch, epoch: Epoch, ends: &[(Partition, Offset)]) -> Result<bool, Fault> {
        self.0.cut(ended, epoch, ends).await
    }
}

#[async_trait]
impl MailboxStore for Panicking {
    async fn checkpoints(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Offset>, Fault> {
        self.0.checkpoints(epoch, partitions).await
    }

    async fn index(&self, _: Epoch, _: Vec<Advance>) -> Result<Vec<Moved>, Fault> {
        panic!("the index is on fire");
    }

    async fn entries(
        &self,
        epoch: Epoch,
        addresses: &[MailboxAddress],
        ranges: &[(Partition, Range<Offset>)],
        limit: usize,
    ) -> Result<Vec<IndexEntry>, Fault> {
        self.0.entries(epoch, addresses, ranges, limit).await
    }

    async fn claim_expired(&self, _: Epoch, _: Duration, _: usize) -> Result<Expired, Fault> {
        Err(Fault::unavailable("STORE_UNAVAILABLE", "the store does not answer"))
    }

    async fn claim(
        &self,
        epoch: Epoch,
        address: &MailboxAddress,
        partition: Partition,
        position: Offset,
        lease: Duration,
    ) -> Result<ClaimOutcome, Fault> {
        self.0.claim(epoch, address, partition, position, lease).await
    }

    async fn release(&self, epoch: Epoch, rows: &[IndexEntry], rest: Duration) -> Result<(), Fault> {
        self.0.release(epoch, rows, rest).await
    }

    async fn remove_acknowledged(&self, epoch: Epoch, ranges: &[Acknowledged], limit: usize) -> Result<u64, Fault> {
        self.0.remove_acknowledged(epoch, ranges, limit).await
    }

    async fn remove(&self, epoch: Epoch, rows: &[IndexEntry]) -> Result<(), Fault> {
        self.0.remove(epoch, rows).await
    }

    async fn remove_other_epochs(&self, epoch: Epoch, limit: usize) -> Result<u64, Fault> {
        self.0.remove_other_epochs(epoch, limit).await
    }
}

fn with_a_panicking_index() -> World {
    let bus = Arc::new(ModelBus::new("acme", 2));
    World::new("acme", move || Ports {
        bus: bus.clone(),
        mailboxes: Arc::new(Panicking(ModelStore::default())),
        cursors: Arc::new(ModelStore::default()),
        letters: Arc::new(ModelStore::default()),
        usage: Arc::new(ModelStore::default()),
        timers: Arc::new(ModelStore::default()),
        traces: Arc::new(ModelStore::default()),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_of_a_sweep_that_can_not_look_grows() {
    let world = with_a_panicking_index();
    let (bus, stores) = (world.connect)().parts();
    let metrics = Arc::new(Metrics::new(&world.tenant));
    let config = world.config.clone();
    let _replica =
        Messages::start(bus, stores, world.directory.clone(), metrics.clone(), config, &world.supervisor).await.unwrap();
    let behind = || {
        let text = metrics.render();
        let of = text.lines().find_map(|line| line.strip_prefix("acb_mailbox_sweep_lag_seconds{tenant_id=\"acme\"} "));
        of.map_or(0, |seconds| seconds.parse::<u64>().unwrap())
    };
    eventually(async || behind() >= 1).await;
    eventually(async || behind() >= 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_panics_is_told_by_its_name() {
    let world = with_a_panicking_index();
    let replica = world.replica("only").await;
    replica.send(&world.agent("a"), to("b", "fuel")).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, world.supervisor.failed()).await.expect("told in time");
    assert_eq!(ended.to_string(), "the task messages.indexer panicked: the index is on fire");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_stopped_has_not_failed() {
    let (bus, store) = (Arc::new(ModelBus::new("acme", 2)), Arc::new(ModelStore::default()));
    let world = World::new("acme", move || Ports::of(bus.clone(), &store));
    let replica = world.replica("only").await;
    replica.send(&world.agent("a"), to("b", "hello")).await.unwrap();
    replica.drain().await;
    drop(replica);
    tokio::time::timeout(Duration::from_millis(300), world.supervisor.failed()).await.unwrap_err();
}

/// Cursors that count how often they are asked, and refuse one agent's, as a constraint of the store would.
struct Watched {
    store: Arc<ModelStore>,
    refused: OnceLock<AgentId>,
    flushes: AtomicUsize,
    renewals: AtomicUsize,
}

impl Watched {
    fn new(store: &Arc<ModelStore>) -> Arc<Self> {
        let (refused, flushes, renewals) = Default::default();
        Arc::new(Self { store: store.clone(), refused, flushes, renewals })
    }
}

#[async_trait]
impl CursorStore for Watched {
    async fn open(&self, epoch: Epoch, agent: AgentId, opening: &Opening) -> Result<Opened, Fault> {
        self.store.open(epoch, agent, opening).await
    }

    async fn renew(&self, lease: Uuid, open: &[(AgentId, u64)]) -> Result<Vec<(AgentId, u64)>, Fault> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        self.store.renew(lease, open).await
    }

    async fn flush(&self, epoch: Epoch, flushes: Vec<CursorFlush>) -> Result<Vec<(AgentId, u64)>, Fault> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        if flushes.iter().any(|flush| Some(&flush.agent) == self.refused.get() && !flush.cursors.is_empty()) {
            return Err(Fault::new(Code::Internal, "STORE_FAILED", "a constraint is violated"));
        }
        self.store.flush(epoch, flushes).await
    }

    async fn cursors(
        &self,
        epoch: Epoch,
        agents: &[AgentId],
        partitions: &[Partition],
    ) -> Result<Vec<(AgentId, Partition, CursorState)>, Fault> {
        self.store.cursors(epoch, agents, partitions).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_that_the_store_refuses_holds_up_no_other() {
    let (bus, store) = (Arc::new(ModelBus::new("acme", 2)), Arc::new(ModelStore::default()));
    let watched = Watched::new(&store);
    let cursors = watched.clone();
    let world = World::new("acme", move || Ports { cursors: cursors.clone(), ..Ports::of(bus.clone(), &store) });
    watched.refused.set(world.agent("d").id).unwrap();
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let mut sessions = Vec::new();
    for agent in ["b", "c", "d"] {
        sessions.push(world.receive(&left, agent).await);
    }
    left.send(&world.agent("a"), OutgoingMessage::new(Address::All, "t", "to all")).await.unwrap();
    let mut got = Vec::new();
    for session in &mut sessions {
        let delivery = delivery(session).await;
        session.input.ack(vec![delivery.id]).await.unwrap();
        got.push(delivery);
    }
    // That of `d` is refused from now on, round after round.
    for agent in ["b", "c"] {
        world.acknowledged(agent, &got[..1]).await;
    }
    let _newer = world.receive(&right, "b").await;
    assert_eq!(event(&mut sessions[0]).await, SessionEvent::Replaced);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_with_nothing_new_cost_no_query_and_hear_that_another_took_over() {
    let (bus, store) = (Arc::new(ModelBus::new("acme", 2)), Arc::new(ModelStore::default()));
    let watched = Watched::new(&store);
    let cursors = watched.clone();
    let world = World::new("acme", move || Ports { cursors: cursors.clone(), ..Ports::of(bus.clone(), &store) });
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (mut idle, _other) = (world.receive(&left, "b").await, world.receive(&left, "c").await);
    let before = watched.flushes.load(Ordering::SeqCst);
    // Many times as long as what is acknowledged waits to be written.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while watched.renewals.load(Ordering::SeqCst) == 0 {
        assert!(tokio::time::Instant::now() < deadline, "the lease is not renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(watched.flushes.load(Ordering::SeqCst), before);
    let _newer = world.receive(&right, "b").await;
    assert_eq!(event(&mut idle).await, SessionEvent::Replaced);
}

/// A store that is a little slow, and away once.
struct Slow {
    store: Arc<ModelStore>,
    writes: AtomicUsize,
}

#[async_trait]
impl CursorStore for Slow {
    async fn open(&self, epoch: Epoch, agent: AgentId, opening: &Opening) -> Result<Opened, Fault> {
        self.store.open(epoch, agent, opening).await
    }

    async fn renew(&self, lease: Uuid, open: &[(AgentId, u64)]) -> Result<Vec<(AgentId, u64)>, Fault> {
        self.store.renew(lease, open).await
    }

    async fn flush(&self, epoch: Epoch, flushes: Vec<CursorFlush>) -> Result<Vec<(AgentId, u64)>, Fault> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if flushes.iter().any(|flush| flush.closing) && self.writes.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(Fault::unavailable("AWAY", "for a moment"));
        }
        self.store.flush(epoch, flushes).await
    }

    async fn cursors(
        &self,
        epoch: Epoch,
        agents: &[AgentId],
        partitions: &[Partition],
    ) -> Result<Vec<(AgentId, Partition, CursorState)>, Fault> {
        self.store.cursors(epoch, agents, partitions).await
    }
}

/// More agents.
fn add(world: &World, names: &[String]) {
    let snapshot = world.directory.snapshot();
    let born = OffsetDateTime::now_utc() - time::Duration::days(2);
    let agents = snapshot.agents().map(|agent| (**agent).clone()).chain(names.iter().map(|name| agent(name, born)));
    let members = snapshot.memberships("pair").to_vec();
    world.directory.replace(Snapshot::new(snapshot.generation + 1, agents.collect(), members));
}

/// One write for each session would take 50 s of this store. Time passes only while everything waits: how busy the machine is does not count.
#[tokio::test(start_paused = true)]
async fn many_sessions_that_end_at_once_keep_their_acknowledgements() {
    const AGENTS: usize = 1000;
    let (bus, store) = (Arc::new(ModelBus::new("acme", 1)), Arc::new(ModelStore::default()));
    let cursors = Arc::new(Slow { store: store.clone(), writes: AtomicUsize::new(0) });
    let slow = cursors.clone();
    let world = World::new("acme", move || Ports { cursors: slow.clone(), ..Ports::of(bus.clone(), &store) });
    // What is acknowledged is written at the end alone.
    let config = MessagesConfig { flush_every: Duration::from_secs(3600), ..world.config.clone() };
    let world = World { config, ..world };
    let names: Vec<String> = (0..AGENTS).map(|number| format!("e{number}")).collect();
    add(&world, &names);
    let replica = world.replica("only").await;
    let mut sessions = Vec::new();
    for name in &names {
        sessions.push(world.receive(&replica, name).await);
    }
    replica.send(&world.agent("a"), OutgoingMessage::new(Address::All, "t", "to all")).await.unwrap();
    for session in &mut sessions {
        let delivery = delivery(session).await;
        session.input.ack(vec![delivery.id]).await.unwrap();
    }
    // Half of the agents go when they are told; the others stay for as long as they may.
    let staying = sessions.split_off(AGENTS / 2);
    let began = Instant::now();
    tokio::join!(replica.drain(), async { drop(sessions) });
    assert!(began.elapsed() <= Duration::from_secs(5), "drained after {:?}", began.elapsed());
    drop(staying);
    let agents: Vec<AgentId> = names.iter().map(|name| world.agent(name).id).collect();
    let written = world.cursors.cursors(1, &agents, &[0]).await.unwrap();
    assert_eq!(written.iter().filter(|(.., cursor)| cursor.acknowledged(first_of(0))).count(), AGENTS);
    assert!(cursors.writes.load(Ordering::SeqCst) < AGENTS / 10);
}

/// A log whose tail shows nothing of what comes to its last partition; or that never says that it took anything.
struct Lagging(ModelBus, bool);

#[async_trait]
impl Bus for Lagging {
    async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        self.0.topic(topic).await
    }

    async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError> {
        if self.1 { self.0.append(topic, partition, record).await } else { Ok(Box::pin(std::future::pending())) }
    }

    async fn tail(&self, topic: &TopicName, from: &[Offset]) -> Result<Tail, BusError> {
        let last = from.len() as Partition - 1;
        let shown = self.0.tail(topic, from).await?;
        Ok(shown.filter(move |batch| std::future::ready(batch.as_ref().is_ok_and(|batch| batch.partition != last))).boxed())
    }

    async fn read(&self, topic: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        self.0.read(topic, partition, offset, limit).await
    }

    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError> {
        self.0.bounds(topic).await
    }

    async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
        self.0.offsets_at(topic, time).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_is_what_was_not_read_yet() {
    let (bus, store) = (Arc::new(Lagging(ModelBus::new("acme", 2), true)), Arc::new(ModelStore::default()));
    let log = bus.clone();
    let world = World::new("acme", move || Ports::of(bus.clone(), &store));
    let replica = world.replica("only").await;
    let topic = TopicName::system("acme", "messages");
    assert_eq!(replica.lag().await.unwrap(), (topic.clone(), 0));
    for _ in 0..3 {
        log.append(&topic, 1, Record::default()).await.unwrap().await.unwrap();
    }
    log.append(&topic, 0, Record::default()).await.unwrap().await.unwrap();
    crate::world::eventually(async || replica.lag().await.unwrap().1 == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_silent_log_is_bounded_by_its_bytes() {
    const SIZE: usize = 100_000;
    let (bus, store) = (Arc::new(Lagging(ModelBus::new("acme", 2), false)), Arc::new(ModelStore::default()));
    let world = World::new("acme", move || Ports::of(bus.clone(), &store));
    let config = MessagesConfig { sending_bytes: 10 * SIZE, ..world.config.clone() };
    let world = World { config, ..world };
    let replica = world.replica("only").await;
    let (done, mut outcomes) = mpsc::channel(30);
    for _ in 0..30 {
        let (replica, agent, done) = (replica.clone(), world.agent("a"), done.clone());
        let message = OutgoingMessage { payload: vec![7; SIZE].into(), ..to("b", "") };
        tokio::spawn(async move { done.send(replica.send(&agent, message).await.unwrap_err().reason).await });
    }
    // Nine with what they take beside their payloads; the others are refused at once.
    for _ in 0..21 {
        let reason = tokio::time::timeout(PATIENCE, outcomes.recv()).await.expect("refused in time");
        assert_eq!(reason, Some("TOO_MANY_SENDS"));
    }
    assert!(outcomes.try_recv().is_err(), "what was taken waits");
    // Stopped, it says of those what it knows; and has room again.
    replica.stop();
    for _ in 0..9 {
        let reason = tokio::time::timeout(PATIENCE, outcomes.recv()).await.expect("answered in time");
        assert_eq!(reason, Some("LOG_UNKNOWN"));
    }
}

/// A log that shows nothing to some of its readers, as right after a change of who leads a partition. The lowest bit is for the next. Or one
/// that does not answer its readers any more.
struct Behind {
    log: ModelBus,
    hidden: AtomicU64,
    silent: AtomicBool,
    unanswered: AtomicUsize,
}

#[async_trait]
impl Bus for Behind {
    async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        self.log.topic(topic).await
    }

    async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError> {
        self.log.append(topic, partition, record).await
    }

    async fn tail(&self, topic: &TopicName, from: &[Offset]) -> Result<Tail, BusError> {
        self.log.tail(topic, from).await
    }

    async fn read(&self, topic: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        if topic.as_str().ends_with(".messages") {
            if self.silent.load(Ordering::SeqCst) {
                self.unanswered.fetch_add(1, Ordering::SeqCst);
                return std::future::pending().await;
            }
            let hidden = self.hidden.load(Ordering::SeqCst);
            self.hidden.store(hidden >> 1, Ordering::SeqCst);
            if hidden & 1 == 1 {
                return Ok(Vec::new());
            }
        }
        self.log.read(topic, partition, offset, limit).await
    }

    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError> {
        self.log.bounds(topic).await
    }

    async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
        self.log.offsets_at(topic, time).await
    }
}

fn behind() -> (Arc<Behind>, World) {
    let bus = Arc::new(Behind {
        log: ModelBus::new("acme", 2),
        hidden: AtomicU64::new(0),
        silent: AtomicBool::new(false),
        unanswered: AtomicUsize::new(0),
    });
    let (log, store) = (bus.clone(), Arc::new(ModelStore::default()));
    let world = World::new("acme", move || Ports::of(bus.clone(), &store));
    (log, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_log_does_not_show_yet_waits_in_its_mailbox() {
    let (log, world) = behind();
    let replica = world.replica("only").await;
    replica.send(&world.agent("a"), to("b", "hello")).await.unwrap();
    log.hidden.store(0b11, Ordering::SeqCst);
    let mut inbox = world.receive(&replica, "b").await;
    assert_eq!(text(&delivery(&mut inbox).await), "hello");
    assert_eq!(log.hidden.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_log_does_not_show_yet_is_delivered_again_and_dead_lettered() {
    delivered_again_and_dead_lettered(Address::Group("pair".to_owned())).await;
}

/// Its row was claimed for the dead letter that could not be written at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_failed_is_tried_again_soon() {
    delivered_again_and_dead_lettered(Address::Agent("b".to_owned())).await;
}

async fn delivered_again_and_dead_lettered(to: Address) {
    let (log, world) = behind();
    let config = MessagesConfig { redeliver_after: Duration::from_millis(100), max_attempts: 2, ..world.config.clone() };
    let world = World { config, ..world };
    let replica = world.replica("only").await;
    let mut inbox = world.receive(&replica, "b").await;
    // What was delivered is kept. It is read for the dead letter, the first time in vain.
    log.hidden.store(0b1, Ordering::SeqCst);
    replica.send(&world.agent("a"), OutgoingMessage::new(to, "t", "poison")).await.unwrap();
    for attempt in 1..=2 {
        assert_eq!(delivery(&mut inbox).await.attempt, attempt);
    }
    crate::world::eventually(async || world.dead_letters().await.len() == 1).await;
    assert_eq!(log.hidden.load(Ordering::SeqCst), 0);
}

/// Two deliveries of a session are overdue at once, and the log answers neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_heard_and_ends_whatever_the_log_does_not_answer() {
    let (log, world) = behind();
    // Only one message has room to be kept: the others are read again.
    let config = MessagesConfig { redeliver_after: Duration::from_millis(300), kept_bytes: 1, ..world.config.clone() };
    let world = World { config, ..world };
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let mut taken_over = world.receive(&left, "b").await;
    let mut stopped = world.receive(&left, "c").await;
    let mut got = Vec::new();
    for (agent, session) in [("b", &mut taken_over), ("c", &mut stopped)] {
        for number in 0..3 {
            left.send(&world.agent("a"), to(agent, &number.to_string())).await.unwrap();
        }
        got.push(deliveries(session, 3).await);
    }
    log.silent.store(true, Ordering::SeqCst);
    crate::world::eventually(async || log.unanswered.load(Ordering::SeqCst) >= 2).await;
    tokio::time::sleep(2 * world.config.redeliver_after).await;
    for ((agent, session), got) in [("b", &mut taken_over), ("c", &mut stopped)].into_iter().zip(&got) {
        session.input.ack(vec![got[2].id]).await.unwrap();
        world.acknowledged(agent, &got[2..]).await;
        // What comes live needs no reading.
        left.send(&world.agent("a"), to(agent, "new")).await.unwrap();
        while text(&delivery(session).await) != "new" {}
    }
    let mut newer = world.receive(&right, "b").await;
    let ended = async |session: &mut Session, told: &[SessionEvent]| {
        let mut last = Vec::new();
        while let Some(event) = session.events.next().await {
            if !matches!(event, SessionEvent::Delivery(_)) {
                last.push(event);
            }
        }
        assert_eq!(last, told);
    };
    tokio::time::timeout(PATIENCE, ended(&mut taken_over, &[SessionEvent::Replaced])).await.expect("a newer session takes over");
    tokio::time::timeout(PATIENCE, async { tokio::join!(right.drain(), ended(&mut newer, &[SessionEvent::Draining])) })
        .await
        .expect("one that reads its mailbox is drained");
    left.stop();
    tokio::time::timeout(PATIENCE, ended(&mut stopped, &[])).await.expect("a stop ends it at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_goes_on_behind_what_the_log_forgot() {
    let (log, world) = behind();
    let replica = world.replica("only").await;
    replica.send(&world.agent("a"), to("b", "forgotten")).await.unwrap();
    log.log.forget("acme");
    let mut inbox = world.receive(&replica, "b").await;
    replica.send(&world.agent("a"), to("b", "here")).await.unwrap();
    assert_eq!(text(&delivery(&mut inbox).await), "here");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_of_a_newer_hub_is_waited_for_and_not_skipped() {
    let (bus, store) = (Arc::new(ModelBus::new("acme", 4)), Arc::new(ModelStore::default()));
    let (log, rows) = (bus.clone(), store.clone());
    let world = World::new("acme", move || Ports::of(bus.clone(), &store));
    let (replica, a) = (world.replica("old").await, world.agent("a"));
    let partition = partition_of(a.id.0, 4);
    let topic = TopicName::system("acme", "messages");
    let append = async |value: &'static [u8]| {
        let record = Record { value: Some(value.into()), ..Record::default() };
        log.append(&topic, partition, record).await.unwrap().await.unwrap();
    };
    // What is no envelope is skipped, and only that.
    append(b"\xff\xff").await;
    replica.send(&a, to("b", "read")).await.unwrap();
    crate::world::eventually(async || rows.checkpoints_now()[partition as usize] == first_of(2)).await;
    let mut session = world.receive(&replica, "c").await;
    append(&[8, 4]).await;
    append(b"\xff\xff").await;
    let mut waits = replica.waiting_for();
    let newer = |waits: &Option<String>| waits.as_deref() == Some("a newer hub: this replica can't read what that one writes");
    tokio::time::timeout(PATIENCE, waits.wait_for(newer)).await.expect("it waits").unwrap();
    assert_eq!(event(&mut session).await, SessionEvent::Draining);
    assert_eq!(replica.send(&a, to("b", "refused")).await.unwrap_err().reason, "HUB_STOPPING");
    // One that starts does not get past it either.
    let (bus, stores) = (world.connect)().parts();
    let (metrics, directory) = (Arc::new(acb_hub_core::metrics::Metrics::new("acme")), world.directory.clone());
    let config = world.config.clone();
    let starting = Messages::start(bus, stores, directory, metrics, config, &world.supervisor).await.unwrap();
    tokio::time::timeout(PATIENCE, starting.waiting_for().wait_for(newer)).await.expect("it waits").unwrap();
    tokio::time::sleep(5 * world.config.index_every).await;
    assert_eq!(rows.checkpoints_now()[partition as usize], first_of(2), "nobody has indexed past it");
}
