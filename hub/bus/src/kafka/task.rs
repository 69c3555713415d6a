//! Work that goes on although whoever waits for it is not polled.

use tokio::task::JoinSet;

/// What comes of the work, which a task of its own does; `None` where it panicked. The task ends where this is dropped.
///
/// A stream may not be polled for a while. What it waits for in turn with others, such as a lock, would come to it and be kept, and nobody
/// else would get it: also not the one who polls the stream, where that one waits for it meanwhile.
pub(super) async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    tasks.join_next().await?.ok()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::{sync::Mutex, time::timeout};

    use super::*;

    #[tokio::test]
    async fn what_nobody_polls_keeps_nothing_from_others() {
        let lock = Arc::new(Mutex::new(()));
        let work = |lock: Arc<Mutex<()>>| async move {
            let _held = lock.lock().await;
            tokio::task::yield_now().await;
        };
        // Polled once, and never again.
        let mut kept = Box::pin(apart(work(Arc::clone(&lock))));
        assert!(futures::poll!(&mut kept).is_pending());
        timeout(Duration::from_secs(10), apart(work(Arc::clone(&lock)))).await.unwrap().unwrap();
        // One that is dropped ends.
        let held = lock.lock().await;
        let mut dropped = Box::pin(apart(work(Arc::clone(&lock))));
        assert!(futures::poll!(&mut dropped).is_pending());
        drop((dropped, held));
        timeout(Duration::from_secs(10), apart(work(lock))).await.unwrap().unwrap();
        kept.await.unwrap();
    }
}
