//! What a hub counts about the sums of usage.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Gauges and counters of the sums. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct UsageMetrics {
    unsummed: Gauge,
    failures: Counter,
    gaps: Gauge,
    exported: Counter,
    export_failures: Counter,
}

impl UsageMetrics {
    /// Makes them visible in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Records with messages that this replica has read and that were in no sum of usage at its last look";
        registry.register("acb_usage_unsummed", help, self.unsummed.clone());
        let help = "Times that this replica could not add to the sums of usage";
        registry.register("acb_usage_sum_failures", help, self.failures.clone());
        let help = "Places of the last day at which the sums of usage lack something, at this replica's last look";
        registry.register("acb_usage_gaps", help, self.gaps.clone());
        let help = "Events of usage that this replica has appended to the topic sys.usage";
        registry.register("acb_usage_exported", help, self.exported.clone());
        let help = "Times that this replica could not tell the topic sys.usage of sums";
        registry.register("acb_usage_export_failures", help, self.export_failures.clone());
    }

    /// So many records are in no sum.
    pub(crate) fn unsummed(&self, records: usize) {
        self.unsummed.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Nothing could be added to the sums.
    pub(crate) fn failed(&self) {
        self.failures.inc();
    }

    /// The topic of usage has so many more events.
    pub(crate) fn exported(&self, events: usize) {
        self.exported.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
    }

    /// The topic of usage could not be told.
    pub(crate) fn export_failed(&self) {
        self.export_failures.inc();
    }

    /// So many gaps were found lately.
    pub(crate) fn gaps(&self, gaps: u64) {
        self.gaps.set(i64::try_from(gaps).unwrap_or(i64::MAX));
    }
}
