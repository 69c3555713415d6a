//! How long this process may still change what others fence no better. Asked by the effect itself, right before it sends: between a
//! look at the lease and a write lies every pause that there is.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::EffectError;

/// A lease as the effects see it. Clocks are this process's own.
#[derive(Debug)]
pub struct Fence {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    until: Instant,
    ended: bool,
    /// A change was under way when it ended.
    late: bool,
}

/// A change that is under way. To be kept until it is known what became of it.
#[derive(Debug)]
pub struct Passage<'a>(&'a Fence);

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.0.check(Duration::ZERO).is_err() {
            self.0.state().late = true;
        }
    }
}

impl Fence {
    /// Open until then.
    #[must_use]
    pub fn until(until: Instant) -> Self {
        Self { state: Mutex::new(State { until, ended: false, late: false }) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease was renewed. One that ended stays ended: a term does not come back.
    pub fn extend(&self, until: Instant) {
        let mut state = self.state();
        if !state.ended && state.until > Instant::now() {
            state.until = state.until.max(until);
        }
    }

    /// The lease is another's, or given back.
    pub fn end(&self) {
        self.state().ended = true;
    }

    /// When it ends, unless it is extended.
    #[must_use]
    pub fn ends_at(&self) -> Instant {
        let state = self.state();
        if state.ended { Instant::now() } else { state.until }
    }

    /// Fails where less than `spare` is left, or nothing.
    ///
    /// # Errors
    /// What a step is told that must not be applied any more.
    pub fn check(&self, spare: Duration) -> Result<(), EffectError> {
        let state = *self.state();
        let left = state.until.saturating_duration_since(Instant::now());
        if state.ended || left.is_zero() || left < spare {
            return Err(EffectError::unavailable("the operator's lease", "it ran out or is about to: another replica goes on"));
        }
        Ok(())
    }

    /// As [`check`](Self::check), for a change that is sent now to a system that itself fences nothing.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn pass(&self, spare: Duration) -> Result<Passage<'_>, EffectError> {
        self.check(spare)?;
        Ok(Passage(self))
    }

    /// Whether such a change may have arrived when the lease was another's: this process slept between asking and sending.
    #[must_use]
    pub fn was_late(&self) -> bool {
        self.state().late
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn a_term_that_ended_stays_ended() {
        let fence = Fence::until(Instant::now() + Duration::from_secs(15));
        fence.check(Duration::from_secs(5)).unwrap();
        fence.check(Duration::from_secs(60)).unwrap_err();
        fence.end();
        fence.extend(Instant::now() + Duration::from_secs(60));
        fence.check(Duration::ZERO).unwrap_err();
        let late = Fence::until(Instant::now());
        late.extend(Instant::now() + Duration::from_secs(60));
        late.check(Duration::ZERO).unwrap_err();
    }

    #[test]
    fn a_change_that_outlives_the_term_is_late() {
        let fence = Fence::until(Instant::now() + Duration::from_secs(15));
        drop(fence.pass(Duration::from_secs(5)).unwrap());
        assert!(!fence.was_late());
        let passage = fence.pass(Duration::ZERO).unwrap();
        fence.end();
        assert!(!fence.was_late(), "nobody knows yet what becomes of it");
        drop(passage);
        assert!(fence.was_late());
        fence.pass(Duration::ZERO).unwrap_err();
    }
}
