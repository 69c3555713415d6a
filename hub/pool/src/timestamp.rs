//! Times as PostgreSQL has them: `infinity`, and years that the clock's type has no room for, are times there.

use sqlx::{
    Decode, Postgres, Type,
    error::BoxDynError,
    postgres::{PgTypeInfo, PgValueRef},
};
use time::{Duration, OffsetDateTime, macros::datetime};

/// Where PostgreSQL counts microseconds from.
const EPOCH: OffsetDateTime = datetime!(2000-01-01 0:00 UTC);
/// What `-infinity` and everything before it is read as.
const EARLIEST: OffsetDateTime = datetime!(0001-01-01 0:00 UTC);
/// What `infinity` and everything after it is read as: never, and still with room to add to it.
const LATEST: OffsetDateTime = datetime!(9000-01-01 0:00 UTC);

/// A `timestamptz`. sqlx's own decoding panics where the value has no place in the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    fn from_micros(micros: i64) -> Self {
        let bound = if micros < 0 { EARLIEST } else { LATEST };
        Self(EPOCH.checked_add(Duration::microseconds(micros)).map_or(bound, |time| time.clamp(EARLIEST, LATEST)))
    }
}

impl Timestamp {
    /// This time of the server, by the clock of this machine: `there` and `here` are the same moment. Of two clocks that are off by minutes, what is
    /// fresh for one is old for the other.
    #[must_use]
    pub fn by_clock_of(self, there: Self, here: OffsetDateTime) -> OffsetDateTime {
        here.saturating_add(self.0 - there.0)
    }

    /// By how much the server's clock is ahead of this machine's at least, where it showed this time between these two of this machine. A clock that may
    /// agree does.
    #[must_use]
    pub fn ahead_of(self, asked_at: OffsetDateTime, answered_at: OffsetDateTime) -> Duration {
        let (least, most) = (self.0 - answered_at, self.0 - asked_at);
        // This machine's clock was set back in between: nothing follows.
        if least > most { Duration::ZERO } else { Duration::ZERO.clamp(least, most) }
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(timestamp: Timestamp) -> Self {
        timestamp.0
    }
}

impl Type<Postgres> for Timestamp {
    fn type_info() -> PgTypeInfo {
        <OffsetDateTime as Type<Postgres>>::type_info()
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let bytes: [u8; 8] = value.as_bytes()?.try_into()?;
        Ok(Self::from_micros(i64::from_be_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_may_agree_does() {
        let at = |seconds| Timestamp(EPOCH + Duration::seconds(seconds));
        let ahead = |there, asked, answered| at(there).ahead_of(at(asked).0, at(answered).0);
        assert_eq!((ahead(5, 4, 6), ahead(5, 5, 5)), (Duration::ZERO, Duration::ZERO));
        assert_eq!((ahead(305, 4, 6), ahead(-295, 4, 6)), (Duration::seconds(299), Duration::seconds(-299)));
        assert_eq!(ahead(305, 6, 4), Duration::ZERO);
    }

    #[test]
    fn every_value_is_a_time_that_can_be_added_to() {
        for micros in [i64::MIN, i64::MIN + 1, -i64::MAX / 2, i64::MAX / 2, i64::MAX - 1, i64::MAX] {
            let time = OffsetDateTime::from(Timestamp::from_micros(micros));
            assert_eq!(time, if micros < 0 { EARLIEST } else { LATEST }, "{micros}");
        }
        assert_eq!(OffsetDateTime::from(Timestamp::from_micros(0)), EPOCH);
        assert_eq!(OffsetDateTime::from(Timestamp::from_micros(-1)), EPOCH - Duration::MICROSECOND);
        assert!(
            LATEST.checked_add(Duration::days(365 * 900)).is_some() && EARLIEST.checked_sub(Duration::days(365 * 900)).is_some()
        );
    }
}
