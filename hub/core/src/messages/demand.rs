//! How many messages a receiver asks for. A session asks for all; calls that pull ask for one after another, while they wait.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Whether a message is asked for.
#[derive(Debug, Default)]
pub(super) struct Demand {
    asked: AtomicBool,
    more: Notify,
}

impl Demand {
    /// Asks for one more.
    pub(super) fn one_more(&self) {
        self.asked.store(true, Ordering::Release);
        self.more.notify_one();
    }

    /// Nothing is asked for any more: it was met, or given up.
    pub(super) fn none(&self) {
        self.asked.store(false, Ordering::Release);
    }

    /// Whether one is asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Something is asked for since this was last awaited.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }
}
