//! A tenant's plan on a real broker: applied, observed, planned again.

use std::{sync::Arc, time::Duration};

use acb_kafka::{
    Connection, Settings,
    kafka_protocol::messages::{
        CreateAclsRequest, IncrementalAlterConfigsRequest,
        create_acls_request::AclCreation,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
};
use acb_operator::{
    effect::{kafka::KafkaEffect, kafka_announce::KafkaAnnouncer, postgres::GenerationAnnouncer, postgres_observe::LoginState},
    plan::{KafkaQuota, KafkaStep, Plan, SecretRef, Step},
    tenant::{self, World},
};
use acb_testbed::{Kafka, KafkaListener};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use tokio::{
    sync::SemaphorePermit,
    time::{Instant, sleep, timeout},
};

use crate::{
    BROKERS, Passwords,
    given::{first, kafka_platform, plan, sample, world},
    password, text,
};

struct Bench {
    kafka: Kafka,
    effect: KafkaEffect,
    world: World,
    user: String,
    _turn: SemaphorePermit<'static>,
}

impl Bench {
    async fn start() -> Self {
        let _turn = BROKERS.acquire().await.unwrap();
        let kafka = Kafka::start(KafkaListener::Plain).await;
        let effect = KafkaEffect::new(admin(&kafka), -1);
        let mut world = world(&sample("acme.yaml"));
        // What `Passwords` gives.
        world.secrets.insert(SecretRef { namespace: "acbhub-acme".into(), name: "hub-kafka".into(), generation: 1 });
        let user = acb_crds::names::TenantId::from_uid(first(&world.tenancy).metadata.uid.as_deref().unwrap()).login();
        Self { kafka, effect, world, user, _turn }
    }

    async fn observe(&mut self) {
        let mut observed = self.effect.observe(&self.user, "acb.acme.").await.unwrap();
        observed.user = self.effect.login_state(&self.user, &password("acbhub-acme")).await;
        self.world.kafka = tenant::Read::Known(observed);
    }

    async fn planned(&mut self) -> Vec<KafkaStep> {
        self.observe().await;
        kafka_steps(&plan(&first(&self.world.tenancy), &self.world, &kafka_platform()))
    }

    /// What drifted is planned, by its lines; once applied, nothing is.
    async fn heals(&mut self, wanted: &[&str]) {
        // The broker may know of the drift a moment later.
        let deadline = Instant::now() + Duration::from_secs(10);
        let steps = loop {
            let steps = self.planned().await;
            let lines: Vec<String> = steps.iter().map(|step| Step::Kafka(step.clone()).to_string()).collect();
            if lines.len() == wanted.len() && lines.iter().zip(wanted).all(|(line, wanted)| line.contains(wanted)) {
                break steps;
            }
            assert!(Instant::now() < deadline, "planned: {lines:?}, and not {wanted:?}");
            sleep(Duration::from_millis(20)).await;
        };
        self.effect.apply(&steps, &Passwords).await.unwrap();
        assert_eq!(self.planned().await, []);
    }

    async fn set(&self, topic: &str, key: &str, value: &str) {
        let config = AlterableConfig::default().with_name(text(key)).with_value(Some(text(value)));
        let resource =
            AlterConfigsResource::default().with_resource_type(2).with_resource_name(text(topic)).with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let mut connection = Connection::open(&admin(&self.kafka)).await.unwrap();
        assert_eq!(connection.send(&request, 1).await.unwrap().responses[0].error_code, 0);
    }

    /// A setting of the broker; `None`: as it was started.
    async fn set_broker(&self, key: &str, value: Option<&str>) {
        let operation = i8::from(value.is_none());
        let config = AlterableConfig::default().with_name(text(key)).with_config_operation(operation).with_value(value.map(text));
        let resource =
            AlterConfigsResource::default().with_resource_type(4).with_resource_name(text("")).with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let mut connection = Connection::open(&admin(&self.kafka)).await.unwrap();
        let answer = connection.send(&request, 1).await.unwrap();
        assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    }

    async fn until_risks(&mut self, wanted: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            self.observe().await;
            let risks = &self.world.kafka.known().unwrap().risks;
            if risks.len() == wanted.len() && risks.iter().zip(wanted).all(|(risk, wanted)| risk.contains(wanted)) {
                return;
            }
            assert!(Instant::now() < deadline, "{risks:?}, and not {wanted:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn apply(&self, step: KafkaStep) {
        self.effect.apply(&[step], &Passwords).await.unwrap();
    }
}

fn admin(kafka: &Kafka) -> Settings {
    let settings = Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password());
    kafka.ca_pem().map_or(settings.clone(), |ca| settings.with_tls(ca.as_bytes()).unwrap())
}

fn kafka_steps(plan: &Plan) -> Vec<KafkaStep> {
    plan.steps.iter().filter_map(Step::kafka).cloned().collect()
}

#[tokio::test]
async fn what_was_applied_is_not_planned_again_and_what_drifted_is() {
    let mut bench = Bench::start().await;
    // A neighbour whose name begins with the tenant's.
    let neighbour = crate::tenant("acme2");
    bench.effect.apply(&neighbour, &Passwords).await.unwrap();
    let user = bench.user.clone();
    let fresh = bench.planned().await;
    assert_eq!(fresh.len(), 10, "{fresh:?}");
    bench.effect.apply(&fresh, &Passwords).await.unwrap();
    assert_eq!(bench.planned().await, []);
    assert_eq!(bench.world.kafka.known().unwrap().topics.len(), 7);

    bench.set("acb.acme.documents", "retention.ms", "1000").await;
    bench.heals(&["topic acb.acme.documents"]).await;
    bench.set("acb.acme.documents", "retention.ms", "-1").await;
    bench.heals(&["topic acb.acme.documents"]).await;
    bench.set("acb.acme.sys.messages", "max.message.bytes", "1000").await;
    bench.heals(&["topic acb.acme.sys.messages"]).await;
    // Nothing that a plan names: found all the same.
    bench.set("acb.acme.sys.messages", "message.timestamp.type", "CreateTime").await;
    bench.heals(&["topic acb.acme.sys.messages"]).await;
    bench.set("acb.acme.documents", "unclean.leader.election.enable", "true").await;
    bench.heals(&["topic acb.acme.documents"]).await;
    // Safer than the brokers have it: that is the platform's affair.
    bench.set("acb.acme.documents", "min.insync.replicas", "2").await;
    assert_eq!(bench.planned().await, []);
    bench.set("acb.acme.documents", "min.insync.replicas", "1").await;
    bench.apply(KafkaStep::RemoveTopic { name: "acb.acme.reports".into() }).await;
    bench.heals(&["topic acb.acme.reports"]).await;

    bench.apply(KafkaStep::EnsureAcls { username: user.clone(), prefix: "acb.other.".into() }).await;
    bench.heals(&["acls of"]).await;
    bench.apply(KafkaStep::RemoveUser { username: user.clone() }).await;
    bench.heals(&["quota of", "kafka user", "acls of"]).await;
    let elsewhere = SecretRef { namespace: "elsewhere".into(), name: "hub-kafka".into(), generation: 1 };
    bench.apply(KafkaStep::EnsureUser { username: user.clone(), secret: elsewhere }).await;
    assert_eq!(bench.effect.login_state(&user, &password("acbhub-acme")).await, LoginState::Refused);
    bench.heals(&["kafka user"]).await;

    for producer_bytes_per_second in [None, Some(1_000)] {
        let quota = KafkaQuota { producer_bytes_per_second, ..KafkaQuota::default() };
        bench.apply(KafkaStep::EnsureQuota { username: user.clone(), quota }).await;
        bench.heals(&["quota of"]).await;
    }

    // Partitions grow, and what is not set keeps what there is.
    bench.world.tenancy.tenants[0].spec.context_types[0].partitions = Some(6);
    bench.heals(&["topic acb.acme.documents (6 partitions"]).await;
    assert_eq!(bench.world.kafka.known().unwrap().topics["acb.acme.documents"].partitions, 6);
    bench.world.tenancy.tenants[0].spec.context_types[0].partitions = None;
    assert_eq!(bench.planned().await, []);
}

#[tokio::test]
async fn what_the_brokers_are_set_to_is_judged_and_healed_of_itself() {
    let mut bench = Bench::start().await;
    let steps = bench.planned().await;
    bench.effect.apply(&steps, &Passwords).await.unwrap();
    bench.observe().await;
    assert_eq!(bench.world.kafka.known().unwrap().risks, Vec::<String>::new(), "the testbed's broker is set as it should be");
    bench.set_broker("unclean.leader.election.enable", Some("true")).await;
    bench.until_risks(&["unclean.leader.election.enable=true"]).await;
    bench.set_broker("unclean.leader.election.enable", None).await;
    bench.until_risks(&[]).await;
}

#[tokio::test]
async fn what_an_acl_of_everybody_opens_is_said() {
    let mut bench = Bench::start().await;
    let steps = bench.planned().await;
    bench.effect.apply(&steps, &Passwords).await.unwrap();
    let mut admin = Connection::open(&admin(&bench.kafka)).await.unwrap();
    for (name, pattern, risks) in [("acb.globex.", 4, 0), ("acb.", 4, 1), ("*", 3, 2)] {
        let acl = AclCreation::default().with_resource_type(2).with_resource_name(text(name)).with_resource_pattern_type(pattern);
        let acl = acl.with_principal(text("User:*")).with_host(text("*")).with_operation(3).with_permission_type(3);
        let made = admin.send(&CreateAclsRequest::default().with_creations(vec![acl]), 2).await.unwrap();
        assert_eq!(made.results[0].error_code, 0);
        bench.until_risks(&vec!["an ACL of User:* allows Read"; risks]).await;
        // What is read for all tenants at once says the same.
        let shared = bench.effect.clone().sharing(Arc::default());
        assert_eq!(shared.look(&bench.user, "acb.acme.").await.unwrap().risks.len(), risks, "{name}");
    }
    assert!(bench.planned().await.is_empty(), "they are the platform's: nothing of it is removed");
}

#[tokio::test]
async fn a_broker_that_lets_everyone_in_is_found_by_trying() {
    let open = [("allow.everyone.if.no.acl.found", "true"), ("auto.create.topics.enable", "true")];
    for (settings, is_open, risks) in [(&open[..], true, 1), (&[], false, 0)] {
        let _turn = BROKERS.acquire().await.unwrap();
        let kafka = Kafka::start_with(KafkaListener::Plain, settings).await;
        let effect = KafkaEffect::new(admin(&kafka), -1);
        effect.apply(&crate::tenant("acme"), &Passwords).await.unwrap();
        assert_eq!(effect.try_login("acme", &password("acme")).await, (LoginState::Works, is_open));
        assert_eq!(effect.try_login("acme", "wrong").await, (LoginState::Refused, false));
        let observed = effect.observe("acme", "acb.acme.").await.unwrap();
        assert_eq!(observed.risks.len(), risks, "{:?}", observed.risks);
        assert!(observed.risks.iter().all(|risk| risk.starts_with("auto.create.topics.enable=true")), "{:?}", observed.risks);
        assert_eq!(observed.topics.len(), 1, "trying makes no topic");
    }
}

#[tokio::test]
async fn a_tenant_that_goes_takes_its_own_and_nothing_else() {
    let mut bench = Bench::start().await;
    bench.effect.apply(&crate::tenant("acme2"), &Passwords).await.unwrap();
    let fresh = bench.planned().await;
    bench.effect.apply(&fresh, &Passwords).await.unwrap();
    // By which its topics are known to be its own.
    let row = tenant::validate::validate(&first(&bench.world.tenancy), &bench.world, &kafka_platform()).unwrap();
    bench.world.postgres.known_mut().unwrap().tenant = Some(tenant::plan::tenant_row(&row));
    let tenant = &mut bench.world.tenancy.tenants[0];
    tenant.metadata.deletion_timestamp = serde_json::from_str("\"2025-01-01T00:00:00Z\"").unwrap();
    bench.heals(&["kafka user"]).await;
    assert_eq!(bench.world.kafka.known().unwrap().topics.len(), 7, "retained");

    bench.world.tenancy.tenants[0].spec.deletion_policy = Some(acb_crds::tenant::DeletionPolicy::Delete);
    let removal = bench.planned().await;
    assert_eq!(removal.len(), 7, "{removal:?}");
    bench.effect.apply(&removal, &Passwords).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while !bench.planned().await.is_empty() {
        assert!(Instant::now() < deadline, "{:?}", bench.world.kafka);
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.world.kafka.known().unwrap().quota, KafkaQuota::default());
    let neighbour = bench.effect.observe("acme2", "acb.acme2.").await.unwrap();
    assert!(neighbour.has_user && neighbour.acls && neighbour.topics.len() == 1, "{neighbour:?}");
}

/// How long a user takes to append 12 MiB.
async fn appending(bench: &Bench) -> Duration {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bench.kafka.bootstrap_servers())
        .set("security.protocol", "SASL_PLAINTEXT")
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", &bench.user)
        .set("sasl.password", password("acbhub-acme"))
        .create()
        .unwrap();
    let payload = vec![7_u8; 512 * 1024];
    let start = Instant::now();
    for _ in 0..24 {
        let record = FutureRecord::<(), _>::to("acb.acme.sys.messages").payload(&payload);
        producer.send(record, Duration::from_secs(60)).await.unwrap();
    }
    start.elapsed()
}

#[tokio::test]
async fn a_quota_holds_a_producer_back() {
    let mut bench = Bench::start().await;
    let steps = bench.planned().await;
    bench.effect.apply(&steps, &Passwords).await.unwrap();
    let free = appending(&bench).await;
    let quota = KafkaQuota { producer_bytes_per_second: Some(1_048_576), ..KafkaQuota::default() };
    bench.apply(KafkaStep::EnsureQuota { username: bench.user.clone(), quota }).await;
    let held = appending(&bench).await;
    assert!(held > Duration::from_secs(3) && held > 2 * free, "{free:?} without, {held:?} with a quota of a twelfth a second");
}

#[tokio::test]
async fn a_generation_is_announced() {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(KafkaListener::Tls).await;
    let (servers, password) = (kafka.bootstrap_servers(), kafka.admin_password());
    let announcer = KafkaAnnouncer::new(&servers, Kafka::ADMIN, password, kafka.ca_pem()).unwrap();
    // Before there is a topic: waits for nothing.
    timeout(Duration::from_secs(1), announcer.announce("acme", 1)).await.unwrap();
    let effect = KafkaEffect::new(admin(&kafka), -1);
    effect.apply(&kafka_steps(&plan_of_acme()), &Passwords).await.unwrap();
    announcer.announce("acme", 7).await;

    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", &servers)
        .set("group.id", "acb.test")
        .set("security.protocol", "SASL_SSL")
        .set("ssl.ca.pem", kafka.ca_pem().unwrap())
        .set("sasl.mechanism", "SCRAM-SHA-512")
        .set("sasl.username", Kafka::ADMIN)
        .set("sasl.password", password)
        .create()
        .unwrap();
    let mut from_start = TopicPartitionList::new();
    from_start.add_partition_offset("acb.acme.sys.control", 0, Offset::Beginning).unwrap();
    consumer.assign(&from_start).unwrap();
    loop {
        let record = timeout(Duration::from_secs(10), consumer.recv()).await.expect("it was announced").unwrap();
        assert_eq!(record.key(), Some(b"generation".as_slice()));
        // The first may have waited for its topic.
        if record.payload() == Some(b"7") {
            return;
        }
        assert_eq!(record.payload(), Some(b"1".as_slice()));
    }
}

fn plan_of_acme() -> Plan {
    let tenancy = sample("acme.yaml");
    plan(&first(&tenancy), &world(&tenancy), &kafka_platform())
}
