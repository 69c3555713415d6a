//! How many of one thing each source has, so that no source takes it from the others.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Those of each source. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Crowds(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    all: usize,
    of: HashMap<IpAddr, Crowd>,
}

#[derive(Debug, Default)]
struct Crowd {
    members: usize,
    line: Line,
}

/// Where those of one source stand, one behind the other: so that sources take turns, however many each of them has.
pub type Line = Arc<tokio::sync::Mutex<()>>;

impl Crowds {
    /// One more of this source. `None` where it has as many as it may, which depends on how many there are of all sources.
    #[must_use]
    pub fn join(&self, source: IpAddr, may: impl FnOnce(usize) -> usize) -> Option<Member> {
        let mut state = self.state();
        let most = may(state.all);
        if state.of.get(&source).map_or(0, |crowd| crowd.members) >= most {
            return None;
        }
        state.all += 1;
        let crowd = state.of.entry(source).or_default();
        crowd.members += 1;
        Some(Member { crowds: self.clone(), source, line: crowd.line.clone() })
    }

    /// Whether there is none of any source.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let state = self.state();
        state.all == 0 && state.of.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of its source's, while this lives.
#[derive(Debug)]
pub struct Member {
    crowds: Crowds,
    source: IpAddr,
    line: Line,
}

impl Member {
    /// Where its source stands.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.crowds.state();
        state.all -= 1;
        if let Some(crowd) = state.of.get_mut(&self.source) {
            crowd.members -= 1;
            if crowd.members == 0 {
                state.of.remove(&self.source);
            }
        }
    }
}
