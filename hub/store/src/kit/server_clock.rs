//! What expires is kept by the clock of the server, which all hubs have in common; a hub says times by its own. So a hub whose clock is off ends nothing
//! before its time that another one keeps.

use acb_hub_pool::Timestamp;
use time::{Duration, OffsetDateTime};

/// A time of this machine's clock, by the server's; `$here` is what this machine's clock shows now. Two clocks that agree to a second are taken for one, here
/// and where it is read again: so a time is the same after it was stored.
macro_rules! by_server_clock {
    ($at:literal, $here:literal) => {
        concat!(
            $at,
            " + CASE WHEN abs(extract(epoch FROM clock_timestamp() - ",
            $here,
            ")) < 1 THEN interval '0' ELSE clock_timestamp() - ",
            $here,
            " END"
        )
    };
}

pub(crate) use by_server_clock;

/// The server's clock, as an answer shows it that was asked for at one time of this machine and came at another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerClock {
    ahead: Duration,
}

impl ServerClock {
    /// `shown`: its time in an answer to what was asked at `asked_at`.
    pub(crate) fn of(shown: Timestamp, asked_at: OffsetDateTime) -> Self {
        Self::ahead_by(shown.ahead_of(asked_at, OffsetDateTime::now_utc()))
    }

    fn ahead_by(ahead: Duration) -> Self {
        Self { ahead: if ahead.abs() < Duration::SECOND { Duration::ZERO } else { ahead } }
    }

    /// A time of the server's clock, by this machine's.
    pub(crate) fn here(self, at: Timestamp) -> OffsetDateTime {
        OffsetDateTime::from(at).saturating_sub(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_agree_to_a_second_are_one() {
        for (ahead, taken_for) in [(0, 0), (999, 0), (-999, 0), (1000, 1000), (-1000, -1000), (3_600_000, 3_600_000)] {
            let clock = ServerClock::ahead_by(Duration::milliseconds(ahead));
            assert_eq!(clock.ahead, Duration::milliseconds(taken_for), "{ahead} ms ahead");
        }
    }
}
