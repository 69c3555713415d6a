//! The bus on Kafka.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use acb_bus_conformance::{DEADLINE, Provider, Stall, append, record, take, texts};
use acb_hub_bus::{KafkaBus, KafkaSettings};
use acb_hub_core::log::bus::{AppendError, Bounds, Bus, BusError, Offset, Partition, TopicName};
use acb_kafka::{
    Connection, Settings,
    kafka_protocol::{
        messages::{
            BrokerId, CreateTopicsRequest, DeleteRecordsRequest, MetadataRequest, TopicName as KafkaTopic,
            create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig},
            delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
            metadata_request::MetadataRequestTopic,
        },
        protocol::StrBytes,
    },
};
use acb_operator::{
    effect::{EffectError, SecretData, SecretReader, kafka::KafkaEffect},
    plan::{KafkaStep, SecretRef, TopicSpec},
};
use acb_testbed::{Kafka, KafkaListener};
use async_trait::async_trait;
use futures::StreamExt;
use tokio::{
    sync::{Mutex, OnceCell, OwnedMutexGuard, oneshot},
    time::timeout,
};

/// A tenant of the test's own on a broker that tests share.
struct OnKafka {
    broker: Arc<Mutex<Kafka>>,
    /// Held by a test that stops the broker: no other uses it meanwhile.
    _alone: Option<OwnedMutexGuard<()>>,
    effect: KafkaEffect,
    admin: Settings,
    settings: KafkaSettings,
}

/// A stopped broker. It goes on also where the test failed: the next one needs it.
struct Paused(OwnedMutexGuard<Kafka>);

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.resume();
    }
}

struct Password;

#[async_trait]
impl SecretReader for Password {
    async fn read(&self, _: &SecretRef) -> Result<SecretData, EffectError> {
        Ok(SecretData::new().with("password", "the tenant's"))
    }
}

/// Over TLS, undisturbed.
async fn kafka() -> OnKafka {
    static BROKER: OnceCell<Arc<Mutex<Kafka>>> = OnceCell::const_new();
    OnKafka::on(shared(&BROKER, KafkaListener::Tls).await, None).await
}

/// A broker that may be stopped, by one test at a time.
async fn disturbed() -> OnKafka {
    static BROKER: OnceCell<Arc<Mutex<Kafka>>> = OnceCell::const_new();
    static ALONE: OnceCell<Arc<Mutex<()>>> = OnceCell::const_new();
    let alone = ALONE.get_or_init(async || Arc::default()).await.clone().lock_owned().await;
    OnKafka::on(shared(&BROKER, KafkaListener::Plain).await, Some(alone)).await
}

async fn shared(broker: &OnceCell<Arc<Mutex<Kafka>>>, listener: KafkaListener) -> Arc<Mutex<Kafka>> {
    broker.get_or_init(async || Arc::new(Mutex::new(Kafka::start(listener).await))).await.clone()
}

impl OnKafka {
    async fn on(broker: Arc<Mutex<Kafka>>, alone: Option<OwnedMutexGuard<()>>) -> Self {
        let (servers, password, authorities) = {
            let kafka = broker.lock().await;
            (kafka.bootstrap_servers(), kafka.admin_password().to_owned(), kafka.ca_pem().map(str::to_owned))
        };
        let admin = Settings::new(&servers, Kafka::ADMIN, &password);
        let admin = authorities.as_ref().map_or(admin.clone(), |ca| admin.with_tls(ca.as_bytes()).unwrap());
        let tenant = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let effect = KafkaEffect::new(admin.clone(), 1);
        let secret = SecretRef { namespace: tenant.clone(), name: "hub-kafka".into(), generation: 1 };
        let user = [
            KafkaStep::EnsureUser { username: tenant.clone(), secret },
            KafkaStep::EnsureAcls { username: tenant.clone(), prefix: format!("acb.{tenant}.") },
        ];
        effect.apply(&user, &Password).await.unwrap();
        let settings = KafkaSettings {
            bootstrap_servers: servers,
            username: tenant.clone(),
            tenant,
            password: "the tenant's".to_owned().into(),
            authorities,
        };
        Self { broker, _alone: alone, effect, admin, settings }
    }

    async fn ensure(&self, topic: &TopicName, partitions: u32) {
        let topic = TopicSpec {
            name: topic.to_string(),
            partitions,
            retention_seconds: 3600,
            cleanup: "delete".into(),
            max_message_bytes: 2 << 20,
        };
        self.effect.apply(&[KafkaStep::EnsureTopic { topic }], &Password).await.unwrap();
    }

    async fn remove(&self, topic: &TopicName) {
        self.effect.apply(&[KafkaStep::RemoveTopic { name: topic.to_string() }], &Password).await.unwrap();
    }
}

#[async_trait]
impl Provider for OnKafka {
    async fn topic(&self, partitions: u32) -> TopicName {
        let topic = TopicName::context(&self.settings.tenant, &format!("t{}", uuid::Uuid::new_v4().simple()));
        self.ensure(&topic, partitions).await;
        topic
    }

    async fn bus(&self) -> Arc<dyn Bus> {
        Arc::new(KafkaBus::connect(&self.settings).unwrap())
    }

    async fn interrupt(&self) {
        assert!(self._alone.is_some(), "others use this broker");
        self.broker.lock().await.crash_and_restart().await;
    }

    async fn forget(&self, topic: &TopicName, partition: Partition, first: Offset) {
        let partition =
            DeleteRecordsPartition::default().with_partition_index(partition.cast_signed()).with_offset(first.cast_signed());
        let name = KafkaTopic(StrBytes::from_string(topic.to_string()));
        let topic = DeleteRecordsTopic::default().with_name(name).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer = Connection::open(&self.admin).await.unwrap().send(&request, 2).await.unwrap();
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    }

    async fn stall(&self, _: &TopicName) -> Stall {
        assert!(self._alone.is_some(), "others use this broker");
        let paused = Paused(self.broker.clone().lock_owned().await);
        paused.0.pause();
        let (release, released) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            // The test may have failed.
            let _ = released.await;
            drop(paused);
        });
        Stall::new(release, task)
    }
}

acb_bus_conformance::conformance! { kafka:
    appending::{
        offsets_are_dense, appends_keep_their_order, many_writers_share_a_partition, a_record_is_kept_whole,
        a_large_record_harms_no_other, an_unknown_topic_is_an_error, an_unknown_partition_is_an_error,
        acknowledged_is_readable,
    }
    reading::{
        bounds_tell_what_is_held, bounds_tell_what_is_forgotten, offsets_are_found_by_time, reads_are_limited, log_time_never_falls,
    }
    following::{
        a_tail_starts_anywhere, a_tail_resumes, two_tails_see_the_same, a_tail_follows_other_replicas, a_tail_waits_at_the_end,
        a_tail_passes_over_what_is_forgotten, a_tail_does_not_start_past_the_end,
    }
}

acb_bus_conformance::conformance! { disturbed:
    appending::{the_queue_is_bounded}
    following::{a_late_commit_is_not_skipped}
    outage::{a_cut_connection_loses_nothing, appends_wait_for_the_log}
}

/// What is not there, and what is another tenant's, look the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_tenants_topic_does_not_exist() {
    let (mine, other) = (kafka().await, kafka().await);
    let (topic, bus) = (other.topic(1).await, mine.bus().await);
    let none = BusError::NoSuchTopic(topic.clone());
    assert_eq!(bus.topic(&topic).await.unwrap_err(), none);
    assert_eq!(bus.read(&topic, 0, 0, 1).await.unwrap_err(), none);
    assert_eq!(bus.tail(&topic, &[0]).await.err().unwrap(), none);
    assert!(matches!(bus.append(&topic, 0, record("lost")).await.err(), Some(AppendError::Refused(_))));
}

/// A broker is killed and comes back: the same tail and the same producer go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_outlives_a_killed_broker() {
    let provider = disturbed().await;
    let (topic, bus) = (provider.topic(2).await, provider.bus().await);
    append(&*bus, &topic, 0, "before").await;
    let mut tail = bus.tail(&topic, &[0, 0]).await.unwrap();
    assert_eq!(texts(&take(&mut tail, 1).await), ["before"]);
    provider.broker.lock().await.kill();
    let meanwhile = bus.append(&topic, 1, record("meanwhile")).await.unwrap();
    provider.broker.lock().await.launch().await;
    timeout(DEADLINE, meanwhile).await.expect("an answer in time").expect("logged");
    assert_eq!(texts(&take(&mut tail, 1).await), ["meanwhile"]);
    assert_eq!(append(&*bus, &topic, 0, "after").await, 1);
    assert_eq!(texts(&take(&mut tail, 1).await), ["after"]);
}

/// Of two brokers one goes away: what the other leads is read, told and followed as before, and nobody waits for the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_without_a_leader_holds_up_no_other() {
    let settings = [("broker.session.timeout.ms", "3000"), ("broker.heartbeat.interval.ms", "500")];
    let first = Kafka::start_with(KafkaListener::Plain, &settings).await;
    let mut second = first.join().await;
    let provider = OnKafka::on(Arc::new(Mutex::new(first)), None).await;
    let topic = TopicName::context(&provider.settings.tenant, "split");
    let on = |partition, broker| {
        CreatableReplicaAssignment::default().with_partition_index(partition).with_broker_ids(vec![BrokerId(broker)])
    };
    // As the operator has it.
    let log_time = CreatableTopicConfig::default()
        .with_name(StrBytes::from_static_str("message.timestamp.type"))
        .with_value(Some(StrBytes::from_static_str("LogAppendTime")));
    let split = CreatableTopic::default()
        .with_configs(vec![log_time])
        .with_name(KafkaTopic(StrBytes::from_string(topic.to_string())))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(vec![on(0, 1), on(1, 2)]);
    let request = CreateTopicsRequest::default().with_topics(vec![split]).with_timeout_ms(10_000);
    let answer = Connection::open(&provider.admin).await.unwrap().send(&request, 7).await.unwrap();
    assert_eq!(answer.topics[0].error_code, 0, "{:?}", answer.topics[0].error_message);

    let bus = provider.bus().await;
    for partition in 0..2 {
        append(&*bus, &topic, partition, format!("{partition}.before")).await;
    }
    let mut before = bus.tail(&topic, &[0, 0]).await.unwrap();
    assert_eq!(take(&mut before, 2).await.len(), 2);
    second.kill();
    let deadline = Instant::now() + DEADLINE * 2;
    let bounds = loop {
        let bounds = bus.bounds_each(&topic).await.unwrap();
        if matches!(&bounds[1], Err(BusError::Unavailable(reason)) if reason.contains("has no leader")) {
            break bounds;
        }
        assert!(Instant::now() < deadline, "{bounds:?}");
    };
    assert_eq!(bounds[0], Ok(Bounds { first: 0, next: 1 }));
    // A replica that starts now, too.
    for bus in [bus.clone(), provider.bus().await] {
        let began = Instant::now();
        let reads = (0..40).map(|number| bus.read(&topic, u32::from(number % 2 == 0), 0, 1));
        for (number, read) in futures::future::join_all(reads).await.into_iter().enumerate() {
            assert_eq!(read.is_ok(), number % 2 == 1, "{read:?}");
        }
        assert!(bus.bounds(&topic).await.is_err(), "not all of them say");
        let found = bus.offsets_at_each(&topic, time::OffsetDateTime::UNIX_EPOCH).await.unwrap();
        assert!(found[0] == Ok(0) && found[1].is_err(), "{found:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "somebody waited: {:?}", began.elapsed());
    }
    let mut meanwhile = bus.tail(&topic, &[0, 0]).await.unwrap();
    append(&*bus, &topic, 0, "0.meanwhile").await;
    assert_eq!(texts(&take(&mut before, 1).await), ["0.meanwhile"]);
    assert_eq!(texts(&take(&mut meanwhile, 2).await), ["0.before", "0.meanwhile"]);

    second.launch().await;
    assert_eq!(texts(&take(&mut meanwhile, 1).await), ["1.before"]);
    append(&*bus, &topic, 1, "1.after").await;
    assert_eq!(texts(&take(&mut before, 1).await), ["1.after"]);
    assert_eq!(texts(&take(&mut meanwhile, 1).await), ["1.after"]);
    assert_eq!(bus.bounds(&topic).await.unwrap()[1], Bounds { first: 0, next: 2 });
}

/// The tenant's password is replaced, and every connection is lost: what was open goes on with the new one, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_goes_over_to_a_new_password() {
    struct New;

    #[async_trait]
    impl SecretReader for New {
        async fn read(&self, _: &SecretRef) -> Result<SecretData, EffectError> {
            Ok(SecretData::new().with("password", "another one"))
        }
    }

    let provider = disturbed().await;
    let topic = provider.topic(1).await;
    let bus = KafkaBus::connect(&provider.settings).unwrap();
    append(&bus, &topic, 0, "before").await;
    let mut tail = bus.tail(&topic, &[0]).await.unwrap();
    assert_eq!(texts(&take(&mut tail, 1).await), ["before"]);
    let old = provider.settings.password.clone();
    assert!(bus.is_taken(&old).await.unwrap() && !bus.is_taken("another one").await.unwrap());

    let secret = SecretRef { namespace: "n".into(), name: "hub-kafka".into(), generation: 2 };
    let step = KafkaStep::EnsureUser { username: provider.settings.username.clone(), secret };
    provider.effect.apply(&[step], &New).await.unwrap();
    assert!(!bus.is_taken(&old).await.unwrap() && bus.is_taken("another one").await.unwrap());
    // What is connected stays.
    append(&bus, &topic, 0, "meanwhile").await;
    assert_eq!(texts(&take(&mut tail, 1).await), ["meanwhile"]);

    bus.log_in_with("another one").await;
    provider.broker.lock().await.crash_and_restart().await;
    append(&bus, &topic, 0, "after").await;
    assert_eq!(texts(&take(&mut tail, 1).await), ["after"]);
    assert_eq!(texts(&bus.read(&topic, 0, 0, 10).await.unwrap()), ["before", "meanwhile", "after"]);
    let mut anew = bus.tail(&topic, &[0]).await.unwrap();
    assert_eq!(take(&mut anew, 3).await.len(), 3);
}

/// Connections to the broker, of whoever has them.
fn connections(port: u16) -> usize {
    let (remote, established) = (format!(":{port:04X}"), "01");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let is_one = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|to| to.ends_with(&remote)) && columns.next() == Some(established)
    };
    tables.iter().flat_map(|table| table.lines()).filter(is_one).count()
}

/// Topics share a consumer, with its connections and threads, also those that are followed again. One that is followed twice has another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tails_share_their_connections() {
    let provider = disturbed().await;
    let port = provider.settings.bootstrap_servers.rsplit(':').next().unwrap().parse().unwrap();
    let bus = provider.bus().await;
    let mut topics = Vec::new();
    for _ in 0..12 {
        topics.push(provider.topic(2).await);
    }
    let follow = async |topic: &TopicName, from: Offset| {
        let mut tail = bus.tail(topic, &[from, from]).await.unwrap();
        for partition in 0..2 {
            append(&*bus, topic, partition, from.to_string()).await;
        }
        assert_eq!(texts(&take(&mut tail, 2).await), [from.to_string(), from.to_string()]);
        tail
    };
    let first = follow(&topics[0], 0).await;
    let one = connections(port);
    let mut tails = vec![first];
    for topic in &topics[1..] {
        tails.push(follow(topic, 0).await);
    }
    assert_eq!(connections(port), one);
    for (tail, topic) in tails.iter_mut().zip(&topics).take(3) {
        // The old one goes before the new one comes, as a follower does it.
        *tail = Box::pin(futures::stream::empty());
        *tail = follow(topic, 1).await;
    }
    assert_eq!(connections(port), one);
    let mut twice = follow(&topics[0], 2).await;
    assert!(connections(port) > one);
    append(&*bus, &topics[0], 0, "both").await;
    assert_eq!(texts(&take(&mut twice, 1).await), ["both"]);
    let first = take(&mut tails[0], 3).await;
    assert_eq!(first.len(), 3, "what came meanwhile, and the last");
}

/// What a test gives the process that measures its own memory.
const SLOW: &str = "ACB_TEST_SLOW_FOLLOWER";

/// A topic that is followed and not read holds up no other, and holds little memory; read again, it has everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_follower_holds_up_no_other() {
    let provider = kafka().await;
    let (slow, quick, bus) = (provider.topic(4).await, provider.topic(1).await, provider.bus().await);
    for number in 0..64_u32 {
        bus.append(&slow, number % 4, record(vec![7; 1 << 20])).await.unwrap().await.unwrap();
    }
    // A process of its own: this one has the other tests' memory.
    let KafkaSettings { bootstrap_servers, tenant, authorities, .. } = &provider.settings;
    let given = [bootstrap_servers, tenant, authorities.as_deref().unwrap_or_default(), slow.as_str(), quick.as_str()].join("\0");
    let path = std::env::temp_dir().join(format!("{tenant}.slow"));
    std::fs::write(&path, given).unwrap();
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "kafka::measured::a_slow_follower", "--ignored", "--nocapture"]).env(SLOW, &path).kill_on_drop(true);
    let output = timeout(DEADLINE * 3, child.output()).await.expect("in time").unwrap();
    std::fs::remove_file(path).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // Where there is no test of that name, that is a success, too.
    assert!(output.status.success() && said.contains("1 passed") && said.contains(measured::DONE), "{said}");
}

mod measured {
    use super::*;

    /// Printed at the end.
    pub(super) const DONE: &str = "the slow follower has everything";

    fn resident_mib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "run by a_slow_follower_holds_up_no_other, in a process of its own"]
    #[allow(clippy::print_stdout)]
    async fn a_slow_follower() {
        // Without it somebody runs all that is ignored.
        let Some(path) = std::env::var_os(SLOW) else { return };
        let given = std::fs::read_to_string(path).unwrap();
        let [bootstrap_servers, tenant, authorities, slow, quick] = given.split('\0').collect::<Vec<_>>().try_into().unwrap();
        let settings = KafkaSettings {
            bootstrap_servers: bootstrap_servers.into(),
            username: tenant.into(),
            tenant: tenant.into(),
            password: "the tenant's".to_owned().into(),
            authorities: Some(authorities.to_owned()).filter(|pem| !pem.is_empty()),
        };
        let topic = |name: &str| TopicName::context(tenant, name.rsplit('.').next().unwrap());
        let (slow, quick) = (topic(slow), topic(quick));
        let bus = KafkaBus::connect(&settings).unwrap();
        let mut live = bus.tail(&quick, &[0]).await.unwrap();
        append(&bus, &quick, 0, "first").await;
        take(&mut live, 1).await;
        let before = resident_mib();
        let mut unread = bus.tail(&slow, &[0; 4]).await.unwrap();
        let held = || resident_mib().saturating_sub(before);
        let deadline = Instant::now() + DEADLINE;
        let mut rounds = 0;
        // Once it holds something, so many more: without a bound it would have all by then.
        while rounds < 300 {
            append(&bus, &quick, 0, "quick").await;
            let seen = timeout(Duration::from_secs(5), take(&mut live, 1)).await.expect("the slow one is waited for");
            assert_eq!(texts(&seen), ["quick"]);
            assert!(rounds > 0 || Instant::now() < deadline, "nothing is read ahead");
            rounds += u32::from(rounds > 0 || held() >= 2);
        }
        assert!(held() < 24, "{} MiB are held of 64", held());
        assert_eq!(take(&mut unread, 64).await.len(), 64);
        println!("{DONE}");
    }
}

/// Without a broker nothing is made up, and the error says where it was looked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_broker_is_named() {
    let settings = KafkaSettings {
        bootstrap_servers: "127.0.0.1:1".into(),
        tenant: "acme".into(),
        username: "acme".into(),
        password: "hidden".to_owned().into(),
        authorities: None,
    };
    assert!(!format!("{settings:?}").contains("hidden"));
    let bus = KafkaBus::connect(&settings).unwrap();
    let error = bus.topic(&TopicName::system("acme", "messages")).await.unwrap_err();
    assert!(matches!(&error, BusError::Unavailable(reason) if reason.contains("127.0.0.1:1")), "{error}");
}

/// A password that is wrong, and an authority that signed nothing here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_is_an_error() {
    let provider = kafka().await;
    let topic = provider.topic(1).await;
    let mut settings = provider.settings.clone();
    settings.password = "wrong".to_owned().into();
    let error = KafkaBus::connect(&settings).unwrap().topic(&topic).await.unwrap_err();
    assert!(matches!(&error, BusError::Unavailable(_)), "{error}");
    settings.authorities = Some("no certificate".into());
    assert!(KafkaBus::connect(&settings).is_err());
}

/// Partitions that are added are followed, and a topic that is made anew ends its tails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_sees_its_topic_change() {
    let provider = kafka().await;
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    append(&*bus, &topic, 0, "old").await;
    let mut tail = bus.tail(&topic, &[0]).await.unwrap();
    assert_eq!(texts(&take(&mut tail, 1).await), ["old"]);
    provider.ensure(&topic, 2).await;
    append(&*bus, &topic, 1, "added").await;
    assert_eq!(texts(&take(&mut tail, 1).await), ["added"]);
    provider.remove(&topic).await;
    let ended = timeout(DEADLINE, tail.next()).await.expect("in time").unwrap();
    assert!(ended.is_err(), "{ended:?}");
    assert!(tail.next().await.is_none());
}

/// What was told of a topic a moment ago does not outlive it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_is_not_taken_for_the_one_before() {
    let provider = kafka().await;
    let (topic, bus) = (provider.topic(1).await, provider.bus().await);
    append(&*bus, &topic, 0, "old").await;
    let before = bus.topic(&topic).await.unwrap();
    assert_eq!(texts(&bus.read(&topic, 0, 0, 1).await.unwrap()), ["old"]);
    provider.remove(&topic).await;
    let none = BusError::NoSuchTopic(topic.clone());
    // The broker may show it for a moment after it was removed.
    let deadline = Instant::now() + DEADLINE;
    loop {
        match bus.read(&topic, 0, 0, 1).await {
            Ok(_) if Instant::now() < deadline => {}
            read => break assert_eq!(read.unwrap_err(), none),
        }
    }
    assert_eq!(bus.bounds_each(&topic).await.unwrap_err(), none);
    provider.ensure(&topic, 1).await;
    assert_ne!(bus.topic(&topic).await.unwrap().epoch, before.epoch);
    append(&*provider.bus().await, &topic, 0, "new").await;
    let deadline = Instant::now() + DEADLINE;
    loop {
        match bus.read(&topic, 0, 0, 1).await {
            Ok(read) if !read.is_empty() => break assert_eq!(texts(&read), ["new"]),
            waiting => assert!(Instant::now() < deadline, "{waiting:?}"),
        }
    }
}

/// librdkafka keeps what it knows of a topic's leader, and takes nothing from an epoch of the leader that is lower.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_is_followed_although_its_leader_changed_before() {
    let provider = disturbed().await;
    let (topic, other, bus) = (provider.topic(1).await, provider.topic(1).await, provider.bus().await);
    // The broker leads again when it is back, in a later epoch.
    provider.interrupt().await;
    let name = Some(KafkaTopic(StrBytes::from_string(topic.to_string())));
    let request = MetadataRequest::default().with_topics(Some(vec![MetadataRequestTopic::default().with_name(name)]));
    let answer = Connection::open(&provider.admin).await.unwrap().send(&request, 12).await.unwrap();
    let epoch = answer.topics[0].partitions[0].leader_epoch;
    assert!(epoch >= 1, "without that the test shows nothing: {epoch}");

    // It keeps the consumer alive.
    let mut stays = bus.tail(&other, &[0]).await.unwrap();
    append(&*bus, &other, 0, "other").await;
    assert_eq!(texts(&take(&mut stays, 1).await), ["other"]);
    append(&*bus, &topic, 0, "old").await;
    let mut tail = bus.tail(&topic, &[0]).await.unwrap();
    assert_eq!(texts(&take(&mut tail, 1).await), ["old"]);
    drop(tail);
    provider.remove(&topic).await;
    let deadline = Instant::now() + DEADLINE;
    while bus.topic(&topic).await.is_ok() {
        assert!(Instant::now() < deadline, "it is still there");
    }
    provider.ensure(&topic, 1).await;
    append(&*provider.bus().await, &topic, 0, "new").await;
    let mut tail = bus.tail(&topic, &[0]).await.unwrap();
    assert_eq!(texts(&take(&mut tail, 1).await), ["new"]);
}

/// Retention takes the records of one partition, and a moment later those of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_passes_over_what_two_partitions_forget_one_after_the_other() {
    let provider = kafka().await;
    let (topic, bus) = (provider.topic(2).await, provider.bus().await);
    append(&*bus, &topic, 0, "0").await;
    provider.forget(&topic, 0, 1).await;
    for _ in 0..24 {
        bus.append(&topic, 1, record(vec![7; 1 << 20])).await.unwrap().await.unwrap();
    }
    let mut tail = bus.tail(&topic, &[0, 0]).await.unwrap();
    let mut positions = [0, 0];
    let mut follow = async |until: &dyn Fn([Offset; 2]) -> bool| {
        while !until(positions) {
            let batch = timeout(DEADLINE, tail.next()).await.expect("in time").unwrap().unwrap();
            positions[batch.partition as usize] = batch.next;
        }
    };
    follow(&|[first, _]| first == 1).await;
    // Some of the second one was read ahead. The rest is asked for once that was taken.
    provider.forget(&topic, 1, 24).await;
    follow(&|[_, second]| second == 24).await;
}

/// Not a test of speed: it tells what it measured.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test -p acb-bus-conformance -- --ignored --nocapture latency"]
#[allow(clippy::print_stdout)]
async fn latency() {
    let provider = kafka().await;
    let (topic, here, there) = (provider.topic(8).await, provider.bus().await, provider.bus().await);
    let start = Instant::now();
    here.bounds(&topic).await.unwrap();
    println!("first bounds: {:?}", start.elapsed());
    for _ in 0..3 {
        let start = Instant::now();
        here.read(&topic, 0, 0, 1).await.unwrap();
        println!("empty read: {:?}", start.elapsed());
    }
    crate::measure(&*here, &*there, &topic).await;
    for offset in [0, 1, 50] {
        let start = Instant::now();
        assert_eq!(here.read(&topic, 0, offset, 1).await.unwrap().len(), 1);
        println!("read of one: {:?}", start.elapsed());
    }
}
