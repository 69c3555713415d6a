//! Appending: into librdkafka's queue, in the order of the calls; its delivery reports answer.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use acb_hub_core::log::bus::{AppendError, Appended, BusError, Partition, Pending, Record, TopicName};
use rdkafka::{
    ClientContext, Message, Timestamp, TopicPartitionList,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    client::{self, Clients},
    reports,
};
use crate::{MAX_RECORD_BYTES, record_bytes};

/// How long a broker may take to describe a topic.
const PATIENCE: Duration = Duration::from_secs(5);
/// What waits in a topic's queue at most.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;
/// What librdkafka keeps beside a record, amply: it bounds the count of small ones too.
const RECORD_COSTS: usize = 2048;

/// The queue of one topic: one that stands still takes no room from another.
#[derive(Clone)]
pub(super) struct Queue {
    pub(super) partitions: u32,
    room: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new(partitions: u32) -> Self {
        Self { partitions, room: Arc::new(Semaphore::new(QUEUE_BYTES)) }
    }

    /// Waits for room for one record.
    pub(super) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, AppendError> {
        let closed = || AppendError::Refused("the bus is closed".into());
        let permits = u32::try_from(bytes + RECORD_COSTS).map_err(|_| closed())?;
        Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| closed())
    }
}

/// A record on its way.
struct Delivery {
    topic: TopicName,
    size: usize,
    answer: oneshot::Sender<Result<Appended, AppendError>>,
    _room: OwnedSemaphorePermit,
}

struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "acb::kafka", %error, "{reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let answer = match result {
            Ok(message) => Ok(appended(message)),
            Err((error, message)) => Err(failure(error, may_be_logged(message), &delivery.topic, delivery.size)),
        };
        // Who asked may be gone.
        let _ = delivery.answer.send(answer);
    }
}

/// An acknowledgement of what was in the log already carries no offset.
fn appended(message: &BorrowedMessage<'_>) -> Appended {
    match (u64::try_from(message.offset()), message.timestamp()) {
        (Ok(offset), Timestamp::LogAppendTime(millis)) => Appended::At { offset, log_time: client::log_time(millis) },
        _ => Appended::Unknown,
    }
}

/// Whether a record that failed may be in the log all the same.
#[allow(unsafe_code)]
fn may_be_logged(message: &BorrowedMessage<'_>) -> bool {
    use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t};
    // SAFETY: the pointer is that of a delivery report, which lives as long as `message`.
    let status = unsafe { rd_kafka_message_status(message.ptr()) };
    status != rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED
}

fn failure(error: &KafkaError, may_be_logged: bool, topic: &TopicName, size: usize) -> AppendError {
    match error.rdkafka_error_code() {
        _ if may_be_logged => AppendError::Unknown(format!("Kafka did not acknowledge an append to {topic}: {error}")),
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
            AppendError::TooLarge { size, limit: MAX_RECORD_BYTES, topic: topic.clone() }
        }
        _ => AppendError::Refused(format!("Kafka did not take an append to {topic}: {error}")),
    }
}

type Live = reports::Live<Deliveries>;

/// The bus's one producer.
pub(super) struct Writer {
    clients: Clients,
    /// With the number of the password that it has.
    producer: Mutex<(Arc<Live>, u64)>,
}

impl Writer {
    pub(super) fn new(clients: Clients) -> Result<Self, BusError> {
        let serial = clients.serial();
        let producer = Mutex::new((start(&clients)?, serial));
        Ok(Self { clients, producer })
    }

    /// Puts a record into the queue. Never waits.
    pub(super) fn send(
        &self,
        topic: &TopicName,
        partition: Partition,
        record: &Record,
        room: OwnedSemaphorePermit,
    ) -> Result<Pending, AppendError> {
        let live = self.live().map_err(|error| AppendError::Refused(error.to_string()))?;
        let Some(producer) = live.get() else { return Err(AppendError::Refused("the bus is closed".into())) };
        let size = record_bytes(record);
        let (answer, answered) = oneshot::channel();
        let delivery = Box::new(Delivery { topic: topic.clone(), size, answer, _room: room });
        let mut message =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(topic.as_str(), delivery).partition(partition.cast_signed());
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            let insert = |headers: OwnedHeaders, (key, value): &(String, bytes::Bytes)| {
                headers.insert(Header { key, value: Some(value.as_ref()) })
            };
            message.headers = Some(record.headers.iter().fold(headers, insert));
        }
        producer.send(message).map_err(|(error, _)| failure(&error, false, topic, size))?;
        Ok(Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(AppendError::Unknown("the bus was closed before it answered".into())))
        }))
    }

    /// Has the producer learn at once that a topic has more partitions.
    pub(super) async fn learn(&self, topic: &TopicName) -> Result<(), AppendError> {
        let live = self.live().map_err(|error| AppendError::Refused(error.to_string()))?;
        let name = topic.clone();
        let learn = move || live.get().map(|producer| producer.client().fetch_metadata(Some(name.as_str()), PATIENCE).map(drop));
        match tokio::task::spawn_blocking(learn).await {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(error))) => Err(AppendError::Refused(format!("Kafka does not describe {topic}: {error}"))),
            _ => Err(AppendError::Refused("the bus is closed".into())),
        }
    }

    /// For each partition of the list, at a time or at an end, the offset that is there. Waits for the brokers' answers, on the producer's
    /// connections: those of a consumer wait for records.
    pub(super) fn offsets_for_times(
        &self,
        list: TopicPartitionList,
        patience: Duration,
    ) -> Result<TopicPartitionList, KafkaError> {
        let live = self.live().map_err(|_| KafkaError::Canceled)?;
        let producer = live.get().ok_or(KafkaError::Canceled)?;
        client::offsets_for_times(producer.client(), &list, patience)?;
        Ok(list)
    }

    /// The producer, or a new one after an error that it can't go on from.
    fn live(&self) -> Result<Arc<Live>, BusError> {
        let mut held = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let (producer, serial) = &mut *held;
        if let Some((code, reason)) = producer.get().and_then(|producer| producer.client().fatal_error()) {
            tracing::warn!(target: "acb::kafka", %code, reason, "the producer can't go on: a new one takes its place");
            (*serial, *producer) = (self.clients.serial(), start(&self.clients)?);
        }
        if let Some(producer) = producer.get() {
            self.clients.renew(producer.client(), serial)?;
        }
        Ok(Arc::clone(producer))
    }
}

fn start(clients: &Clients) -> Result<Arc<Live>, BusError> {
    let producer: Result<BaseProducer<_>, _> = clients.producer().create_with_context(Deliveries);
    producer.and_then(Live::start).map_err(|error| clients.unavailable("start a producer", &error))
}
