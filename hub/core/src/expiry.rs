//! Deletes what has expired. Every replica does; a deletion that another one did first finds nothing to delete.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{context_metrics::ContextMetrics, contexts::Contexts, fault::Fault};

/// Contexts deleted between two questions.
const BATCH: u32 = 100;

/// How often the stored bytes are counted.
const COUNT_EVERY: Duration = Duration::from_secs(60);

pub(crate) struct Janitor {
    pub(crate) contexts: Arc<Contexts>,
    pub(crate) metrics: ContextMetrics,
    pub(crate) every: Duration,
}

impl Janitor {
    pub(crate) async fn run(self, upload_lifetime: Duration, cancellation: CancellationToken) {
        let mut counted: Option<Instant> = None;
        loop {
            if let Err(fault) = self.clean(upload_lifetime).await {
                warn!(%fault, "what has expired stays for now, unseen");
            }
            if counted.is_none_or(|at| at.elapsed() >= COUNT_EVERY) {
                match self.contexts.stores.contexts.stored_bytes().await {
                    Ok(bytes) => self.metrics.stored(bytes),
                    Err(fault) => warn!(%fault, "stored bytes were not counted"),
                }
                counted = Some(Instant::now());
            }
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = tokio::time::sleep(self.every) => {}
            }
        }
    }

    async fn clean(&self, upload_lifetime: Duration) -> Result<(), Fault> {
        loop {
            let expired = self.contexts.stores.contexts.expired(BATCH).await?;
            for context in &expired {
                self.contexts.remove(context).await?;
            }
            if expired.len() < BATCH as usize {
                break;
            }
        }
        let abandoned = self.contexts.stores.uploads.remove_abandoned(upload_lifetime).await?;
        if abandoned > 0 {
            info!(abandoned, "abandoned uploads removed");
        }
        Ok(())
    }
}
