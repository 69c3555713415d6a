//! What a hub counts about contexts.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

/// Labels of `acb_context_storage_bytes`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TenantLabels {
    /// The tenant's name.
    pub tenant_id: String,
}

/// Labels of `acb_agent_bandwidth_bytes`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BandwidthLabels {
    /// The agent's name.
    pub agent_id: String,
    /// `in` or `out`.
    pub direction: &'static str,
}

/// Gauges and counters of contexts. Clones share them.
#[derive(Clone, Debug)]
pub struct ContextMetrics {
    tenant: String,
    storage: Family<TenantLabels, Gauge<u64, AtomicU64>>,
    // A gauge only because a counter's name would end in `_total`: it never falls.
    bandwidth: Family<BandwidthLabels, Gauge<u64, AtomicU64>>,
}

impl ContextMetrics {
    /// At zero.
    #[must_use]
    pub fn new(tenant: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), storage: Family::default(), bandwidth: Family::default() }
    }

    /// Makes them visible in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("acb_context_storage_bytes", "Bytes of all context payloads of the tenant", self.storage.clone());
        registry.register(
            "acb_agent_bandwidth_bytes",
            "Payload bytes from (`in`) and to (`out`) an agent",
            self.bandwidth.clone(),
        );
    }

    pub(crate) fn stored(&self, bytes: u64) {
        self.storage.get_or_create(&TenantLabels { tenant_id: self.tenant.clone() }).set(bytes);
    }

    pub(crate) fn streamed(&self, agent: &str, direction: &'static str, bytes: usize) {
        self.bandwidth.get_or_create(&BandwidthLabels { agent_id: agent.to_owned(), direction }).inc_by(bytes as u64);
    }
}
