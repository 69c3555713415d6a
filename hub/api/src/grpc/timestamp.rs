//! Times on the wire.

use prost_types::Timestamp;
use time::OffsetDateTime;

/// Protobuf's form of a time.
pub(crate) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or_default() }
}
