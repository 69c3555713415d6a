//! How far something is behind, also while nobody can say.

use std::time::Duration;

use tokio::time::Instant;

/// What was last known of a lag. Since then it may have grown by as much as has passed.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    known: Duration,
    at: Instant,
}

impl Default for Lag {
    fn default() -> Self {
        Self { known: Duration::ZERO, at: Instant::now() }
    }
}

impl Lag {
    /// It was found out.
    pub fn is(&mut self, known: Duration) {
        *self = Self { known, at: Instant::now() };
    }

    /// What it may be now.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.known + self.at.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lag_of_which_nothing_is_heard_grows() {
        let mut lag = Lag::default();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(lag.now(), Duration::from_secs(60));
        lag.is(Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lag.now(), Duration::from_secs(6));
    }
}
