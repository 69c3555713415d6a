//! What a topic is: how many partitions it has, who leads each, and which life of it this is.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use acb_hub_core::log::bus::{BusError, Partition, TopicInfo, TopicName};
use acb_kafka::{
    Connection, Error, ResponseError, Settings,
    kafka_protocol::{
        messages::{MetadataRequest, MetadataResponse, TopicName as KafkaTopic, metadata_request::MetadataRequestTopic},
        protocol::StrBytes,
    },
};
use tokio::sync::Mutex;

use super::{KafkaSettings, task::apart};

/// The first version whose answer has topic ids that can be relied on.
const VERSION: i16 = 12;
/// How long a shape is believed without asking again.
const BELIEVED: Duration = Duration::from_secs(10);
/// The same where a partition has no leader: it gets one soon, and whoever waits for it asks often.
const DOUBTED: Duration = Duration::from_millis(500);

/// A broker's number.
pub(super) type Broker = i32;

/// A topic as the brokers describe it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) info: TopicInfo,
    /// Who leads each partition; `None` where nobody does.
    pub(super) leaders: Vec<Option<Broker>>,
}

/// Asks one question after another.
struct Line {
    settings: std::sync::Mutex<Settings>,
    /// Kept between two questions; brokers close it when it is idle for long.
    connection: Mutex<Option<Connection>>,
}

pub(super) struct Metadata {
    line: Arc<Line>,
    /// What was told lately, and when. Only of topics that there are.
    shapes: std::sync::Mutex<HashMap<TopicName, (Shape, Instant)>>,
}

impl Metadata {
    pub(super) fn new(settings: &KafkaSettings) -> Result<Self, BusError> {
        let login = Settings::new(&settings.bootstrap_servers, &settings.username, &settings.password);
        let login = match &settings.authorities {
            Some(authorities) => login.with_tls(authorities.as_bytes()).map_err(|error| unavailable(&error))?,
            None => login,
        };
        let line = Line { settings: std::sync::Mutex::new(login), connection: Mutex::default() };
        Ok(Self { line: Arc::new(line), shapes: std::sync::Mutex::default() })
    }

    /// The topic as it is now.
    pub(super) async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        Ok(self.describe(topic).await?.info)
    }

    /// The topic as it was a moment ago. Whoever fails by it calls [`forget`](Self::forget).
    pub(super) async fn shape(&self, topic: &TopicName) -> Result<Shape, BusError> {
        match self.believed(topic) {
            Some(shape) => Ok(shape),
            None => self.describe(topic).await,
        }
    }

    /// As [`shape`](Self::shape), where the topic has this partition; a partition that was added a moment ago is there, too.
    pub(super) async fn shape_with(&self, topic: &TopicName, partition: Partition) -> Result<Shape, BusError> {
        match self.believed(topic).filter(|shape| partition < shape.info.partitions) {
            Some(shape) => Ok(shape),
            None => self.describe(topic).await,
        }
    }

    /// What was told of a topic is believed no longer.
    pub(super) fn forget(&self, topic: &TopicName) {
        self.shapes.lock().unwrap_or_else(PoisonError::into_inner).remove(topic);
    }

    fn believed(&self, topic: &TopicName) -> Option<Shape> {
        let shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        let (shape, told) = shapes.get(topic)?;
        let long = if shape.leaders.iter().all(Option::is_some) { BELIEVED } else { DOUBTED };
        (told.elapsed() < long).then(|| shape.clone())
    }

    async fn describe(&self, topic: &TopicName) -> Result<Shape, BusError> {
        // Before the answer: what changes meanwhile is not in it.
        let asked = Instant::now();
        let answer = self.describe_anew(topic).await;
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        match &answer {
            Ok(shape) => {
                shapes.retain(|_, (_, told)| told.elapsed() < BELIEVED);
                shapes.insert(topic.clone(), (shape.clone(), asked));
            }
            Err(_) => {
                shapes.remove(topic);
            }
        }
        answer
    }

    async fn describe_anew(&self, topic: &TopicName) -> Result<Shape, BusError> {
        let name = KafkaTopic(StrBytes::from_string(topic.as_str().to_owned()));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name))]))
            .with_allow_auto_topic_creation(false);
        let line = Arc::clone(&self.line);
        let answer = apart(async move { line.ask(&request).await }).await;
        let answer = answer.unwrap_or_else(|| Err(BusError::Unavailable("the question for a topic broke off".to_owned())))?;
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
        let mut leaders = vec![None; found.partitions.len()];
        for partition in &found.partitions {
            if let Some(leader) = leaders.get_mut(partition.partition_index.cast_unsigned() as usize) {
                *leader = Some(partition.leader_id.0).filter(|leader| *leader >= 0);
            }
        }
        Ok(Shape { info: TopicInfo { epoch, partitions }, leaders })
    }

    /// Whether the brokers take this password of a user now.
    pub(super) async fn is_taken(&self, username: &str, password: &str) -> Result<bool, BusError> {
        let settings = self.line.settings().with_login(username, password);
        match Connection::open(&settings).await {
            Ok(_) => Ok(true),
            Err(Error::Login(..)) => Ok(false),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Connections that are made from now on log in with this password.
    pub(super) fn log_in_with(&self, username: &str, password: &str) {
        let mut settings = self.line.settings.lock().unwrap_or_else(PoisonError::into_inner);
        *settings = settings.clone().with_login(username, password);
    }
}

impl Line {
    fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let mut connection = Connection::open(&self.settings()).await.map_err(|error| unavailable(&error))?;
        let answer = connection.send(request, VERSION).await.map_err(|error| unavailable(&error))?;
        *kept = Some(connection);
        Ok(answer)
    }
}

fn unavailable(error: &Error) -> BusError {
    BusError::Unavailable(error.to_string())
}
