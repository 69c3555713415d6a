//! Which resources belong together: a tenant, its namespace, its agents in order, its limits, its context types. Pure, and the same
//! for all three kinds, so that none of them disagrees with another.

use std::{cmp::Ordering, collections::BTreeSet};

use acb_crds::{
    Agent, Limits, Quota, Tenant,
    names::{ContextTypeName, TenantId, TenantName},
    quota::Selector,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::tier::Allowance;

/// The resources that a decision about one of them looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenancy {
    /// Every Tenant.
    pub tenants: Vec<Tenant>,
    /// The Agents of the namespace in question.
    pub agents: Vec<Agent>,
    /// The Quotas of the namespace in question.
    pub quotas: Vec<Quota>,
}

/// The older first; of the same age by namespace and name.
#[must_use]
pub fn by_age(left: &ObjectMeta, right: &ObjectMeta) -> Ordering {
    let key = |meta: &ObjectMeta| {
        (meta.creation_timestamp.is_none(), meta.creation_timestamp.clone(), meta.namespace.clone(), meta.name.clone())
    };
    key(left).cmp(&key(right))
}

/// The namespace of a tenant's Agents and Quotas.
#[must_use]
pub fn namespace(tenant: &Tenant) -> Option<String> {
    let name = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).ok()?;
    Some(tenant.spec.namespace.clone().unwrap_or_else(|| name.namespace()))
}

/// What two tenants may not share.
fn claims(tenant: &Tenant) -> Option<(BTreeSet<String>, TenantId)> {
    let name = TenantName::parse(tenant.metadata.name.as_deref()?).ok()?;
    let spaces = [namespace(tenant)?, name.namespace(), name.hub_namespace()];
    Some((spaces.into(), TenantId::from_uid(tenant.metadata.uid.as_deref().unwrap_or_default())))
}

impl Tenancy {
    /// The tenant that a namespace belongs to: of two that claim it, the older.
    #[must_use]
    pub fn tenant_of(&self, space: &str) -> Option<&Tenant> {
        let claiming = self.tenants.iter().filter(|tenant| namespace(tenant).as_deref() == Some(space));
        claiming.filter(|tenant| self.collision(tenant).is_none()).min_by(|left, right| by_age(&left.metadata, &right.metadata))
    }

    /// An older tenant with one of the same derived names, and the name.
    #[must_use]
    pub fn collision(&self, tenant: &Tenant) -> Option<(&Tenant, String)> {
        let (spaces, id) = claims(tenant)?;
        let older = self.tenants.iter().filter(|other| {
            other.metadata.name != tenant.metadata.name && by_age(&other.metadata, &tenant.metadata) == Ordering::Less
        });
        older.into_iter().find_map(|other| {
            let (other_spaces, other_id) = claims(other)?;
            if id == other_id {
                return Some((other, format!("id {id}")));
            }
            spaces.intersection(&other_spaces).next().map(|space| (other, format!("namespace {space}")))
        })
    }

    /// The agents that count, the older first.
    #[must_use]
    pub fn agents_by_age(&self) -> Vec<&Agent> {
        let mut agents: Vec<&Agent> = self.agents.iter().filter(|agent| agent.metadata.deletion_timestamp.is_none()).collect();
        agents.sort_by(|left, right| by_age(&left.metadata, &right.metadata));
        agents
    }

    /// Limits of the tenant as a whole: the tier's, its own and the Quotas without a selector, the smallest of each.
    #[must_use]
    pub fn tenant_limits(&self, tenant: &Tenant, allowance: &Allowance) -> Limits {
        let own = tenant.spec.limits.clone().unwrap_or_default();
        let whole = self.quotas.iter().filter(|quota| quota.spec.agents().is_none());
        whole.fold(allowance.tenant.smallest(&own), |limits, quota| limits.smallest(&quota.spec.limits))
    }

    /// Limits of an agent before Quotas: the default, or the Tenant's own.
    #[must_use]
    pub fn agent_base(tenant: &Tenant, allowance: &Allowance) -> Limits {
        let own = tenant.spec.agent_limits.clone().unwrap_or_default();
        allowance.agent_default.overridden_by(&own).smallest(&allowance.agent_ceiling)
    }

    /// Limits of an agent: the smallest that apply.
    #[must_use]
    pub fn agent_limits(&self, tenant: &Tenant, agent: &Agent, allowance: &Allowance) -> Limits {
        let applying = self.quotas.iter().filter(|quota| quota.spec.agents().is_some_and(|selector| selects(selector, agent)));
        let limits = applying.fold(Self::agent_base(tenant, allowance), |limits, quota| limits.smallest(&quota.spec.limits));
        Limits { max_agents: None, ..limits }
    }

    /// The bound that leaves an agent out: how many are allowed, and by what. The older agents stay.
    #[must_use]
    pub fn crowded_out(&self, tenant: &Tenant, agent: &Agent, allowance: &Allowance) -> Option<(i64, String)> {
        let agents = self.agents_by_age();
        let place = |members: &mut dyn Iterator<Item = &&Agent>| {
            let place = members.enumerate().find(|(_, other)| other.metadata.name == agent.metadata.name).map(|(place, _)| place);
            place.and_then(|place| i64::try_from(place).ok())
        };
        if let (Some(most), Some(place)) = (self.tenant_limits(tenant, allowance).max_agents, place(&mut agents.iter()))
            && place >= most
        {
            return Some((most, format!("tenant {}", tenant.metadata.name.as_deref().unwrap_or_default())));
        }
        self.quotas.iter().find_map(|quota| {
            let (selector, most) = (quota.spec.agents()?, quota.spec.limits.max_agents?);
            let place = place(&mut agents.iter().filter(|other| selects(selector, other)))?;
            (place >= most).then(|| (most, format!("Quota {}", quota.metadata.name.as_deref().unwrap_or_default())))
        })
    }

    /// The context types that only agents name and that the tier has room for, in the order of the agents' age, and those that it
    /// has no room for.
    #[must_use]
    pub fn extra_types(&self, tenant: &Tenant, allowance: &Allowance) -> (Vec<ContextTypeName>, BTreeSet<String>) {
        let listed: BTreeSet<&str> = tenant.spec.context_types.iter().map(|listed| listed.name.as_str()).collect();
        let room = allowance.context_types.saturating_sub(listed.len());
        let (mut granted, mut refused) = (Vec::new(), BTreeSet::new());
        let agents = self.agents_by_age();
        let counted = agents.iter().filter(|agent| self.crowded_out(tenant, agent, allowance).is_none());
        for name in counted.flat_map(|agent| &agent.spec.publishes) {
            let Ok(parsed) = ContextTypeName::parse(name) else { continue };
            if listed.contains(name.as_str()) || granted.contains(&parsed) {
                continue;
            }
            if granted.len() < room {
                granted.push(parsed);
            } else {
                refused.insert(name.clone());
            }
        }
        (granted, refused)
    }
}

/// Whether an agent meets everything that a selector sets.
#[must_use]
pub fn selects(selector: &Selector, agent: &Agent) -> bool {
    let name = agent.metadata.name.clone().unwrap_or_default();
    let labels = agent.metadata.labels.clone().unwrap_or_default();
    selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
        && (selector.names.is_empty() || selector.names.contains(&name))
        && (selector.groups.is_empty() || selector.groups.iter().any(|group| agent.spec.groups.contains(group)))
        && (selector.types.is_empty() || agent.spec.r#type.as_ref().is_some_and(|kind| selector.types.contains(kind)))
}
