//! The configuration of the topics that ACB owns.

use crate::plan::TopicSpec;

pub(super) const RESOURCE_TOPIC: i8 = 2;
/// Topics and clients agree on this: with a lower limit at the topic, a record that is too large would fail the others of its batch.
const MAX_MESSAGE_BYTES: u32 = 2 * 1024 * 1024;

/// The configuration of a topic that ACB owns.
pub(super) fn configs(topic: &TopicSpec) -> [(&'static str, String); 4] {
    [
        ("retention.ms", topic.retention_seconds.saturating_mul(1000).to_string()),
        ("cleanup.policy", topic.cleanup.clone()),
        ("max.message.bytes", topic.max_message_bytes.max(MAX_MESSAGE_BYTES).to_string()),
        ("message.timestamp.type", "LogAppendTime".to_owned()),
    ]
}
