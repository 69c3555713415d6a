//! What a topic is: how many partitions it has, and which life of it this is.

use acb_hub_core::log::bus::{BusError, TopicInfo, TopicName};
use acb_kafka::{
    Connection, Error, ResponseError, Settings,
    kafka_protocol::{
        messages::{MetadataRequest, MetadataResponse, TopicName as KafkaTopic, metadata_request::MetadataRequestTopic},
        protocol::StrBytes,
    },
};
use tokio::sync::Mutex;

use super::KafkaSettings;

/// The first version whose answer has topic ids that can be relied on.
const VERSION: i16 = 12;

pub(super) struct Metadata {
    settings: Mutex<Settings>,
    /// Kept between two questions; brokers close it when it is idle for long.
    connection: Mutex<Option<Connection>>,
}

impl Metadata {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, BusError> {
        let login = Settings::new(&settings.bootstrap_servers, &settings.username, &settings.password);
        let login = match &settings.authorities {
            Some(authorities) => login.with_tls(authorities.as_bytes()).map_err(|error| unavailable(&error))?,
            None => login,
        };
        Ok(Self { settings: Mutex::new(login), connection: Mutex::default() })
    }

    pub(super) async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        let name = KafkaTopic(StrBytes::from_string(topic.as_str().to_owned()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name))]))
            .with_allow_auto_topic_creation(false);
        let answer = self.ask(&request).await?;
        let Some(found) = answer.topics.first() else { return Err(BusError::NoSuchTopic(topic.clone())) };
        match ResponseError::try_from_code(found.error_code) {
            None => {}
            Some(
                ResponseError::UnknownTopicOrPartition
                | ResponseError::TopicAuthorizationFailed
                | ResponseError::InvalidTopicException,
            ) => return Err(BusError::NoSuchTopic(topic.clone())),
            Some(error) => return Err(BusError::Unavailable(format!("Kafka does not describe {topic}: {error}"))),
        }
        // Random, so that its beginning tells one life of a topic from another.
        let (epoch, _) = found.topic_id.as_u64_pair();
        let partitions = u32::try_from(found.partitions.len()).unwrap_or(u32::MAX);
        Ok(TopicInfo { epoch, partitions })
    }

    /// Whether the brokers take this password of a user now.
    pub(super) async fn is_taken(&self, username: &str, password: &str) -> Result<bool, BusError> {
        let settings = self.settings.lock().await.clone().with_login(username, password);
        match Connection::open(&settings).await {
            Ok(_) => Ok(true),
            Err(Error::Login(..)) => Ok(false),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Connections that are made from now on log in with this password.
    pub(super) async fn log_in_with(&self, username: &str, password: &str) {
        let mut settings = self.settings.lock().await;
        *settings = settings.clone().with_login(username, password);
    }

    async fn ask(&self, request: &MetadataRequest) -> Result<MetadataResponse, BusError> {
        let mut kept = self.connection.lock().await;
        // Taken out: if this is cancelled half-way, the answer must not be taken for another question's.
        if let Some(mut connection) = kept.take()
            && let Ok(answer) = connection.send(request, VERSION).await
        {
            *kept = Some(connection);
            return Ok(answer);
        }
        let settings = self.settings.lock().await.clone();
        let mut connection = Connection::open(&settings).await.map_err(|error| unavailable(&error))?;
        let answer = connection.send(request, VERSION).await.map_err(|error| unavailable(&error))?;
        *kept = Some(connection);
        Ok(answer)
    }
}

fn unavailable(error: &Error) -> BusError {
    BusError::Unavailable(error.to_string())
}
