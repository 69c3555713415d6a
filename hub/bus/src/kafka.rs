//! The bus on Kafka: one producer, one consumer for all tails, and a few more while old records are read.
//!
//! There is no consumer group: every replica reads all. What librdkafka has no call for
//! (topic ids) is asked over a connection of its own.

mod append;
mod client;
mod consumers;
mod lookup;
mod metadata;
mod queue;
mod reports;
mod settings;
mod tail;
mod task;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use acb_hub_core::log::bus::{
    AppendError, Bounds, Bus, BusError, Logged, Offset, Partition, Pending, Record, Tail, TopicInfo, TopicName,
};
use async_trait::async_trait;
use time::OffsetDateTime;

use crate::size;
use append::{Queue, Writer};
use client::Clients;
use consumers::Consumers;
use lookup::Lookup;
use metadata::Metadata;
pub use settings::KafkaSettings;

/// The bus of one tenant.
pub struct KafkaBus {
    username: String,
    clients: Clients,
    metadata: Arc<Metadata>,
    lookup: Arc<Lookup>,
    writer: Arc<Writer>,
    consumers: Consumers,
    queues: Mutex<HashMap<TopicName, Queue>>,
}

impl KafkaBus {
    /// A bus over the tenant's login. It connects by itself, and again whenever it must.
    ///
    /// # Errors
    /// Where the settings are of no use, such as a CA certificate that is none.
    pub fn connect(settings: &KafkaSettings) -> Result<Self, BusError> {
        let clients = Clients::new(settings);
        let metadata = Arc::new(Metadata::new(settings)?);
        let writer = Arc::new(Writer::new(clients.clone())?);
        Ok(Self {
            username: settings.username.clone(),
            lookup: Arc::new(Lookup::new(clients.clone(), Arc::clone(&metadata), Arc::clone(&writer))),
            writer,
            consumers: Consumers::new(clients.clone()),
            clients,
            metadata,
            queues: Mutex::default(),
        })
    }

    /// Whether the brokers take this password of the tenant's user now.
    ///
    /// # Errors
    /// Where they do not say.
    pub async fn is_taken(&self, password: &str) -> Result<bool, BusError> {
        self.metadata.is_taken(&self.username, password).await
    }

    /// Logs in with this password from now on. What is connected stays connected.
    pub async fn log_in_with(&self, password: &str) {
        self.metadata.log_in_with(&self.username, password);
        self.clients.log_in_with(password);
        self.consumers.renew();
    }

    /// The queue of a topic that has this partition.
    async fn queue(&self, topic: &TopicName, partition: Partition) -> Result<Queue, AppendError> {
        let known = self.queues.lock().unwrap_or_else(PoisonError::into_inner).get(topic).cloned();
        if let Some(queue) = known.as_ref().filter(|queue| partition < queue.partitions) {
            return Ok(queue.clone());
        }
        let info = self.metadata.topic(topic).await.map_err(|error| AppendError::Refused(error.to_string()))?;
        if partition >= info.partitions {
            return Err(AppendError::Refused(format!("{topic} has no partition {partition}")));
        }
        if known.is_some() {
            self.writer.learn(topic).await?;
        }
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(topic.clone()).or_insert_with(|| Queue::new(info.partitions));
        queue.partitions = queue.partitions.max(info.partitions);
        Ok(queue.clone())
    }
}

#[async_trait]
impl Bus for KafkaBus {
    async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        self.metadata.topic(topic).await
    }

    async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError> {
        let bytes = size::check(topic, &record)?;
        let queue = self.queue(topic, partition).await?;
        let room = queue.room(bytes).await?;
        self.writer.send(topic, partition, &record, room)
    }

    async fn tail(&self, topic: &TopicName, from: &[Offset]) -> Result<Tail, BusError> {
        let info = self.metadata.topic(topic).await?;
        tail::follow(&self.consumers, Arc::clone(&self.metadata), Arc::clone(&self.lookup), topic.clone(), info, from).await
    }

    async fn read(&self, topic: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        self.lookup.read(topic, partition, offset, limit).await
    }

    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError> {
        self.bounds_each(topic).await?.into_iter().collect()
    }

    async fn bounds_each(&self, topic: &TopicName) -> Result<Vec<Result<Bounds, BusError>>, BusError> {
        self.lookup.bounds(topic).await
    }

    async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
        self.offsets_at_each(topic, time).await?.into_iter().collect()
    }

    async fn offsets_at_each(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Result<Offset, BusError>>, BusError> {
        self.lookup.offsets_at(topic, time).await
    }
}
