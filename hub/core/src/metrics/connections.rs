//! What a hub counts about the connections of its callers.

use prometheus_client::{metrics::gauge::Gauge, registry::Registry};

/// Gauges of connections. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    open: Gauge,
    limit: Gauge,
}

impl ConnectionMetrics {
    /// Makes them visible in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Connections of callers that are open at this replica, those among them that still greet";
        registry.register("acb_connections", help, self.open.clone());
        registry.register("acb_connections_limit", "Connections that this replica takes at most", self.limit.clone());
    }

    /// So many are taken at most.
    pub fn limit(&self, connections: usize) {
        self.limit.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// One was taken. It counts as long as the answer lives.
    #[must_use]
    pub fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }
}

/// A connection that is counted while this lives.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
