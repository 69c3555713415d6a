//! The hub with its log on Kafka.

use acb_hub_bus::{KafkaBus, KafkaSettings};
use acb_kafka::Settings;
use acb_operator::{
    effect::{EffectError, SecretData, SecretReader, kafka::KafkaEffect},
    plan::{KafkaStep, SecretRef, TopicSpec},
};
use acb_testbed::{Kafka, KafkaListener, Postgres};

use crate::{
    filters::is_followed,
    hub::{Hub, KAFKA_PASSWORD},
    messages::is_delivered,
    schedule::is_sent_later,
    trail::listed,
    usage::is_summed,
};

struct Password;

#[async_trait::async_trait]
impl SecretReader for Password {
    async fn read(&self, _: &SecretRef) -> Result<SecretData, EffectError> {
        Ok(SecretData::new().with("password", KAFKA_PASSWORD))
    }
}

#[tokio::test]
async fn a_message_is_delivered_over_kafka() {
    let kafka = Kafka::start(KafkaListener::Plain).await;
    let tenant = Postgres::shared().await.fresh_tenant("acme").await;
    let name = tenant.name();
    let topic = |(topic, partitions)| {
        let topic = TopicSpec {
            name: format!("acb.{name}.sys.{topic}"),
            partitions,
            retention_seconds: 3600,
            cleanup: "delete".into(),
            max_message_bytes: 2 << 20,
        };
        KafkaStep::EnsureTopic { topic }
    };
    let mut steps: Vec<_> = [("messages", 8), ("control", 1), ("audit", 1), ("dlq", 1), ("usage", 1)].map(topic).into();
    steps.push(KafkaStep::EnsureTopic { topic: tenant.context_type("notes", 2).await });
    let secret = SecretRef { namespace: name.into(), name: "hub-kafka".into(), generation: 1 };
    steps.push(KafkaStep::EnsureUser { username: name.into(), secret });
    steps.push(KafkaStep::EnsureAcls { username: name.into(), prefix: format!("acb.{name}.") });
    let admin = Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password());
    KafkaEffect::new(admin, 1).apply(&steps, &Password).await.unwrap();

    let bus = serde_json::json!({"kind": "kafka", "bootstrapServers": kafka.bootstrap_servers(), "tls": false});
    let hub = Hub::launch_on(tenant, None, bus);
    hub.until_ready().await;
    is_followed(&hub).await;
    let (_, root) = hub.agent("root", "admin").await;
    assert_eq!(listed(&hub, &root, "ExchangeToken", "root").await[0].outcome, "done");
    is_sent_later(&hub).await;
    // As the platform reads what it bills: with a user of its own.
    let platform = KafkaSettings {
        bootstrap_servers: kafka.bootstrap_servers(),
        tenant: hub.tenant.name().to_owned(),
        username: Kafka::ADMIN.to_owned(),
        password: kafka.admin_password().to_owned().into(),
        authorities: None,
    };
    is_summed(&hub, &KafkaBus::connect(&platform).unwrap()).await;
    is_delivered(hub).await;
}
