//! What became of a Quota, for its status.

use acb_crds::{Quota, QuotaStatus};

use super::validate::ValidatedQuota;
use crate::{
    condition::{self, Basis, Outcome, Problem},
    observed::ObservedUsage,
    usage::Used,
};

/// The status after a reconcile. `usage` is what the tenant's agents have used, where that was looked at; `now` is RFC 3339.
#[must_use]
pub fn status(
    quota: &Quota,
    validated: &Result<ValidatedQuota, Vec<Problem>>,
    usage: Option<&ObservedUsage>,
    now: &str,
) -> QuotaStatus {
    let previous = quota.status.clone().unwrap_or_default();
    let outcome = match validated {
        Ok(_) => Outcome::Ready,
        Err(problems) => Outcome::Stalled(problems.clone()),
    };
    let generation = quota.metadata.generation;
    let basis = Basis { generation, previous: &previous.conditions, ..Basis::default() };
    let mut conditions = condition::conditions(&outcome, &basis);
    let used = validated.as_ref().ok().zip(usage).map(|(validated, usage)| match &validated.selected {
        None => (Used::of_all(usage, validated.agents), validated.effective.clone()),
        Some(agents) => Used::most_of(usage, agents),
    });
    conditions.extend(match &used {
        Some((used, limits)) => used.near(limits).condition(),
        None => previous.conditions.iter().find(|before| before.r#type == condition::NEAR_LIMIT).cloned(),
    });
    if validated.as_ref().is_ok_and(|validated| validated.selected.as_ref().is_some_and(Vec::is_empty)) {
        conditions.push(condition::unused());
    }
    let mut status = QuotaStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        // Nothing of it is.
        fields_not_acted_on: Vec::new(),
        ..previous
    };
    if let Some((used, limits)) = used {
        status.usage = Some(used.shown(&limits));
    }
    if let Ok(validated) = validated {
        status.agent_count = Some(validated.agents);
        status.effective = Some(validated.effective.clone());
    }
    status
}
