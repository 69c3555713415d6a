//! The reconciles that run. Which one a task is, is kept beside it: one that panics says nothing any more, and its place must be given
//! back all the same.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::{Id, JoinSet};
use tracing::error;

use super::{
    schedule::{Schedule, Turn},
    tenancies::Tenancies,
};

/// One that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) namespace: String,
    pub(crate) turn: Turn,
    pub(crate) took: Duration,
}

/// Those that run.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    tasks: JoinSet<Turn>,
    begun: HashMap<Id, (String, Instant)>,
}

impl Jobs {
    /// Begins to reconcile what is due, as far as there is room.
    pub(crate) fn start(&mut self, schedule: &mut Schedule<String>, tenancies: &Arc<Tenancies>) {
        for namespace in schedule.start_due(Instant::now()) {
            let tenancies = Arc::clone(tenancies);
            self.spawn(namespace.clone(), async move { tenancies.reconcile(&namespace).await });
        }
    }

    fn spawn(&mut self, namespace: String, job: impl Future<Output = Turn> + Send + 'static) {
        let task = self.tasks.spawn(job);
        self.begun.insert(task.id(), (namespace, Instant::now()));
    }

    /// The next one that ends; `None`: none runs.
    pub(crate) async fn next(&mut self) -> Option<Ended> {
        loop {
            let (id, turn) = match self.tasks.join_next_with_id().await? {
                Ok((id, turn)) => (id, turn),
                Err(broken) => {
                    error!(error = %broken, "a reconcile broke off");
                    (broken.id(), Turn::Failed)
                }
            };
            if let Some((namespace, begun)) = self.begun.remove(&id) {
                return Some(Ended { namespace, turn, took: begun.elapsed() });
            }
        }
    }

    /// Breaks off those that still run.
    pub(crate) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::reconcile::schedule::Waits;

    #[tokio::test]
    async fn one_that_panics_gives_its_place_back_and_is_tried_again() {
        let wait = Duration::from_secs(60);
        let (mut schedule, mut jobs) = (Schedule::new(1, Waits { resync: wait, waiting: wait }), Jobs::default());
        let begun = Instant::now();
        schedule.touch("acb-acme".to_owned(), begun);
        schedule.touch("acb-globex".to_owned(), begun);
        for namespace in schedule.start_due(begun) {
            jobs.spawn(namespace, async { panic!("on purpose") });
        }
        let ended = jobs.next().await.unwrap();
        assert_eq!((ended.namespace.as_str(), ended.turn), ("acb-acme", Turn::Failed));
        schedule.finish(&ended.namespace, ended.turn, begun, 0.5);
        assert_eq!(schedule.start_due(begun), ["acb-globex"], "there is room for another");
        schedule.finish(&"acb-globex".to_owned(), Turn::Settled, begun, 0.5);
        assert_eq!(schedule.start_due(begun + Duration::from_secs(1)), ["acb-acme"]);
        assert!(jobs.next().await.is_none());
    }
}
