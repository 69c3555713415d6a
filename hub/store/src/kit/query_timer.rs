//! How long queries take, by the name of what was asked: waiting for a connection is part of it.

use std::{sync::Arc, time::Instant};

use acb_hub_core::metrics::Metrics;

/// Measures queries, where there are metrics to tell.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryTimer(pub(crate) Option<Arc<Metrics>>);

impl QueryTimer {
    /// Measures until it is dropped: also where the query fails, or is given up.
    pub(crate) fn start(&self, query: &'static str) -> Running<'_> {
        Running { metrics: self.0.as_deref(), query, since: Instant::now() }
    }
}

/// A query on its way.
#[must_use]
pub(crate) struct Running<'a> {
    metrics: Option<&'a Metrics>,
    query: &'static str,
    since: Instant,
}

impl Running<'_> {
    /// What was asked.
    pub(crate) fn name(&self) -> &'static str {
        self.query
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.metrics {
            metrics.query(self.query, self.since.elapsed());
        }
    }
}
