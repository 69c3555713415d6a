//! Times, as exactly as every store and the log keep them: in microseconds.

use std::time::Duration;

use time::OffsetDateTime;

const MINUTE: i64 = 60;

/// The time, as exactly as every store keeps it.
#[must_use]
pub fn now() -> OffsetDateTime {
    truncated(OffsetDateTime::now_utc())
}

/// A time without what is finer than a microsecond, so that it is the same before and after it was stored.
#[must_use]
pub fn truncated(time: OffsetDateTime) -> OffsetDateTime {
    time.replace_microsecond(time.microsecond()).unwrap_or(time)
}

/// Microseconds since 1970.
#[must_use]
pub fn to_micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1000)).unwrap_or(i64::MAX)
}

/// The time that is this many microseconds after 1970. `None` beyond what a date can say.
#[must_use]
pub fn from_micros(micros: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
}

/// Which minute it is, counted from 1970.
#[must_use]
pub fn minute_of(time: OffsetDateTime) -> i64 {
    time.unix_timestamp().div_euclid(MINUTE)
}

/// How long until the next minute begins, exactly: whole seconds would have it begin up to one too late.
#[must_use]
pub fn rest_of_minute(time: OffsetDateTime) -> Duration {
    let passed = time.unix_timestamp_nanos().rem_euclid(i128::from(MINUTE) * 1_000_000_000);
    Duration::from_secs(MINUTE.unsigned_abs()).saturating_sub(Duration::from_nanos(u64::try_from(passed).unwrap_or(0)))
}

/// To the second, as people read it.
#[must_use]
pub fn rfc3339(time: OffsetDateTime) -> String {
    let time = time.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).unwrap_or(time);
    time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_the_same_after_it_was_stored() {
        let time = OffsetDateTime::UNIX_EPOCH + time::Duration::nanoseconds(1_234_567_891);
        assert_eq!(from_micros(to_micros(time)), Some(truncated(time)));
        let before = OffsetDateTime::UNIX_EPOCH - time::Duration::nanoseconds(1500);
        assert_eq!(from_micros(to_micros(before)), Some(truncated(before)), "also before 1970");
        assert_eq!(from_micros(i64::MAX), None);
    }

    #[test]
    fn a_minute_ends_when_the_next_one_begins() {
        for nanoseconds in [0, 1, 29_999_999_999, 59_999_999_999, -1, -500_000_000] {
            let time = OffsetDateTime::UNIX_EPOCH + time::Duration::nanoseconds(nanoseconds);
            let next = time + rest_of_minute(time);
            assert_eq!((next.second(), next.nanosecond(), minute_of(next)), (0, 0, minute_of(time) + 1), "{nanoseconds}");
        }
    }
}
