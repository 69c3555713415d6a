//! What became of a Quota, for its status.

use acb_crds::{Quota, QuotaStatus};

use super::validate::ValidatedQuota;
use crate::condition::{self, Basis, Outcome, Problem};

/// The status after a reconcile. `now` is RFC 3339.
#[must_use]
pub fn status(quota: &Quota, validated: &Result<ValidatedQuota, Vec<Problem>>, now: &str) -> QuotaStatus {
    let previous = quota.status.clone().unwrap_or_default();
    let outcome = match validated {
        Ok(_) => Outcome::Ready,
        Err(problems) => Outcome::Stalled(problems.clone()),
    };
    let generation = quota.metadata.generation;
    let basis = Basis { generation, previous: &previous.conditions, ..Basis::default() };
    let conditions = condition::conditions(&outcome, &basis);
    let mut status = QuotaStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        // Nothing of it is.
        fields_not_acted_on: Vec::new(),
        ..previous
    };
    if let Ok(validated) = validated {
        status.agent_count = Some(validated.agents);
        status.effective = Some(validated.effective.clone());
    }
    status
}
