//! The task of a replica that carries timers out. It sleeps until the next one is due. What another replica makes meanwhile it sees at its next look;
//! that replica wakes for it itself.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    handler::{Fired, Handler},
    ports::{Outcomes, RESERVED, Timer, TimerStore},
};
use crate::{fault::Fault, kit::lag::Lag, metrics::Metrics};

/// How often to look for what another replica made, or left behind.
pub const POLL: Duration = Duration::from_secs(5);
/// The longest that carrying out may take. The claim lasts meanwhile, and PostgreSQL ends an idle one after 30 s.
pub const FIRE_WITHIN: Duration = Duration::from_secs(10);
/// The pause before what took too long is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The first pause after the store failed, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), POLL);

/// Wakes the alarm of this replica. Clones wake the same one.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// A timer was made, which may be the next one that is due.
    pub fn wake(&self) {
        self.0.notify_one();
    }
}

/// Carries out the timers of these nouns.
pub struct Alarm {
    store: Arc<dyn TimerStore>,
    handlers: HashMap<&'static str, Arc<dyn Handler>>,
    wake: Wake,
    poll: Duration,
    metrics: Arc<Metrics>,
}

impl Alarm {
    /// Timers of other kinds are left to replicas that know them.
    #[must_use]
    pub fn new(
        store: Arc<dyn TimerStore>,
        handlers: impl IntoIterator<Item = Arc<dyn Handler>>,
        wake: Wake,
        poll: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let handlers = handlers.into_iter().map(|handler| (handler.kind(), handler)).collect();
        Self { store, handlers, wake, poll, metrics }
    }

    /// Carries timers out until the hub ends.
    pub async fn run(self, cancellation: CancellationToken) {
        let mut backoff = BACKOFF.0;
        let mut overdue = Lag::default();
        loop {
            let look = tokio::select! {
                // What is being carried out is given back: the next replica takes it at once.
                () = cancellation.cancelled() => return,
                look = self.look(&mut overdue) => look,
            };
            let pause = match look {
                Ok(next) => {
                    backoff = BACKOFF.0;
                    next.map_or(self.poll, |next| next.min(self.poll))
                }
                Err(fault) => {
                    tracing::warn!(%fault, "timers wait for the store");
                    self.metrics.timers_overdue(overdue.now());
                    backoff = (backoff * 2).min(BACKOFF.1);
                    backoff
                }
            };
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = self.wake.0.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Carries out what is due, and says in which time the next look is to be.
    async fn look(&self, overdue: &mut Lag) -> Result<Option<Duration>, Fault> {
        let kinds: Vec<&str> = self.handlers.values().filter(|handler| handler.ready()).map(|handler| handler.kind()).collect();
        if kinds.is_empty() {
            return Ok(None);
        }
        let mut about_to = Vec::new();
        while let Some(due) = self.store.claim(&kinds, &about_to).await? {
            let now = due.now();
            // After that, another replica may have had it in between.
            let begins = |timer: &Timer| about_to.contains(&timer.id) && timer.attempted.is_some_and(|ago| ago < RESERVED);
            let fired = join_all(due.timers().iter().map(|timer| self.fire(timer, begins(timer)))).await;
            let mut outcomes = Outcomes::default();
            for (timer, fired) in due.timers().iter().zip(fired) {
                match fired {
                    Fired::Done => {
                        self.metrics.timer_fired((now - timer.due_at).try_into().unwrap_or_default());
                        outcomes.done.push(timer.id);
                    }
                    Fired::Attempt => outcomes.attempted.push(timer.id),
                    Fired::Later(pause) => outcomes.later.push((timer.id, pause)),
                    Fired::Untouched(pause) => outcomes.untouched.push((timer.id, pause)),
                }
            }
            due.settle(&outcomes).await?;
            about_to = outcomes.attempted;
        }
        let waiting = self.store.waiting(&kinds).await?;
        overdue.is(waiting.overdue);
        self.metrics.timers_waiting(waiting.count);
        self.metrics.timers_overdue(waiting.overdue);
        Ok(waiting.next)
    }

    async fn fire(&self, timer: &Timer, begins: bool) -> Fired {
        let Some(handler) = self.handlers.get(timer.kind.as_str()) else { return Fired::Later(self.poll) };
        let late = |id: Uuid| {
            tracing::warn!(kind = timer.kind, %id, "a timer could not be carried out in time, trying again");
            Fired::Later(AGAIN)
        };
        timeout(FIRE_WITHIN, handler.fire(timer, begins)).await.unwrap_or_else(|_| late(timer.id))
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use time::OffsetDateTime;

    use super::{
        super::ports::{Added, Backlog, Bounds, Cancelled, Due, NewTimer},
        *,
    };
    use crate::fault::Fault;

    /// A store that answers nothing.
    struct Away;

    fn away<T>() -> Result<T, Fault> {
        Err(Fault::unavailable("STORE_UNAVAILABLE", "the store does not answer"))
    }

    #[async_trait]
    impl TimerStore for Away {
        async fn add(&self, _: &NewTimer, _: Bounds) -> Result<Added, Fault> {
            away()
        }

        async fn claim(&self, _: &[&str], _: &[Uuid]) -> Result<Option<Box<dyn Due>>, Fault> {
            away()
        }

        async fn waiting(&self, _: &[&str]) -> Result<Backlog, Fault> {
            away()
        }

        async fn list(&self, _: &str, _: Option<Uuid>, _: Option<(OffsetDateTime, Uuid)>, _: usize) -> Result<Vec<Timer>, Fault> {
            away()
        }

        async fn find(&self, _: &str, _: Uuid) -> Result<Option<Timer>, Fault> {
            away()
        }

        async fn cancel(&self, _: &str, _: Option<Uuid>, _: Uuid) -> Result<Cancelled, Fault> {
            away()
        }
    }

    struct Ready;

    #[async_trait]
    impl Handler for Ready {
        fn kind(&self) -> &'static str {
            "ready"
        }

        fn ready(&self) -> bool {
            true
        }

        async fn fire(&self, _: &Timer, _: bool) -> Fired {
            Fired::Done
        }
    }

    #[tokio::test(start_paused = true)]
    async fn timers_of_which_nothing_is_heard_are_more_overdue_by_the_minute() {
        let (metrics, stop) = (Arc::new(Metrics::new("acme")), CancellationToken::new());
        let handlers: [Arc<dyn Handler>; 1] = [Arc::new(Ready)];
        let alarm = Alarm::new(Arc::new(Away), handlers, Wake::default(), POLL, metrics.clone());
        let _ended = tokio::time::timeout(Duration::from_secs(123), alarm.run(stop)).await;
        let text = metrics.render();
        let overdue = text.lines().find_map(|line| line.strip_prefix("acb_timers_overdue_seconds{tenant_id=\"acme\"} "));
        let overdue: u64 = overdue.map_or(0, |seconds| seconds.parse().unwrap_or(0));
        assert!((115..=123).contains(&overdue), "{overdue} s");
    }
}
