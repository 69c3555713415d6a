//! What a hub counts about contexts.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::limits::LimitMetrics;
use crate::{fault::Fault, kit::filter::problem::Cause};

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

/// Labels of `acb_context_filters_refused_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CauseLabels {
    /// `syntax`, `type` or `limit`.
    pub cause: &'static str,
}

/// Gauges and counters of contexts. Clones share them.
#[derive(Clone, Debug)]
pub struct ContextMetrics {
    tenant: String,
    storage: Family<TenantLabels, Gauge<u64, AtomicU64>>,
    // A gauge only because a counter's name would end in `_total`: it never falls.
    bandwidth: Family<BandwidthLabels, Bandwidth>,
    filtered: Counter,
    refused: Family<CauseLabels, Counter>,
    agents: Arc<Mutex<HashSet<String>>>,
    limited: LimitMetrics,
}

/// Bytes of one agent in one direction.
pub(crate) type Bandwidth = Gauge<u64, AtomicU64>;

/// Directions: from an agent, and to it.
pub(crate) const IN: &str = "in";
pub(crate) const OUT: &str = "out";

impl ContextMetrics {
    /// At zero.
    #[must_use]
    pub fn new(tenant: impl Into<String>) -> Self {
        Self {
            tenant: tenant.into(),
            storage: Family::default(),
            bandwidth: Family::default(),
            filtered: Counter::default(),
            refused: Family::default(),
            agents: Arc::default(),
            limited: LimitMetrics::default(),
        }
    }

    /// The same, with refusals counted where others are, too.
    #[must_use]
    pub(super) fn counting(self, limited: LimitMetrics) -> Self {
        Self { limited, ..self }
    }

    /// A context was refused because somebody's limit was reached.
    pub(crate) fn limited(&self, fault: &Fault) {
        self.limited.refused(fault);
    }

    /// Makes them visible in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("acb_context_storage_bytes", "Bytes of all context payloads of the tenant", self.storage.clone());
        registry.register(
            "acb_agent_bandwidth_bytes",
            "Payload bytes from (`in`) and to (`out`) an agent",
            self.bandwidth.clone(),
        );
        registry.register(
            "acb_context_changes_filtered",
            "Changes of contexts that a subscriber may see, and whose filter they did not match",
            self.filtered.clone(),
        );
        registry.register(
            "acb_context_filters_refused",
            "Filters of contexts that were refused, by cause: syntax, type, limit",
            self.refused.clone(),
        );
    }

    pub(crate) fn filtered_out(&self) {
        self.filtered.inc();
    }

    pub(crate) fn filter_refused(&self, cause: Cause) {
        let cause = match cause {
            Cause::Syntax => "syntax",
            Cause::Type => "type",
            Cause::Limit => "limit",
        };
        self.refused.get_or_create(&CauseLabels { cause }).inc();
    }

    pub(crate) fn stored(&self, bytes: u64) {
        self.storage.get_or_create(&TenantLabels { tenant_id: self.tenant.clone() }).set(bytes);
    }

    /// Removes what is counted for an agent.
    pub(crate) fn forget(&self, agent: &str) {
        for direction in [IN, OUT] {
            self.bandwidth.remove(&BandwidthLabels { agent_id: agent.to_owned(), direction });
        }
        self.lock().remove(agent);
    }

    /// Whom anything is counted for.
    pub(crate) fn agents(&self) -> Vec<String> {
        self.lock().iter().cloned().collect()
    }

    pub(crate) fn streamed(&self, agent: &str, direction: &'static str, bytes: usize) {
        self.bandwidth(agent, direction).inc_by(bytes as u64);
    }

    /// What is counted for an agent in one direction.
    pub(crate) fn bandwidth(&self, agent: &str, direction: &'static str) -> Bandwidth {
        let labels = BandwidthLabels { agent_id: agent.to_owned(), direction };
        if self.bandwidth.get(&labels).is_none() {
            self.lock().insert(agent.to_owned());
        }
        self.bandwidth.get_or_create(&labels).clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
