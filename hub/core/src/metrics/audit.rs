//! What a hub counts about its audit trail.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Gauges and counters of the audit trail. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct AuditMetrics {
    written: Counter,
    unavailable: Counter,
    lost: Counter,
    queued: Gauge,
    lag: Gauge,
    size: Gauge,
    gaps: Counter,
    failures: Counter,
    witnessed: Gauge,
    witness_failures: Counter,
    acts: Counter,
}

impl AuditMetrics {
    /// Makes them visible in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("acb_audit_records", "Audit records that this replica wrote to the log", self.written.clone());
        let help = "Calls that were not carried out because the log took no audit record";
        registry.register("acb_audit_unavailable", help, self.unavailable.clone());
        let help = "Audit records of the ends of calls that were lost because too many waited for the log";
        registry.register("acb_audit_lost", help, self.lost.clone());
        let help = "Audit records of the ends of calls that wait for the log";
        registry.register("acb_audit_queue", help, self.queued.clone());
        let help = "Audit records in the log that are not in the tree yet; 0 on replicas that do not build it";
        registry.register("acb_audit_sink_lag", help, self.lag.clone());
        let help = "Audit records in the tree; 0 on replicas that do not build it";
        registry.register("acb_audit_tree_size", help, self.size.clone());
        let help = "Places where the audit trail could not go on from where it was";
        registry.register("acb_audit_gaps", help, self.gaps.clone());
        let help = "Times that building the audit trail's tree failed and was begun again";
        registry.register("acb_audit_sink_failures", help, self.failures.clone());
        let help = "Audit records in the last checkpoint that the witness has signed; 0 on replicas that show it none";
        registry.register("acb_audit_witnessed_size", help, self.witnessed.clone());
        let help = "Times that the witness of the audit trail did not take a checkpoint";
        registry.register("acb_audit_witness_failures", help, self.witness_failures.clone());
        let help = "Acts of the operator that this replica put into the audit trail";
        registry.register("acb_audit_operator_acts", help, self.acts.clone());
    }

    /// A record is in the log.
    pub(crate) fn written(&self) {
        self.written.inc();
    }

    /// A call was not carried out.
    pub(crate) fn unavailable(&self) {
        self.unavailable.inc();
    }

    /// A record was lost.
    pub(crate) fn lost(&self) {
        self.lost.inc();
    }

    /// So many wait.
    pub(crate) fn queued(&self, records: usize) {
        self.queued.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// How far the tree is behind the log.
    pub(crate) fn lag(&self, records: u64) {
        self.lag.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// How large the tree is.
    pub(crate) fn size(&self, records: u64) {
        self.size.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Something is missing in the trail.
    pub(crate) fn gap(&self) {
        self.gaps.inc();
    }

    /// The witness has a checkpoint of so many records.
    pub(crate) fn witnessed(&self, records: u64) {
        self.witnessed.set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// The witness did not take one.
    pub(crate) fn unwitnessed(&self) {
        self.witness_failures.inc();
    }

    /// An act of the operator is in the log.
    pub(crate) fn act(&self) {
        self.acts.inc();
    }

    /// Building the tree failed.
    pub(crate) fn failed(&self) {
        self.failures.inc();
    }
}
