//! Kafka's walls: ACLs and SCRAM, on a real broker that the operator's own effect has provisioned.

use std::time::Duration;

use acb_isolation::{Attacker, HubAccess, KafkaAccess, PostgresAccess, Victim};
use acb_kafka::{
    Connection, Settings,
    kafka_protocol::{
        messages::{
            CreateAclsRequest, ListGroupsRequest, ListOffsetsRequest, MetadataRequest,
            create_acls_request::AclCreation,
            list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        },
        protocol::StrBytes,
    },
};
use acb_operator::{
    effect::{EffectError, SecretData, SecretReader, kafka::KafkaEffect},
    plan::{KafkaStep, SecretRef, TopicSpec},
};
use acb_testbed::{Kafka, KafkaListener};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::world::{all_refused, all_succeeded, run};

const ACME: (&str, &str) = ("acme", "0000000000000000000a");
const GLOBEX: (&str, &str) = ("globex", "0000000000000000000b");
const TYPE: &str = "notes";

/// Every Secret's password is told by its namespace.
struct Passwords;

#[async_trait::async_trait]
impl SecretReader for Passwords {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        Ok(SecretData::new().with("password", password(&secret.namespace)))
    }
}

fn password(namespace: &str) -> String {
    format!("the password of {namespace}")
}

fn user((_, id): (&str, &str)) -> String {
    format!("acb_t_{id}")
}

fn login(user: String, namespace: &str) -> KafkaStep {
    let secret = SecretRef { namespace: namespace.to_owned(), name: "hub-kafka".to_owned(), generation: 1 };
    KafkaStep::EnsureUser { username: user, secret }
}

fn steps(tenant: (&str, &str)) -> Vec<KafkaStep> {
    let topic = |name: &str| TopicSpec {
        name: format!("acb.{}.{name}", tenant.0),
        partitions: 2,
        retention_seconds: 3600,
        cleanup: "delete".to_owned(),
        max_message_bytes: 1,
    };
    let mut steps: Vec<_> =
        ["sys.messages", "sys.control", TYPE].iter().map(|name| KafkaStep::EnsureTopic { topic: topic(name) }).collect();
    steps.push(login(user(tenant), tenant.0));
    steps.push(KafkaStep::EnsureAcls { username: user(tenant), prefix: format!("acb.{}.", tenant.0) });
    steps
}

struct World {
    kafka: Kafka,
    effect: KafkaEffect,
    admin: Settings,
}

impl World {
    async fn start(listener: KafkaListener) -> Self {
        let kafka = Kafka::start(listener).await;
        let mut admin = Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password());
        if let Some(ca) = kafka.ca_pem() {
            admin = admin.with_tls(ca.as_bytes()).unwrap();
        }
        let effect = KafkaEffect::new(admin.clone(), -1);
        for tenant in [ACME, GLOBEX] {
            effect.apply(&steps(tenant), &Passwords).await.unwrap();
        }
        Self { kafka, effect, admin }
    }

    fn attacker(&self) -> Attacker {
        Attacker {
            tenant: GLOBEX.0.to_owned(),
            tenant_id: GLOBEX.1.to_owned(),
            hub: HubAccess { endpoints: Vec::new(), ca_pem: String::new(), api_key: None, signing_key: None },
            postgres: PostgresAccess {
                host: String::new(),
                port: 0,
                database: String::new(),
                username: String::new(),
                password: String::new(),
                ssl_mode: String::new(),
                ca_pem: None,
            },
            kafka: Some(KafkaAccess {
                bootstrap_servers: self.kafka.bootstrap_servers(),
                ca_pem: self.kafka.ca_pem().map(str::to_owned),
                username: user(GLOBEX),
                password: password(GLOBEX.0),
            }),
            witnesses: Vec::new(),
        }
    }

    /// What attacks could change: the tenants' topics with the ends of their logs, and the consumer groups.
    async fn kept(&self) -> Vec<String> {
        let mut admin = Connection::open(&self.admin).await.unwrap();
        let all = admin.send(&MetadataRequest::default().with_topics(None), 12).await.unwrap();
        let mut kept = Vec::new();
        for topic in all.topics {
            let name = topic.name.unwrap();
            if !name.starts_with("acb.") {
                continue;
            }
            let partitions = topic
                .partitions
                .iter()
                .map(|found| ListOffsetsPartition::default().with_partition_index(found.partition_index).with_timestamp(-1));
            let asked = ListOffsetsTopic::default().with_name(name.clone()).with_partitions(partitions.collect());
            let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
            let ends = admin.send(&request, 6).await.unwrap();
            let mut ends: Vec<_> =
                ends.topics[0].partitions.iter().map(|end| (end.partition_index, end.error_code, end.offset)).collect();
            ends.sort_unstable();
            kept.push(format!("{}: {ends:?}", name.0));
        }
        let groups = admin.send(&ListGroupsRequest::default(), 3).await.unwrap().groups;
        kept.extend(groups.iter().map(|group| format!("group {}", group.group_id.0)));
        kept.sort_unstable();
        kept
    }

    /// A record in each topic that attacks read.
    async fn write(&self) {
        let mut config = rdkafka::ClientConfig::new();
        config
            .set("bootstrap.servers", self.kafka.bootstrap_servers())
            .set("security.protocol", if self.kafka.ca_pem().is_some() { "sasl_ssl" } else { "sasl_plaintext" })
            .set("sasl.mechanism", "SCRAM-SHA-512")
            .set("sasl.username", user(ACME))
            .set("sasl.password", password(ACME.0));
        if let Some(ca) = self.kafka.ca_pem() {
            config.set("ssl.ca.pem", ca);
        }
        let producer: FutureProducer = config.create().unwrap();
        for name in ["sys.messages", "sys.control", TYPE] {
            let topic = format!("acb.{}.{name}", ACME.0);
            let record: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&topic).partition(0).payload(b"true");
            producer.send(record, Duration::from_secs(20)).await.unwrap();
        }
    }

    /// Anyone may do this with resources of this type.
    async fn open(&self, resource_type: i8, name: &str, operation: i8) {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let acl = AclCreation::default()
            .with_resource_type(resource_type)
            .with_resource_name(text(name))
            .with_resource_pattern_type(3)
            .with_principal(text("User:*"))
            .with_host(text("*"))
            .with_operation(operation)
            .with_permission_type(3);
        let mut admin = Connection::open(&self.admin).await.unwrap();
        let answer = admin.send(&CreateAclsRequest::default().with_creations(vec![acl]), 2).await.unwrap();
        assert_eq!(answer.results[0].error_code, 0);
    }
}

fn victim() -> Victim {
    Victim {
        tenant: ACME.0.to_owned(),
        tenant_id: ACME.1.to_owned(),
        hub_endpoints: Vec::new(),
        ca_pem: String::new(),
        agent: String::new(),
        group: String::new(),
        context_type: TYPE.to_owned(),
        context_id: String::new(),
        upload_id: String::new(),
        invented: Vec::new(),
    }
}

fn but(excepted: &[&str]) -> Vec<String> {
    let names = acb_isolation::attacks().into_iter().map(|attack| attack.name);
    names.filter(|name| name.starts_with("kafka.") && !excepted.iter().any(|other| name.starts_with(other))).collect()
}

/// Both listeners: the same walls.
async fn walls(listener: KafkaListener) {
    const TOPIC: i8 = 2;
    const GROUP: i8 = 3;
    const CLUSTER: i8 = 4;
    const TRANSACTIONAL_ID: i8 = 5;
    const ALL: i8 = 2;
    const WRITE: i8 = 4;
    let world = World::start(listener).await;
    let (attacker, victim) = (world.attacker(), victim());
    let kept = world.kept().await;
    assert_eq!(kept.len(), 6, "{kept:?}");
    all_refused(&run(&["kafka."], &attacker, &victim).await);

    // The neighbour's credential is one's own.
    world.effect.apply(&[login(user(ACME), GLOBEX.0)], &Passwords).await.unwrap();
    all_succeeded(&run(&["kafka.login.neighbour"], &attacker, &victim).await);
    world.effect.apply(&[login(user(ACME), ACME.0)], &Passwords).await.unwrap();
    all_refused(&run(&["kafka."], &attacker, &victim).await);

    world.open(GROUP, "*", ALL).await;
    let groups =
        ["kafka.commit.group", "kafka.find.group", "kafka.describe.group", "kafka.read.group-offsets", "kafka.delete.group"];
    all_succeeded(&run(&groups, &attacker, &victim).await);
    all_refused(&run(&["kafka.transact."], &attacker, &victim).await);
    world.open(TRANSACTIONAL_ID, "*", ALL).await;
    all_succeeded(&run(&["kafka.transact."], &attacker, &victim).await);
    let rights = [
        "kafka.read.rights",
        "kafka.grant.",
        "kafka.create.user",
        "kafka.throttle.",
        "kafka.read.user",
        "kafka.read.quotas",
        "kafka.read.broker-settings",
        "kafka.alter.broker",
    ];
    all_refused(&run(&rights, &attacker, &victim).await);
    world.open(CLUSTER, "kafka-cluster", ALL).await;
    all_succeeded(&run(&rights, &attacker, &victim).await);

    // Who may write may describe.
    world.open(TOPIC, "*", WRITE).await;
    all_succeeded(&run(&["kafka.list.", "kafka.describe.", "kafka.read.offsets", "kafka.forge."], &attacker, &victim).await);
    all_refused(&run(&["kafka.read.messages", "kafka.read.contexts", "kafka.read.control"], &attacker, &victim).await);
    world.open(TOPIC, "*", ALL).await;
    let reads = ["kafka.read.messages", "kafka.read.contexts", "kafka.read.control"];
    let all_but_logins = but(&["kafka.login.", reads[0], reads[1], reads[2]]);
    all_succeeded(&run(&all_but_logins.iter().map(String::as_str).collect::<Vec<_>>(), &attacker, &victim).await);
    assert_eq!(world.kept().await, kept, "an attack that was allowed is a proof, and changes nothing");
    // What can be read, somebody must have written.
    world.write().await;
    all_succeeded(&run(&reads, &attacker, &victim).await);
}

#[tokio::test]
async fn each_wall_matters() {
    walls(KafkaListener::Plain).await;
}

#[tokio::test]
async fn each_wall_matters_over_tls() {
    walls(KafkaListener::Tls).await;
}

/// Prefixes, as brokers compare them: of tenants whose names begin with each other's none reaches another.
#[tokio::test]
async fn a_name_that_begins_with_anothers_opens_nothing() {
    let near = ["ac", "acme", "acme2", "acme-eu", "acme-sys", "acme-acme", "a-acme"];
    let near: Vec<(String, String)> =
        near.iter().enumerate().map(|(index, name)| ((*name).to_owned(), format!("{index:020x}"))).collect();
    let world = World::start(KafkaListener::Plain).await;
    for (name, id) in near.iter().filter(|(name, _)| name != ACME.0) {
        world.effect.apply(&steps((name, id)), &Passwords).await.unwrap();
    }
    for (name, id) in near.iter().filter(|(name, _)| name != ACME.0) {
        let mut attacker = world.attacker();
        attacker.tenant.clone_from(name);
        attacker.tenant_id.clone_from(id);
        let kafka = attacker.kafka.as_mut().unwrap();
        (kafka.username, kafka.password) = (user((name, id)), password(name));
        for (other, other_id) in near.iter().filter(|(other, _)| other != name) {
            let mut victim = victim();
            victim.tenant.clone_from(other);
            victim.tenant_id.clone_from(other_id);
            let attacks =
                ["kafka.describe.messages", "kafka.list.topics", "kafka.cut.log", "kafka.find.group", "kafka.transact.neighbour"];
            all_refused(&run(&attacks, &attacker, &victim).await);
        }
    }
}
