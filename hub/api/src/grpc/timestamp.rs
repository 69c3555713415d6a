//! Times on the wire.

use std::time::Duration;

use prost_types::Timestamp;
use time::OffsetDateTime;

/// Protobuf's form of a time.
pub(crate) fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or_default() }
}

/// The length of Protobuf's form. `None` of one that is negative, or that Protobuf does not allow. Not by the library's own conversion: that
/// panics at the least number of seconds.
pub(crate) fn length(given: prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(given.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(given.seconds).ok()?, nanos))
}

/// The time of Protobuf's form. `None` beyond what a date can say.
pub(crate) fn time(at: Timestamp) -> Option<OffsetDateTime> {
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    OffsetDateTime::from_unix_timestamp(at.seconds).ok()?.replace_nanosecond(nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_any_numbers_is_one_or_none() {
        let of = |seconds, nanos| length(prost_types::Duration { seconds, nanos });
        assert_eq!(of(2, 500_000_000), Some(Duration::from_millis(2500)));
        assert_eq!(of(0, 0), Some(Duration::ZERO));
        assert_eq!(of(i64::MAX, 999_999_999), Some(Duration::new(9_223_372_036_854_775_807, 999_999_999)));
        for (seconds, nanos) in
            [(i64::MIN, 0), (i64::MIN, i32::MIN), (-1, 0), (0, -1), (1, -1), (-1, 1), (0, i32::MAX), (i64::MIN, 1)]
        {
            assert_eq!(of(seconds, nanos), None, "{seconds} {nanos}");
        }
    }
}
