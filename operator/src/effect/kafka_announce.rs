//! Tells hubs of a new generation through `acb.<tenant>.sys.control` on Kafka, with the operator's own login.

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{FutureProducer, FutureRecord},
};
use tracing::debug;

use super::postgres::{GENERATION_KEY, GenerationAnnouncer};

/// What is not delivered by then is of no use: hubs have polled.
const DELIVERED_WITHIN_MS: &str = "5000";
/// Waiting announcements, at most. The next ones are dropped.
const WAITING: &str = "1000";

/// The operator's own producer.
#[derive(Clone)]
pub struct KafkaAnnouncer {
    producer: FutureProducer,
}

impl std::fmt::Debug for KafkaAnnouncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaAnnouncer").finish_non_exhaustive()
    }
}

impl KafkaAnnouncer {
    /// `authorities` (PEM) where the brokers speak TLS. Connects by itself, whenever the brokers are there.
    ///
    /// # Errors
    /// Where the client library can't use the settings.
    pub fn new(bootstrap_servers: &str, username: &str, password: &str, authorities: Option<&str>) -> Result<Self, KafkaError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap_servers)
            .set("client.id", "acb-operator")
            .set("sasl.mechanism", "SCRAM-SHA-512")
            .set("sasl.username", username)
            .set("sasl.password", password)
            .set("security.protocol", if authorities.is_some() { "SASL_SSL" } else { "SASL_PLAINTEXT" })
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", DELIVERED_WITHIN_MS)
            .set("queue.buffering.max.messages", WAITING);
        if let Some(authorities) = authorities {
            config.set("ssl.ca.pem", authorities);
        }
        Ok(Self { producer: config.create()? })
    }
}

#[async_trait]
impl GenerationAnnouncer for KafkaAnnouncer {
    /// Queues it, and does not wait: a new tenant's topic is made after its first generation.
    async fn announce(&self, tenant: &str, generation: u64) {
        let (topic, value) = (format!("acb.{tenant}.sys.control"), generation.to_string());
        let record = FutureRecord::to(&topic).partition(0).key(GENERATION_KEY).payload(value.as_bytes());
        let delivery = match self.producer.send_result(record) {
            Ok(delivery) => delivery,
            Err((error, _)) => return debug!(tenant, generation, %error, "not announced; hubs poll"),
        };
        let tenant = tenant.to_owned();
        tokio::spawn(async move {
            // Ends at the latest when the message times out, or with the producer.
            if let Ok(Err((error, _))) = delivery.await {
                debug!(tenant, generation, %error, "not announced; hubs poll");
            }
        });
    }
}
