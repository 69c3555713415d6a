//! What a hub counts of limits that were reached.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::fault::{Exhausted, Fault};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limited {
    limit: &'static str,
    subject: String,
}

/// Refusals by limit. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct LimitMetrics(Family<Limited, Counter>);

impl LimitMetrics {
    /// Makes them visible in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Messages, requests, connections, streams and contexts that were refused because a limit was reached";
        registry.register("acb_limited", help, self.0.clone());
    }

    /// Something was refused because somebody's limit was reached.
    pub(crate) fn refused(&self, fault: &Fault) {
        if let Some(Exhausted { subject, limit, .. }) = fault.exhausted.as_deref() {
            self.0.get_or_create(&Limited { limit, subject: subject.clone() }).inc();
        }
    }
}
