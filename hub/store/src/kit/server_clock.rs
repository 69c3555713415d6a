//! What expires is kept by the clock of the server, which all hubs have in common; a hub says times by its own. So a hub whose clock is off ends nothing
//! before its time that another one keeps.

use acb_hub_pool::Timestamp;
use time::{Duration, OffsetDateTime};

/// A time of this machine's clock, by the server's; `$here` is what this machine's clock shows now. Two clocks that agree to a second are taken for one, so
/// that a time is the same after it was stored.
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
        Self { ahead: shown.ahead_of(asked_at, OffsetDateTime::now_utc()) }
    }

    /// A time of the server's clock, by this machine's.
    pub(crate) fn here(self, at: Timestamp) -> OffsetDateTime {
        OffsetDateTime::from(at).saturating_sub(self.ahead)
    }
}
