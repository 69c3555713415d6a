//! What is read for all tenants at once is what each would have read for itself, and nobody misses its own change.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use acb_crds::names::TenantId;
use acb_kafka::{
    Connection, Settings,
    kafka_protocol::messages::{CreateTopicsRequest, TopicName, create_topics_request::CreatableTopic},
};
use acb_operator::{
    effect::{kafka::KafkaEffect, kafka_shared::SharedSnapshot},
    plan::{KafkaQuota, KafkaStep, SecretRef},
};
use acb_testbed::{Kafka, KafkaListener, Relay, relay::Protocol};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, sleep},
};

use crate::{BROKERS, Passwords, tenant, text};

struct World {
    kafka: Kafka,
    relay: Relay,
    /// As the operator has it.
    effect: KafkaEffect,
    shared: Arc<SharedSnapshot>,
    _turn: SemaphorePermit<'static>,
}

fn settings(kafka: &Kafka, port: u16) -> Settings {
    Settings::new(&format!("127.0.0.1:{port}"), Kafka::ADMIN, kafka.admin_password())
}

fn user(name: &str) -> String {
    TenantId::from_uid(name).login()
}

/// All that a tenant has in Kafka.
fn steps(name: &str) -> Vec<KafkaStep> {
    let secret = SecretRef { namespace: name.into(), name: "hub-kafka".into(), generation: 1 };
    let quota = KafkaQuota { request_percent: Some(50), ..KafkaQuota::default() };
    let topics = tenant(name).into_iter().filter(|step| matches!(step, KafkaStep::EnsureTopic { .. }));
    topics
        .chain([
            KafkaStep::EnsureQuota { username: user(name), quota },
            KafkaStep::EnsureUser { username: user(name), secret },
            KafkaStep::EnsureAcls { username: user(name), prefix: prefix(name) },
        ])
        .collect()
}

fn prefix(name: &str) -> String {
    format!("acb.{name}.")
}

impl World {
    async fn start() -> Self {
        let turn = BROKERS.acquire().await.unwrap();
        let kafka = Kafka::start(KafkaListener::Plain).await;
        let relay = Relay::start(Protocol::Kafka, SocketAddr::from(([127, 0, 0, 1], kafka.port()))).await.unwrap();
        let shared = Arc::new(SharedSnapshot::default());
        let effect = KafkaEffect::new(settings(&kafka, relay.port), -1).sharing(Arc::clone(&shared));
        Self { kafka, relay, effect, shared, _turn: turn }
    }

    /// As one who shares nothing, and is not counted.
    fn other(&self) -> KafkaEffect {
        KafkaEffect::new(settings(&self.kafka, self.kafka.port()), -1)
    }

    /// Requests since then, but for those of logins.
    fn asked(&self, since: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let now = self.relay.counts().into_iter().filter(|(what, _)| !what.starts_with("Sasl"));
        let new = now.map(|(what, count)| (what.clone(), count - since.get(&what).copied().unwrap_or_default()));
        new.filter(|(_, count)| *count > 0).collect()
    }
}

#[tokio::test]
async fn one_reading_serves_all_and_says_what_each_would_have_read() {
    let world = World::start().await;
    let names = ["acme", "acme2", "globex"];
    for name in names {
        world.other().apply(&steps(name), &Passwords).await.unwrap();
    }
    // Others' are not read, and one tenant has less than it should.
    world.other().apply(&[KafkaStep::RemoveUser { username: user("globex") }], &Passwords).await.unwrap();
    let mut connection = Connection::open(&settings(&world.kafka, world.kafka.port())).await.unwrap();
    let topic = CreatableTopic::default().with_name(TopicName(text("orders"))).with_num_partitions(1).with_replication_factor(1);
    connection.send(&CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(3000), 7).await.unwrap();

    let before = world.relay.counts();
    let looks =
        names.iter().cycle().take(30).map(async |name| (*name, world.effect.look(&user(name), &prefix(name)).await.unwrap()));
    let looks = futures::future::join_all(looks).await;
    let once =
        ["DescribeAcls", "DescribeClientQuotas", "DescribeUserScramCredentials", "Metadata"].map(|what| (what.to_owned(), 1));
    // The brokers' settings, and the topics'.
    let wanted: BTreeMap<String, u64> = once.into_iter().chain([("DescribeConfigs".to_owned(), 2)]).collect();
    assert_eq!(world.asked(&before), wanted, "thirty looks");
    for (name, found) in looks {
        assert_eq!(found, world.other().observe(&user(name), &prefix(name)).await.unwrap(), "{name}");
        assert_eq!((found.topics.len(), found.has_user, found.acls), (1, name != "globex", name != "globex"), "{name}");
    }
}

#[tokio::test]
async fn who_has_just_changed_something_reads_its_own_change() {
    let world = World::start().await;
    let look = async |name: &str| world.effect.look(&user(name), &prefix(name)).await.unwrap();
    assert_eq!(look("globex").await.topics.len(), 0);
    for name in ["acme", "acme2"] {
        world.effect.apply(&steps(name), &Passwords).await.unwrap();
        let found = look(name).await;
        assert!(found.topics.len() == 1 && found.has_user && found.acls && found.quota.request_percent == Some(50), "{found:?}");
    }
    let before = world.relay.counts();
    assert_eq!(look("globex").await.topics.len(), 0);
    assert_eq!(world.asked(&before), BTreeMap::new(), "who changed nothing is served by what was read");
    // Each kind of change, by itself.
    world.effect.apply(&[KafkaStep::RemoveTopic { name: "acb.acme.sys.messages".into() }], &Passwords).await.unwrap();
    assert_eq!((look("acme").await.topics.len(), look("acme2").await.topics.len()), (0, 1));
    world.effect.apply(&[KafkaStep::RemoveUser { username: user("acme") }], &Passwords).await.unwrap();
    let found = look("acme").await;
    assert!(!found.has_user && !found.acls && found.quota == KafkaQuota::default(), "{found:?}");
}

#[tokio::test]
async fn what_others_change_is_seen_once_the_reading_is_old() {
    let world = World::start().await;
    world.effect.apply(&steps("acme"), &Passwords).await.unwrap();
    let look = async || world.effect.look(&user("acme"), &prefix("acme")).await.unwrap();
    assert!(look().await.acls);
    let elsewhere = [KafkaStep::EnsureAcls { username: user("acme"), prefix: "acb.other.".into() }];
    world.other().apply(&elsewhere, &Passwords).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(70);
    while look().await.acls {
        assert!(Instant::now() < deadline, "not seen");
        sleep(Duration::from_millis(50)).await;
    }
    // And at once where it is known that others changed something.
    world.other().apply(&steps("acme"), &Passwords).await.unwrap();
    world.shared.outdate();
    assert!(look().await.acls);
}

#[tokio::test]
async fn a_kafka_that_is_away_is_away_for_all_with_why_and_comes_back() {
    let world = World::start().await;
    let is_silent = Arc::new(AtomicBool::new(true));
    let silent = Arc::clone(&is_silent);
    world.relay.hold(Box::new(move |request| request.what == "DescribeAcls" && silent.load(Ordering::Relaxed)));
    let looks = ["acme", "globex"].map(|name| {
        let effect = world.effect.clone();
        async move { effect.look(&user(name), &prefix(name)).await }
    });
    for found in futures::future::join_all(looks).await {
        let error = found.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("timed out"), "{error}");
    }
    is_silent.store(false, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = world.effect.look(&user("acme"), &prefix("acme")).await {
        assert!(Instant::now() < deadline, "{error}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// More topics than one request describes.
#[tokio::test]
async fn many_topics_are_read_in_parts() {
    let world = World::start().await;
    let topic = |n: u32| {
        let name = TopicName(text(&format!("acb.acme.type-{n}")));
        CreatableTopic::default().with_name(name).with_num_partitions(1).with_replication_factor(1)
    };
    let mut connection = Connection::open(&settings(&world.kafka, world.kafka.port())).await.unwrap();
    for part in 0..6 {
        let topics = (part * 100..(part + 1) * 100).map(topic).collect();
        connection.send(&CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(3000), 7).await.unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let before = world.relay.counts();
        let found = world.effect.look(&user("acme"), &prefix("acme")).await.unwrap();
        if found.topics.len() == 600 {
            assert_eq!(
                world.asked(&before).get("DescribeConfigs"),
                Some(&3),
                "the brokers' settings, and the topics' in two parts"
            );
            return;
        }
        assert!(Instant::now() < deadline, "{} topics", found.topics.len());
        world.shared.outdate();
    }
}
