//! How large a record may be, on either bus.

use acb_hub_core::log::bus::{AppendError, Record, TopicName};

/// The most that key, headers and value of a record may have together. Topics and Kafka clients take 2 MiB; the rest is room for
/// what Kafka's batch adds, so that a record near the limit never fails the others of its batch.
pub const MAX_RECORD_BYTES: usize = 2 * 1024 * 1024 - 8 * 1024;

/// What a record counts for against the limit and in queues.
#[must_use]
pub fn record_bytes(record: &Record) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |value| value.len()) + headers
}

/// Refuses a record that is too large before it meets others.
pub(crate) fn check(topic: &TopicName, record: &Record) -> Result<usize, AppendError> {
    let size = record_bytes(record);
    if size > MAX_RECORD_BYTES {
        return Err(AppendError::TooLarge { size, limit: MAX_RECORD_BYTES, topic: topic.clone() });
    }
    Ok(size)
}
