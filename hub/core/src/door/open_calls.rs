//! Calls of proven callers that are open. Each is looked at every second, and ended once its caller would not be let in any more. Where memory is short
//! those are ended whose peers take nothing: what they hold, others wait for.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;

use super::rules::Rule;
use crate::{
    directory::caller::Caller,
    fault::{Code, Fault},
};

/// How soon a call ends after its caller lost the right to it.
const RECHECK: Duration = Duration::from_secs(1);
/// A peer that has taken nothing for so long may lose its call where memory is short.
const STALLED: Duration = Duration::from_secs(10);
/// So many calls at most lose theirs at each look: what they let go of may be enough.
const STALLED_AT_ONCE: usize = 64;

/// Why a call is ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its caller lost the right to it.
    AccessEnded,
    /// Its peer takes nothing of the answer, and memory is short.
    NotTaken,
}

impl Reason {
    /// What the caller hears of it.
    #[must_use]
    pub fn fault(self) -> Fault {
        match self {
            Self::AccessEnded => Fault::new(
                Code::Unauthenticated,
                "ACCESS_ENDED",
                "the access token has expired, or the agent's rights have changed: get a new token and call again",
            ),
            Self::NotTaken => Fault::unavailable(
                "ANSWER_NOT_TAKEN",
                "memory was short, and nothing of this call's answer was taken for 10 s: call again, and take what comes, or ask for less at a time",
            ),
        }
    }
}

/// What can be ended: a call, in all its directions, whether or not anything comes or goes on it.
pub trait Ending: Send + Sync + 'static {
    /// Ends it. It may have ended already.
    fn end(&self, reason: Reason);
    /// For how long its peer has taken nothing of what there is for it. `None`: there is nothing.
    fn stalled(&self) -> Option<Duration>;
}

/// The calls of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenCalls {
    calls: Arc<Mutex<HashMap<u64, Call>>>,
    next: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Call {
    rule: &'static Rule,
    caller: Caller,
    ending: Weak<dyn Ending>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("operation", &self.rule.operation).field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl OpenCalls {
    /// An open call, until what is returned is dropped.
    pub(crate) fn enter(&self, rule: &'static Rule, caller: &Caller, ending: Weak<dyn Ending>) -> OpenCall {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(number, Call { rule, caller: caller.clone(), ending });
        OpenCall { number, calls: self.clone() }
    }

    /// Looks at them for as long as it is polled. A call that has lost its right is ended once, and forgotten when it lets go.
    pub(crate) async fn watch(
        &self,
        still_admits: impl Fn(&'static Rule, &Caller, OffsetDateTime) -> bool,
        is_short: impl Fn() -> bool,
    ) {
        loop {
            tokio::time::sleep(RECHECK).await;
            let now = OffsetDateTime::now_utc();
            let lost: Vec<_> = {
                let mut calls = self.lock();
                calls.extract_if(|_, call| !still_admits(call.rule, &call.caller, now)).map(|(_, call)| call.ending).collect()
            };
            // Not under the lock: what ends lets go of its place.
            for ending in lost.iter().filter_map(Weak::upgrade) {
                ending.end(Reason::AccessEnded);
            }
            if is_short() {
                self.end_stalled();
            }
        }
    }

    /// Ends those whose peers have taken nothing for the longest.
    fn end_stalled(&self) {
        let open: Vec<_> = self.lock().values().map(|call| call.ending.clone()).collect();
        let open = open.iter().filter_map(Weak::upgrade);
        let mut stalled: Vec<_> = open.filter_map(|ending| Some((ending.stalled()?, ending))).collect();
        stalled.retain(|(time, _)| *time >= STALLED);
        stalled.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        for (time, ending) in stalled.into_iter().take(STALLED_AT_ONCE) {
            tracing::warn!(seconds = time.as_secs(), "a call is ended whose peer takes nothing: memory is short");
            ending.end(Reason::NotTaken);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one call.
#[derive(Debug)]
pub(crate) struct OpenCall {
    number: u64,
    calls: OpenCalls,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.number);
    }
}
