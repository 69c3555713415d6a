//! What a tenant may do on a real broker, and what it may not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod convergence;
mod expired;
mod failover;
mod fence;
#[path = "../golden/given.rs"]
#[allow(dead_code)]
mod given;
mod inventory;
mod proved;
mod restart;
mod snapshot;

use acb_kafka::{
    Connection, Error, ResponseError, Settings,
    kafka_protocol::{
        messages::{
            AlterClientQuotasRequest, AlterUserScramCredentialsRequest, CreateAclsRequest, CreateTopicsRequest,
            DeleteTopicsRequest, DescribeAclsRequest, FindCoordinatorRequest, InitProducerIdRequest, MetadataRequest, TopicName,
            TransactionalId,
            alter_client_quotas_request::{EntityData, EntryData, OpData},
            alter_user_scram_credentials_request::ScramCredentialDeletion,
            create_acls_request::AclCreation,
            create_topics_request::CreatableTopic,
            delete_topics_request::DeleteTopicState,
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

/// Each test has a broker; more than two at a time only wait for one another.
static BROKERS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

struct Passwords;

#[async_trait::async_trait]
impl SecretReader for Passwords {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        Ok(SecretData::new().with("password", password(&secret.namespace)))
    }
}

fn password(user: &str) -> String {
    format!("password of {user}")
}

fn tenant(name: &str) -> Vec<KafkaStep> {
    let topic = TopicSpec {
        name: format!("acb.{name}.sys.messages"),
        partitions: 2,
        retention_seconds: 3600,
        cleanup: "delete".into(),
        max_message_bytes: 1,
    };
    let secret = SecretRef { namespace: name.into(), name: "hub-kafka".into(), generation: 1 };
    vec![
        KafkaStep::EnsureTopic { topic },
        KafkaStep::EnsureUser { username: name.into(), secret },
        KafkaStep::EnsureAcls { username: name.into(), prefix: format!("acb.{name}.") },
    ]
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// The code of a topic in a metadata answer; 0 is: it may be described.
async fn describe(connection: &mut Connection, topic: &str) -> i16 {
    let named = MetadataRequestTopic::default().with_name(Some(TopicName(text(topic))));
    let request = MetadataRequest::default().with_topics(Some(vec![named])).with_allow_auto_topic_creation(false);
    connection.send(&request, 12).await.unwrap().topics[0].error_code
}

/// Both listeners: the same walls.
async fn walls(listener: KafkaListener) {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(listener).await;
    let login = |user: &str, password: &str| {
        let settings = Settings::new(&kafka.bootstrap_servers(), user, password);
        kafka.ca_pem().map_or(settings.clone(), |ca| settings.with_tls(ca.as_bytes()).unwrap())
    };
    let effect = KafkaEffect::new(login(Kafka::ADMIN, kafka.admin_password()), -1);
    let mut steps = Vec::new();
    // Kinds together, as the planner of many tenants would send them.
    let tenants = [tenant("acme"), tenant("acme2")];
    for kind in 0..3 {
        steps.extend(tenants.iter().map(|steps| steps[kind].clone()));
    }
    effect.apply(&steps, &Passwords).await.unwrap();
    effect.apply(&steps, &Passwords).await.unwrap();

    let mut acme = Connection::open(&login("acme", &password("acme"))).await.unwrap();
    assert_eq!(describe(&mut acme, "acb.acme.sys.messages").await, 0);
    let denied = ResponseError::TopicAuthorizationFailed.code();
    assert_eq!(describe(&mut acme, "acb.acme2.sys.messages").await, denied);
    assert_eq!(describe(&mut acme, "acb.nobody.sys.messages").await, denied, "nor whether there is one");
    let all = acme.send(&MetadataRequest::default().with_topics(None), 12).await.unwrap();
    let names: Vec<_> = all.topics.iter().map(|topic| topic.name.as_ref().unwrap().0.to_string()).collect();
    assert_eq!(names, ["acb.acme.sys.messages"]);

    let topic =
        CreatableTopic::default().with_name(TopicName(text("acb.acme.more"))).with_num_partitions(1).with_replication_factor(1);
    let made = acme.send(&CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(3000), 7).await.unwrap();
    assert_eq!(made.topics[0].error_code, denied);
    let own = DeleteTopicState::default().with_name(Some(TopicName(text("acb.acme.sys.messages"))));
    let deleted = acme.send(&DeleteTopicsRequest::default().with_topics(vec![own]).with_timeout_ms(3000), 6).await.unwrap();
    assert_eq!(deleted.responses[0].error_code, denied);
    let cluster_denied = ResponseError::ClusterAuthorizationFailed.code();
    let any = DescribeAclsRequest::default()
        .with_resource_type_filter(1)
        .with_pattern_type_filter(1)
        .with_operation(1)
        .with_permission_type(1);
    assert_eq!(acme.send(&any, 2).await.unwrap().error_code, cluster_denied);
    let grant = |principal: &str| {
        let acl = AclCreation::default().with_resource_type(2).with_resource_name(text("acb.")).with_resource_pattern_type(4);
        let acl = acl.with_principal(text(principal)).with_host(text("*")).with_operation(2).with_permission_type(3);
        CreateAclsRequest::default().with_creations(vec![acl])
    };
    assert_eq!(acme.send(&grant("User:acme"), 2).await.unwrap().results[0].error_code, cluster_denied);
    let other = ScramCredentialDeletion::default().with_name(text("acme2")).with_mechanism(2);
    let removed = acme.send(&AlterUserScramCredentialsRequest::default().with_deletions(vec![other]), 0).await.unwrap();
    assert_eq!(removed.results[0].error_code, cluster_denied);
    let more = EntryData::default()
        .with_entity(vec![EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text("acme")))])
        .with_ops(vec![OpData::default().with_key(text("producer_byte_rate")).with_value(1e12)]);
    let raised = acme.send(&AlterClientQuotasRequest::default().with_entries(vec![more]), 1).await.unwrap();
    assert_eq!(raised.entries[0].error_code, cluster_denied, "its own quota");
    let group = FindCoordinatorRequest::default().with_key(text("acb.acme2.hub")).with_key_type(0);
    assert_eq!(acme.send(&group, 2).await.unwrap().error_code, ResponseError::GroupAuthorizationFailed.code());
    let transaction = InitProducerIdRequest::default().with_transactional_id(Some(TransactionalId(text("acb.acme.t"))));
    let begun = acme.send(&transaction.with_transaction_timeout_ms(1000), 4).await.unwrap();
    assert_eq!(begun.error_code, ResponseError::TransactionalIdAuthorizationFailed.code());

    for (user, password) in [("acme", "wrong".to_owned()), ("acme2", password("acme")), ("nobody", password("acme"))] {
        assert!(matches!(Connection::open(&login(user, &password)).await, Err(Error::Login(..))), "{user}");
    }
    let mut stranger = Connection::open_anonymous(&login("acme", "")).await.unwrap();
    assert!(stranger.send(&MetadataRequest::default().with_topics(None), 12).await.is_err());

    // The wall comes down: the same request reaches the neighbour. So it was the wall that held.
    let mut admin = Connection::open(&login(Kafka::ADMIN, kafka.admin_password())).await.unwrap();
    assert_eq!(admin.send(&grant("User:*"), 2).await.unwrap().results[0].error_code, 0);
    assert_eq!(describe(&mut acme, "acb.acme2.sys.messages").await, 0);
}

#[tokio::test]
async fn the_walls_hold() {
    walls(KafkaListener::Plain).await;
}

#[tokio::test]
async fn the_walls_hold_over_tls() {
    walls(KafkaListener::Tls).await;
}

#[tokio::test]
async fn a_prefix_that_reaches_others_is_refused() {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(KafkaListener::Plain).await;
    let effect = KafkaEffect::new(Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password()), -1);
    for prefix in ["", "acb.", "acb.acme", "acb..", "acb.a.b."] {
        let step = KafkaStep::EnsureAcls { username: "acme".into(), prefix: prefix.into() };
        assert!(matches!(effect.apply(&[step], &Passwords).await, Err(EffectError::Refused { .. })), "{prefix:?}");
    }
}
