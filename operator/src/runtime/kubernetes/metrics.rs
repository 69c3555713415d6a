//! What the operator counts, under the names that controllers have.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use acb_crds::tenant::IsolationStatus;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::tally::{Said, Tally};
use crate::{orphans::System, reconcile::schedule::Turn};

/// Seconds: from five milliseconds to a minute.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// What is reconciled together.
const CONTROLLER: &str = "tenancy";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lease {
    name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Orphans {
    system: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resources {
    kind: &'static str,
    condition: &'static str,
    status: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attacks {
    outcome: &'static str,
}

/// Counters of one operator process. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    reconciled: Family<Reconciled, Counter>,
    seconds: Family<Controller, Histogram, fn() -> Histogram>,
    depth: Family<Queue, Gauge>,
    leading: Family<Lease, Gauge>,
    requests: Family<Request, Counter>,
    ended_sessions: Counter,
    orphans: Family<Orphans, Gauge>,
    finished: Family<Orphans, Counter>,
    resources: Family<Resources, Gauge>,
    attacks: Family<Attacks, Counter>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let reconciled = Family::default();
        let seconds: Family<Controller, Histogram, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(BUCKETS));
        let (depth, leading, requests) = (Family::default(), Family::default(), Family::default());
        registry.register("controller_runtime_reconcile", "Reconciles, by how they ended", Family::clone(&reconciled));
        registry.register_with_unit(
            "controller_runtime_reconcile_time",
            "How long a reconcile took",
            Unit::Seconds,
            seconds.clone(),
        );
        registry.register("workqueue_depth", "Tenancies that are due and not begun", Family::clone(&depth));
        registry.register("leader_election_master_status", "Whether this process leads", Family::clone(&leading));
        registry.register("acb_operator_api_requests", "Requests to the Kubernetes API, by verb", Family::clone(&requests));
        let ended_sessions = Counter::default();
        registry.register(
            "acb_operator_overlong_sessions_ended",
            "Sessions of tenants with PostgreSQL that were ended, since their transaction lasted too long",
            ended_sessions.clone(),
        );
        let (orphans, finished) = (Family::default(), Family::default());
        registry.register(
            "acb_operator_orphans",
            "What belongs to no Tenant, and is for people to remove",
            Family::clone(&orphans),
        );
        registry.register(
            "acb_operator_orphans_finished",
            "What belonged to no Tenant, and was taken away",
            Family::clone(&finished),
        );
        let resources = Family::default();
        registry.register(
            "acb_operator_resources",
            "Tenants, Agents and Quotas, by what their conditions say",
            Family::clone(&resources),
        );
        let attacks = Family::default();
        registry.register(
            "acb_operator_isolation_attacks",
            "Attacks on the walls between tenants, made to see whether they stand, by how they ended",
            Family::clone(&attacks),
        );
        let registry = Arc::new(Mutex::new(registry));
        let metrics = Self {
            registry,
            reconciled,
            seconds,
            depth,
            leading,
            requests,
            ended_sessions,
            orphans,
            finished,
            resources,
            attacks,
        };
        // Known from the beginning, so that nobody takes a process that stands by for one that is gone.
        metrics.leads(false);
        metrics.waits(0);
        System::ALL.into_iter().for_each(|system| metrics.orphans(system, 0));
        metrics.attacked(&IsolationStatus::default());
        metrics
    }
}

impl Metrics {
    pub(super) fn reconciled(&self, turn: Turn, took: Duration) {
        let result = match turn {
            Turn::Settled => "success",
            Turn::Waiting => "requeue_after",
            Turn::Failed => "error",
        };
        self.reconciled.get_or_create(&Reconciled { controller: CONTROLLER, result }).inc();
        self.seconds.get_or_create(&Controller { controller: CONTROLLER }).observe(took.as_secs_f64());
    }

    pub(super) fn waits(&self, tenancies: usize) {
        self.depth.get_or_create(&Queue { name: CONTROLLER }).set(i64::try_from(tenancies).unwrap_or(i64::MAX));
    }

    pub(super) fn leads(&self, leads: bool) {
        self.leading.get_or_create(&Lease { name: "acb-operator" }).set(i64::from(leads));
    }

    pub(super) fn requested(&self, verb: &'static str) {
        self.requests.get_or_create(&Request { verb }).inc();
    }

    pub(super) fn ended_sessions(&self, count: u64) {
        self.ended_sessions.inc_by(count);
    }

    pub(super) fn orphans(&self, system: System, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.orphans.get_or_create(&Orphans { system: system.as_str() }).set(count);
    }

    pub(super) fn orphan_finished(&self, system: System) {
        self.finished.get_or_create(&Orphans { system: system.as_str() }).inc();
    }

    /// Attacks on walls, and how they ended.
    pub(super) fn attacked(&self, found: &IsolationStatus) {
        let IsolationStatus { attacks, refused, nothing, .. } = found;
        let others = attacks.saturating_sub(*refused).saturating_sub(*nothing);
        for (outcome, count) in [("refused", *refused), ("nothing", *nothing), ("not_refused", others)] {
            self.attacks.get_or_create(&Attacks { outcome }).inc_by(u64::from(count));
        }
    }

    /// What resources say of themselves. A process that does not lead says nothing of them.
    pub(super) fn resources(&self, tally: &Tally) {
        // Written together: a scrape in between would see a part of them.
        let _unread = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.resources.clear();
        for (said, count) in tally.iter() {
            let Said { kind, condition, status, reason } = said.clone();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.resources.get_or_create(&Resources { kind, condition, status, reason }).set(count);
        }
    }

    /// All of them, as Prometheus reads them.
    ///
    /// # Errors
    /// Where they can't be written as text.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;
    use crate::effect::kubernetes::ObjectKey;

    #[test]
    fn names_are_those_that_dashboards_know() {
        let metrics = Metrics::default();
        metrics.reconciled(Turn::Failed, Duration::from_millis(20));
        metrics.leads(true);
        metrics.requested("patch");
        metrics.orphans(System::Kafka, 2);
        metrics.orphan_finished(System::Postgres);
        metrics.attacked(&IsolationStatus { attacks: 138, refused: 130, nothing: 6, ..IsolationStatus::default() });
        let mut tally = Tally::default();
        let key = ObjectKey::new(acb_crds::API_VERSION, "Agent", "acb-acme", "a");
        let stalled = json!({"status": {"conditions": [{"type": "Stalled", "status": "True", "reason": "TooManyAgents"}]}});
        tally.change(&key, None, Some(&stalled));
        metrics.resources(&tally);
        let text = metrics.text().unwrap();
        for line in [
            "controller_runtime_reconcile_total{controller=\"tenancy\",result=\"error\"} 1",
            "controller_runtime_reconcile_time_seconds_count{controller=\"tenancy\"} 1",
            "workqueue_depth{name=\"tenancy\"} 0",
            "leader_election_master_status{name=\"acb-operator\"} 1",
            "acb_operator_api_requests_total{verb=\"patch\"} 1",
            "acb_operator_isolation_attacks_total{outcome=\"refused\"} 130",
            "acb_operator_isolation_attacks_total{outcome=\"nothing\"} 6",
            "acb_operator_isolation_attacks_total{outcome=\"not_refused\"} 2",
            "acb_operator_orphans{system=\"kafka\"} 2",
            "acb_operator_orphans{system=\"kubernetes\"} 0",
            "acb_operator_orphans_finished_total{system=\"postgres\"} 1",
            "acb_operator_resources{kind=\"Agent\",condition=\"Stalled\",status=\"True\",reason=\"TooManyAgents\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        metrics.resources(&Tally::default());
        assert!(!metrics.text().unwrap().contains("TooManyAgents"), "nothing is left of a term");
    }
}
