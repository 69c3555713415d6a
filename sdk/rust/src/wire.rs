//! Between the wire's types and Rust's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The instant of a timestamp; `None` where it is unset or out of range.
#[must_use]
pub fn system_time(timestamp: Option<prost_types::Timestamp>) -> Option<SystemTime> {
    SystemTime::try_from(timestamp?).ok()
}

pub(crate) fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

/// Of an instant; before 1970 it is that.
pub(crate) fn timestamp(at: SystemTime) -> prost_types::Timestamp {
    prost_types::Timestamp::from(at.max(UNIX_EPOCH))
}

/// The timestamp this long from now.
pub(crate) fn from_now(duration: Duration) -> Option<prost_types::Timestamp> {
    let since = SystemTime::now().checked_add(duration)?.duration_since(UNIX_EPOCH).ok()?;
    Some(prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).ok()?,
        nanos: i32::try_from(since.subsec_nanos()).ok()?,
    })
}
