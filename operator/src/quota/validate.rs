//! A Quota and the other resources become a [`ValidatedQuota`], or a list of what is wrong.

use acb_crds::{Quota, QuotaLimits};

use crate::{
    condition::{Problem, Reason},
    tenancy::{Census, Tenancy, selection},
    tenant::validate::above_tier,
};

/// A Quota that applies.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedQuota {
    /// Its tenant's name.
    pub tenant: String,
    /// How many agents it applies to.
    pub agents: i64,
    /// Their UIDs, with what each of them may use; `None` where it is for the tenant as a whole.
    pub selected: Option<Vec<(String, QuotaLimits)>>,
    /// What holds for all of those, or for the tenant as a whole.
    pub effective: QuotaLimits,
}

/// Decides whether a Quota applies. One that does not still lowers what it can: the smallest limit holds.
///
/// # Errors
/// Everything that is wrong with it.
pub fn validate(quota: &Quota, census: &Census) -> Result<ValidatedQuota, Vec<Problem>> {
    let namespace = quota.metadata.namespace.clone().unwrap_or_default();
    let Some(owner) = census.owner(&namespace) else {
        let message = format!(
            "namespace {namespace} is no tenant's: move the Quota to acb-<tenant>, or ask the platform team for a Tenant with this namespace"
        );
        return Err(vec![Problem::new(Reason::UnknownTenant, "metadata.namespace", message)]);
    };
    let (tenant, allowance, tenancy) = (&owner.tenant, &owner.allowance, census.tenancy());
    let limits = &quota.spec.limits;
    let ceilings = allowance.quota_ceilings();
    let (ceiling, agents, selected, effective) = match quota.spec.agents() {
        None => (ceilings.tenant, tenancy.staying().count(), None, owner.limits.clone().into()),
        Some(selector) => {
            let is_selected = selection(selector);
            let selected: Vec<_> = tenancy.staying().filter(|agent| is_selected(agent)).collect();
            let own = Tenancy::agent_base(tenant, allowance).smallest(&limits.of_agent());
            let smallest = selected.iter().fold(own, |all, agent| all.smallest(&owner.standing(agent).limits));
            let each =
                selected.iter().filter_map(|agent| Some((agent.metadata.uid.clone()?, owner.standing(agent).limits.into())));
            let each = each.collect();
            (ceilings.agent, selected.len(), Some(each), QuotaLimits { max_agents: limits.max_agents, ..smallest.into() })
        }
    };
    let problems = above_tier("spec.limits", limits.above(&ceiling), tenant.spec.tier);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(ValidatedQuota {
        tenant: tenant.metadata.name.clone().unwrap_or_default(),
        agents: i64::try_from(agents).unwrap_or(i64::MAX),
        selected,
        effective,
    })
}
