//! Watches over the tasks that must run for as long as their hub does. If such a task panics or returns early, the hub would look alive and do nothing.
//! So the end of such a task ends the hub. Tasks of one request or one session do not belong here: an agent could end the hub by them.

use std::{any::Any, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A task that is no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task {task} {how}")]
pub struct TaskEnded {
    /// Which.
    pub task: &'static str,
    /// In what way.
    pub how: String,
}

/// Starts tasks, and tells of the first that ended. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    stop: CancellationToken,
    failed: watch::Sender<Option<TaskEnded>>,
}

impl Supervisor {
    /// For a hub that stops with this token.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, failed: watch::Sender::new(None) }
    }

    /// Ends every task of the hub.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Starts a task that runs until the hub stops.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_until(name, self.stop.clone(), task);
    }

    /// Starts a task that may end once `until` is cancelled, and not before.
    pub fn spawn_until(&self, name: &'static str, until: CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
        let supervisor = self.clone();
        tokio::spawn(async move {
            match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) if until.is_cancelled() => {}
                Ok(()) => supervisor.report(name, "ended by itself".to_owned()),
                Err(panic) => supervisor.report(name, format!("panicked: {}", text(&*panic))),
            }
        });
    }

    /// Starts a task that may end at any time, but must not panic.
    pub fn spawn_finite(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let supervisor = self.clone();
        tokio::spawn(async move {
            if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
                supervisor.report(name, format!("panicked: {}", text(&*panic)));
            }
        });
    }

    /// Resolves with the first task that ended and must not have.
    pub async fn failed(&self) -> TaskEnded {
        let mut failed = self.failed.subscribe();
        loop {
            if let Some(ended) = failed.borrow_and_update().clone() {
                return ended;
            }
            if failed.changed().await.is_err() {
                // Never: this holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    fn report(&self, task: &'static str, how: String) {
        tracing::error!(task, how, "a task of the hub is no more: the hub ends");
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(TaskEnded { task, how });
            first
        });
    }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_panic_and_an_early_end_are_told_and_a_stop_is_not() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let stop = supervisor.stop().clone();
        supervisor.spawn("obedient", async move { stop.cancelled().await });
        let own = CancellationToken::new();
        let until = own.clone();
        supervisor.spawn_until("shorter", own.clone(), async move { until.cancelled().await });
        supervisor.spawn_finite("finite", async {});
        own.cancel();
        assert!(timeout(Duration::from_millis(100), supervisor.failed()).await.is_err());

        supervisor.spawn("lazy", async {});
        let ended = timeout(Duration::from_secs(10), supervisor.failed()).await.unwrap();
        assert_eq!(ended.to_string(), "the task lazy ended by itself");

        for finite in [false, true] {
            let supervisor = Supervisor::new(CancellationToken::new());
            let when = "noon";
            let task = async move { panic!("at {when}") };
            if finite {
                supervisor.spawn_finite("clumsy", task)
            } else {
                supervisor.spawn("clumsy", task)
            }
            let ended = timeout(Duration::from_secs(10), supervisor.failed()).await.unwrap();
            assert_eq!(ended.to_string(), "the task clumsy panicked: at noon");
        }
    }
}
