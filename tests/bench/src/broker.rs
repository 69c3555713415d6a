//! Kafka without anything in front of it: clients with the settings of a hub's, a topic, and a produce-to-consume loop.

use std::time::{Duration, Instant};

use acb_testbed::kafka::Kafka;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{Consumer as _, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
    types::RDKafkaErrorCode,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{Failure, samples::Samples};

/// As many as the hub's topic of messages has.
const PARTITIONS: i32 = 8;
const PAYLOAD: usize = 1024;
const WARM_UP: u32 = 500;
const PATIENCE: Duration = Duration::from_secs(30);

/// How to reach the broker. Crosses to the bare server on its standard input, where no one else reads it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Broker {
    bootstrap_servers: String,
    username: String,
    password: String,
    authorities: Option<String>,
}

impl Broker {
    pub(crate) fn of(kafka: &Kafka) -> Self {
        Self {
            bootstrap_servers: kafka.bootstrap_servers(),
            username: Kafka::ADMIN.to_owned(),
            password: kafka.admin_password().to_owned(),
            authorities: kafka.ca_pem().map(str::to_owned),
        }
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("sasl.mechanism", "SCRAM-SHA-512")
            .set("sasl.username", &self.username)
            .set("sasl.password", &self.password)
            .set("security.protocol", if self.authorities.is_some() { "sasl_ssl" } else { "sasl_plaintext" })
            .set("socket.nagle.disable", "true");
        if let Some(authorities) = &self.authorities {
            config.set("ssl.ca.pem", authorities);
        }
        config
    }

    /// Durable, in order, at once.
    pub(crate) fn producer(&self) -> Result<FutureProducer, Failure> {
        let mut config = self.config();
        config.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "0");
        Ok(config.create()?)
    }

    fn consumer(&self) -> Result<StreamConsumer, Failure> {
        let mut config = self.config();
        config.set("group.id", "bench").set("enable.auto.commit", "false").set("fetch.wait.max.ms", "500");
        Ok(config.create()?)
    }

    /// A topic with the settings of the hub's.
    pub(crate) async fn topic(&self, name: &str) -> Result<(), Failure> {
        let admin: AdminClient<DefaultClientContext> = self.config().create()?;
        let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1))
            .set("message.timestamp.type", "LogAppendTime")
            .set("max.message.bytes", "2097152");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        for result in admin.create_topics([&topic], &options).await? {
            match result {
                // An earlier part of the same run made it.
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(Failure(format!("topic {topic}: {code}"))),
            }
        }
        Ok(())
    }

    /// One record after another, each from the send until the consumer has it.
    pub(crate) async fn run(&self, topic: &str, samples: u32) -> Result<Samples, Failure> {
        let (producer, consumer) = (self.producer()?, self.consumer()?);
        // From the acknowledged offset of a first record on: an assignment at the end is looked up only with the first fetch.
        let first = append(&producer, topic, &[0; PAYLOAD]).await?;
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(topic, 0, Offset::Offset(first))?;
        consumer.assign(&places)?;
        timeout(PATIENCE, consumer.recv()).await.map_err(|_| Failure("the broker hands nothing out".to_owned()))??;
        let warm_up = WARM_UP.min(samples);
        let mut taken = Samples::with_capacity(samples);
        for sample in 0..warm_up + samples {
            let start = Instant::now();
            let (appended, received) = tokio::join!(append(&producer, topic, &[0x5A; PAYLOAD]), async {
                let received = timeout(PATIENCE, consumer.recv()).await;
                (received.map(|record| record.map(drop)), start.elapsed())
            });
            appended?;
            let (received, elapsed) = received;
            received.map_err(|_| Failure(format!("record {sample} did not arrive")))??;
            if sample >= warm_up {
                taken.take(elapsed);
            }
        }
        Ok(taken)
    }
}

/// Appends to the first partition, and waits for the acknowledgement.
pub(crate) async fn append(producer: &FutureProducer, topic: &str, value: &[u8]) -> Result<i64, Failure> {
    let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(topic).partition(0).payload(value);
    let queued = producer.send_result(record).map_err(|(error, _)| error)?;
    let delivery = queued.await?.map_err(|(error, _)| error)?;
    Ok(delivery.offset)
}
