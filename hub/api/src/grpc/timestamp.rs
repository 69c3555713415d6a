//! Times on the wire.

use prost_types::Timestamp;
use time::OffsetDateTime;

/// Protobuf's form of a time.
pub(crate) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or_default() }
}

/// The time of Protobuf's form. `None` beyond what a date can say.
pub(crate) fn time(at: Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}
