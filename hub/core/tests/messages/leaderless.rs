//! A log of which one partition can't be used for a while, as on Kafka where the broker that leads it is away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use acb_hub_core::{
    directory::agent::Agent,
    log::{
        bus::{AppendError, Bounds, Bus, BusError, Logged, Offset, Partition, Pending, Record, Tail, TopicInfo, TopicName},
        partition::partition_of,
    },
    messages::message::OutgoingMessage,
};
use async_trait::async_trait;
use futures::StreamExt as _;
use time::OffsetDateTime;

use crate::{
    model::{ModelBus, ModelStore},
    scheduled::Replica,
    world::{Ports, World, deliveries, delivery, eventually, keyed, silent, text, to},
};

struct Leaderless {
    log: ModelBus,
    /// Whose partition is away.
    topic: &'static str,
    away: Mutex<Option<Partition>>,
    /// It says nothing, instead of refusing.
    mute: bool,
    /// Appends that it did not take.
    refused: AtomicUsize,
}

impl Leaderless {
    fn is_away(&self, topic: &TopicName, partition: Partition) -> bool {
        topic.as_str().ends_with(self.topic) && *self.away.lock().unwrap() == Some(partition)
    }

    fn each<T>(&self, topic: &TopicName, answers: Vec<T>) -> Vec<Result<T, BusError>> {
        let answer = |(partition, answer)| if self.is_away(topic, partition) { Err(leaderless()) } else { Ok(answer) };
        (0..).zip(answers).map(answer).collect()
    }
}

const MESSAGES: &str = ".messages";
const DEAD_LETTERS: &str = ".dlq";

fn leaderless() -> BusError {
    BusError::Unavailable("no leader".to_owned())
}

#[async_trait]
impl Bus for Leaderless {
    async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        self.log.topic(topic).await
    }

    async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError> {
        if self.is_away(topic, partition) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            if self.mute {
                return Ok(Box::pin(std::future::pending()));
            }
            return Err(AppendError::Refused("no leader".to_owned()));
        }
        self.log.append(topic, partition, record).await
    }

    async fn tail(&self, topic: &TopicName, from: &[Offset]) -> Result<Tail, BusError> {
        let away = self.away.lock().unwrap().filter(|_| topic.as_str().ends_with(self.topic));
        let tail = self.log.tail(topic, from).await?;
        Ok(tail.filter(move |batch| std::future::ready(batch.as_ref().is_ok_and(|batch| Some(batch.partition) != away))).boxed())
    }

    async fn read(&self, topic: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        if self.is_away(topic, partition) {
            return Err(leaderless());
        }
        self.log.read(topic, partition, offset, limit).await
    }

    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError> {
        self.bounds_each(topic).await?.into_iter().collect()
    }

    async fn bounds_each(&self, topic: &TopicName) -> Result<Vec<Result<Bounds, BusError>>, BusError> {
        Ok(self.each(topic, self.log.bounds(topic).await?))
    }

    async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
        self.offsets_at_each(topic, time).await?.into_iter().collect()
    }

    async fn offsets_at_each(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Result<Offset, BusError>>, BusError> {
        Ok(self.each(topic, self.log.offsets_at(topic, time).await?))
    }
}

/// The agents are others in each world, and with them their partitions.
fn world(topic: &'static str, mute: bool) -> (Arc<Leaderless>, World) {
    loop {
        let bus = Arc::new(Leaderless {
            log: ModelBus::with_letters("acme", 4, 4),
            topic,
            away: Mutex::default(),
            mute,
            refused: AtomicUsize::new(0),
        });
        let (log, store) = (bus.clone(), Arc::new(ModelStore::default()));
        let world = World::new("acme", move || Ports::of(bus.clone(), &store));
        let partition = |name: &str| partition_of(world.agent(name).id.0, 4);
        if partition("a") != partition("c") {
            return (log, world);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_starts_and_serves_the_others() {
    let (log, world) = world(MESSAGES, false);
    let (a, c) = (world.agent("a"), world.agent("c"));
    let before = world.replica("before").await;
    before.send(&a, keyed("d", "once", "key")).await.unwrap();
    before.send(&c, to("b", "indexed")).await.unwrap();
    before.drain().await;
    drop(before);

    *log.away.lock().unwrap() = Some(partition_of(a.id.0, 4));
    let after = world.replica("after").await;
    let mut inbox = world.receive(&after, "b").await;
    after.send(&c, to("b", "live")).await.unwrap();
    let got: Vec<_> = deliveries(&mut inbox, 2).await.iter().map(text).collect();
    assert_eq!(got, ["indexed", "live"]);
    assert_eq!(after.send(&a, to("b", "refused")).await.unwrap_err().reason, "LOG_REFUSED");
    assert_eq!(after.lag().await.unwrap().1, 0);

    // Read again, it is whole: what was sent before is still known, and nothing comes twice.
    *log.away.lock().unwrap() = None;
    assert!(after.send(&a, keyed("d", "once", "key")).await.unwrap().deduplicated);
    after.send(&a, to("b", "again")).await.unwrap();
    assert_eq!(text(&delivery(&mut inbox).await), "again");
    let mut other = world.receive(&after, "d").await;
    assert_eq!(text(&delivery(&mut other).await), "once");
    assert!(silent(&mut other).await && silent(&mut inbox).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_any_leader_is_no_start() {
    let log = Leaderless {
        log: ModelBus::new("acme", 1),
        topic: MESSAGES,
        away: Mutex::new(Some(0)),
        mute: false,
        refused: AtomicUsize::new(0),
    };
    let (bus, store) = (Arc::new(log), Arc::new(ModelStore::default()));
    let world = World::new("acme", move || Ports::of(bus.clone(), &store));
    let (bus, stores) = (world.connect)().parts();
    let metrics = Arc::new(acb_hub_core::metrics::Metrics::new("acme"));
    let directory = world.directory.clone();
    let start = acb_hub_core::messages::service::Messages::start(
        bus,
        stores,
        directory,
        metrics,
        world.config.clone(),
        &world.supervisor,
    );
    assert_eq!(start.await.unwrap_err().reason, "LOG_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_scheduled_is_sent() {
    let (log, world) = world(MESSAGES, true);
    let (a, c) = (world.agent("a"), world.agent("c"));
    let replica = Replica::idle(&world, "only").await;
    let mut inbox = world.receive(&replica.messages, "b").await;
    // Until it has caught up with all partitions the session reads those, too.
    for sender in [&a, &c] {
        replica.messages.send(sender, to("b", "live")).await.unwrap();
        assert_eq!(text(&delivery(&mut inbox).await), "live");
    }
    let after = Duration::from_millis(1);
    for number in 0..50 {
        replica.scheduled.schedule(&a, to("b", &number.to_string()), after).await.unwrap();
    }
    *log.away.lock().unwrap() = Some(partition_of(a.id.0, 4));
    replica.begin(Duration::from_millis(200));
    let began = Instant::now();
    for number in 0..3 {
        replica.scheduled.schedule(&c, to("b", &format!("c{number}")), after).await.unwrap();
        assert_eq!(text(&delivery(&mut inbox).await), format!("c{number}"));
    }
    // One append after another would have had 10 s each for those before.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    *log.away.lock().unwrap() = None;
    let mut got: Vec<u32> = deliveries(&mut inbox, 50).await.iter().map(|delivery| text(delivery).parse().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..50).collect::<Vec<_>>());
    assert!(silent(&mut inbox).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_scheduled_and_is_refused_can_be_cancelled() {
    for mute in [false, true] {
        let (log, world) = world(MESSAGES, mute);
        let a = world.agent("a");
        let replica = Replica::idle(&world, "only").await;
        let mut inbox = world.receive(&replica.messages, "b").await;
        *log.away.lock().unwrap() = Some(partition_of(a.id.0, 4));
        let scheduled = replica.scheduled.schedule(&a, to("b", "x"), Duration::from_millis(1)).await.unwrap();
        replica.begin(Duration::from_millis(50));
        eventually(async || log.refused.load(Ordering::Relaxed) > 0).await;
        let cancelled = async || replica.scheduled.cancel(&a, scheduled.id).await;
        if mute {
            // It may be there.
            assert_eq!(cancelled().await.unwrap_err().reason, "SCHEDULED_MESSAGE_SENT");
        } else {
            // Not while it is on its way.
            eventually(async || cancelled().await.is_ok()).await;
        }
        *log.away.lock().unwrap() = None;
        if mute {
            assert_eq!(text(&delivery(&mut inbox).await), "x");
        }
        assert!(silent(&mut inbox).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_of_others_are_written() {
    for mute in [false, true] {
        let (log, world) = world(DEAD_LETTERS, mute);
        let (a, c) = (world.agent("a"), world.agent("c"));
        let replica = world.replica("only").await;
        *log.away.lock().unwrap() = Some(partition_of(a.id.0, 4));
        let lost = async |from: &Agent, count: usize| {
            for number in 0..count {
                let expires_at = Some(OffsetDateTime::now_utc() + Duration::from_millis(100));
                replica.send(from, OutgoingMessage { expires_at, ..to("d", &number.to_string()) }).await.unwrap();
            }
        };
        let letters = async |from: &Agent| {
            let topic = TopicName::system("acme", "dlq");
            log.log.read(&topic, partition_of(from.id.0, 4), 0, 1000).await.unwrap().len()
        };
        lost(&a, 100).await;
        lost(&c, 3).await;
        eventually(async || letters(&c).await == 3).await;
        lost(&c, 1).await;
        eventually(async || letters(&c).await == 4).await;
        // Those that were on their way together, and a few that found out whether it takes something again: not each, with each sweep.
        let refused = log.refused.load(Ordering::Relaxed);
        assert!(refused < 100, "{refused}");
        *log.away.lock().unwrap() = None;
        eventually(async || letters(&a).await == 100).await;
        // A row is removed after its letter is in the log.
        eventually(async || world.rows("d").await == 0).await;
        assert_eq!((letters(&a).await, letters(&c).await), (100, 4));
    }
}
