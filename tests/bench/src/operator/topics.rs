//! What Kafka itself takes to make topics, as the operator configures them.

use std::time::Instant;

use acb_kafka::{
    Connection, Settings,
    kafka_protocol::{
        messages::{
            CreateTopicsRequest, MetadataRequest, TopicName,
            create_topics_request::{CreatableTopic, CreatableTopicConfig},
        },
        protocol::StrBytes,
    },
};
use acb_testbed::Kafka;
use tokio::time::{Duration, sleep};

use crate::Failure;

/// In one request, as many as one of the tenants has.
const AT_ONCE: usize = 100;
const CONFIGS: [(&str, &str); 4] = [
    ("retention.ms", "604800000"),
    ("cleanup.policy", "delete"),
    ("max.message.bytes", "2097152"),
    ("message.timestamp.type", "LogAppendTime"),
];
const PREFIX: &str = "bare-";
const LATEST: Duration = Duration::from_secs(120);

fn topic(n: usize) -> CreatableTopic {
    let config = |(name, value): (&'static str, &'static str)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    };
    CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_string(format!("{PREFIX}{n}"))))
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(CONFIGS.map(config).into())
}

/// Makes so many, one request after the other. Answers with how many a second, until the last one is listed.
pub(super) async fn bare(kafka: &Kafka, count: usize) -> Result<f64, Failure> {
    let settings = Settings::new(&kafka.bootstrap_servers(), Kafka::ADMIN, kafka.admin_password());
    let mut connection = Connection::open(&settings).await?;
    let begun = Instant::now();
    let all: Vec<usize> = (0..count).collect();
    for part in all.chunks(AT_ONCE) {
        let topics = part.iter().map(|n| topic(*n)).collect();
        let answer = connection.send(&CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(30_000), 7).await?;
        if let Some(refused) = answer.topics.iter().find(|topic| topic.error_code != 0) {
            return Err(Failure(format!("a topic was not made: {}", refused.error_code)));
        }
    }
    loop {
        let listed = connection.send(&MetadataRequest::default().with_topics(None), 12).await?;
        let names = listed.topics.iter().filter_map(|topic| topic.name.as_ref());
        if names.filter(|name| name.0.starts_with(PREFIX)).count() == count {
            return Ok(count as f64 / begun.elapsed().as_secs_f64());
        }
        if begun.elapsed() > LATEST {
            return Err(Failure("not all topics are listed".to_owned()));
        }
        sleep(Duration::from_millis(20)).await;
    }
}
