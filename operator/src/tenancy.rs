//! Which resources belong together: a tenant, its namespace, its agents in order, its limits, its context types. Pure, and the same
//! for all three kinds, so that none of them disagrees with another.

mod accounts;
mod age;
mod tenants;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use acb_crds::{
    Agent, AgentLimits, Quota, Tenant, TenantLimits,
    names::{ContextTypeName, TenantName},
    quota::Selector,
    schema::Kind,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use self::accounts::Accounts;
pub(crate) use self::{accounts::account_of, tenants::Listed};
pub use self::{
    age::by_age,
    tenants::{Tenants, namespace},
};
use crate::{
    platform::Platform,
    tier::{self, Allowance},
};

/// The resources that a decision about one of them looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenancy {
    /// Every Tenant.
    pub tenants: Tenants,
    /// The Agents of the namespace in question.
    pub agents: Vec<Agent>,
    /// The Quotas of the namespace in question.
    pub quotas: Vec<Quota>,
    /// Of all these, what this version of the operator can't read: it is there, and nobody may take it for gone.
    pub unreadable: Vec<Unreadable>,
}

/// A resource whose spec a newer version wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// What it is.
    pub kind: Kind,
    /// Its name, its UID, its age.
    pub metadata: ObjectMeta,
    /// Of a Tenant: the namespace of its Agents and Quotas.
    pub space: Option<String>,
    /// Of an Agent: the ServiceAccount that it names, where this version knows.
    pub account: Option<String>,
}

impl Unreadable {
    /// One of which no more is known than that it is there.
    #[must_use]
    pub fn new(kind: Kind, metadata: ObjectMeta) -> Self {
        Self { kind, metadata, space: None, account: None }
    }

    /// What can be read of a resource. Fields may be elsewhere in the version that wrote it.
    #[must_use]
    pub fn of(kind: Kind, object: &Value) -> Option<Self> {
        let metadata: ObjectMeta = serde_json::from_value(object.get("metadata")?.clone()).ok()?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let own = || TenantName::parse(metadata.name.as_deref()?).ok().map(|name| name.namespace());
        let (space, account) = match kind {
            Kind::Tenant => (text("/spec/agentNamespace").or_else(own), None),
            Kind::Agent => (None, text("/spec/credentials/serviceAccount/name")),
            Kind::Quota => (None, None),
        };
        Some(Self { kind, metadata, space, account })
    }
}

impl Tenancy {
    /// Whether there is a resource of that kind that this version can't read.
    #[must_use]
    pub fn has_unreadable(&self, kind: Kind) -> bool {
        self.unreadable.iter().any(|unreadable| unreadable.kind == kind)
    }

    /// The Tenant that a namespace belongs to, where this version can't read it: of all that claim it, the oldest.
    #[must_use]
    pub fn unreadable_owner(&self, space: &str) -> Option<&Unreadable> {
        let owner = self.tenant_of(space);
        let mut claiming = self.unreadable.iter().filter(|unreadable| unreadable.space.as_deref() == Some(space));
        claiming.find(|unreadable| owner.is_none_or(|owner| by_age(&unreadable.metadata, &owner.metadata) == Ordering::Less))
    }

    /// The tenant that a namespace belongs to: of two that claim it, the older.
    #[must_use]
    pub fn tenant_of(&self, space: &str) -> Option<&Tenant> {
        let claiming = self.tenants.of_space(space);
        claiming.filter(|tenant| self.collision(tenant).is_none()).min_by(|left, right| by_age(&left.metadata, &right.metadata))
    }

    /// An older tenant with one of the same derived names, and the name.
    #[must_use]
    pub fn collision(&self, tenant: &Tenant) -> Option<(&Tenant, String)> {
        let own = Listed::from(tenant.clone());
        let own = own.claims()?;
        let older = self.tenants.listed().filter(|other| {
            let other = &other.tenant().metadata;
            other.name != tenant.metadata.name && by_age(other, &tenant.metadata) == Ordering::Less
        });
        older.into_iter().find_map(|other| {
            let claims = other.claims()?;
            if own.id == claims.id {
                return Some((other.tenant(), format!("id {}", own.id)));
            }
            own.spaces.intersection(&claims.spaces).next().map(|space| (other.tenant(), format!("namespace {space}")))
        })
    }

    /// The agents that count: those that are not on their way out.
    pub fn staying(&self) -> impl Iterator<Item = &Agent> {
        self.agents.iter().filter(|agent| agent.metadata.deletion_timestamp.is_none())
    }

    /// The agents that count, the older first.
    #[must_use]
    pub fn agents_by_age(&self) -> Vec<&Agent> {
        let mut agents: Vec<&Agent> = self.staying().collect();
        agents.sort_by(|left, right| by_age(&left.metadata, &right.metadata));
        agents
    }

    /// Limits of the tenant as a whole: the tier's, its own and the Quotas without a selector, the smallest of each.
    #[must_use]
    pub fn tenant_limits(&self, tenant: &Tenant, allowance: &Allowance) -> TenantLimits {
        let own = tenant.spec.limits.clone().unwrap_or_default();
        let whole = self.quotas.iter().filter(|quota| quota.spec.agents().is_none());
        whole.fold(allowance.tenant.smallest(&own), |limits, quota| limits.smallest(&quota.spec.limits.of_tenant()))
    }

    /// Limits of an agent before Quotas: the default, or the Tenant's own.
    #[must_use]
    pub fn agent_base(tenant: &Tenant, allowance: &Allowance) -> AgentLimits {
        let own = tenant.spec.agent_limits.clone().unwrap_or_default();
        allowance.agent_default.overridden_by(&own).smallest(&allowance.agent_ceiling)
    }

    /// Limits of each agent, in their order here: the smallest that apply.
    fn agent_limits(&self, tenant: &Tenant, allowance: &Allowance) -> Vec<AgentLimits> {
        let mut limits = vec![Self::agent_base(tenant, allowance); self.agents.len()];
        for quota in &self.quotas {
            let Some(selector) = quota.spec.agents() else { continue };
            let (is_selected, bound) = (selection(selector), quota.spec.limits.of_agent());
            for (_, limits) in self.agents.iter().zip(&mut limits).filter(|(agent, _)| is_selected(agent)) {
                *limits = limits.smallest(&bound);
            }
        }
        limits
    }

    /// The agents that a bound leaves out, by name: how many are allowed, and by what. The older agents stay.
    fn crowded_out<'a>(&'a self, tenant: &Tenant, allowance: &Allowance) -> BTreeMap<&'a str, (i64, String)> {
        let agents = self.agents_by_age();
        let mut left_out = BTreeMap::new();
        let mut leave_out = |agent: &'a Agent, most: i64, by: &str| {
            left_out.entry(name_of(agent)).or_insert_with(|| (most, by.to_owned()));
        };
        // One that can't be read takes its place all the same, by its age. Whether a selector means it is not known: it is counted.
        let unreadable = self.unreadable.iter().filter(|unreadable| unreadable.kind == Kind::Agent);
        let mut unreadable: Vec<&ObjectMeta> = unreadable.map(|unreadable| &unreadable.metadata).collect();
        unreadable.sort_by(|left, right| by_age(left, right));
        let has_room = |place: usize, agent: &Agent, most: i64| {
            let is_older = |other: &&&ObjectMeta| by_age(other, &agent.metadata) == Ordering::Less;
            place + unreadable.iter().take_while(is_older).count() < usize::try_from(most).unwrap_or_default()
        };
        if let Some(most) = self.tenant_limits(tenant, allowance).max_agents {
            let by = format!("tenant {}", tenant.metadata.name.as_deref().unwrap_or_default());
            let crowded_out = agents.iter().enumerate().filter(|(place, agent)| !has_room(*place, agent, most));
            crowded_out.for_each(|(_, agent)| leave_out(agent, most, &by));
        }
        for quota in &self.quotas {
            if let (Some(selector), Some(most)) = (quota.spec.agents(), quota.spec.limits.max_agents) {
                let is_selected = selection(selector);
                let by = format!("Quota {}", quota.metadata.name.as_deref().unwrap_or_default());
                let selected = agents.iter().filter(|agent| is_selected(agent));
                let crowded_out = selected.enumerate().filter(|(place, agent)| !has_room(*place, agent, most));
                crowded_out.for_each(|(_, agent)| leave_out(agent, most, &by));
            }
        }
        left_out
    }

    /// The context types that only agents name and that the tier has room for, in the order of the agents' age, and those that it
    /// has no room for. One that has a topic takes its place, also where nobody asks for it any more: or whoever asks for another each
    /// time would have topics without bound.
    #[must_use]
    pub fn extra_types(
        &self,
        tenant: &Tenant,
        allowance: &Allowance,
        existing: &BTreeSet<String>,
    ) -> (Vec<ContextTypeName>, BTreeSet<String>) {
        let listed: BTreeSet<&str> = tenant.spec.context_types.iter().map(|listed| listed.name.as_str()).collect();
        let room = allowance.context_types.saturating_sub(listed.len());
        let mut places: BTreeSet<&str> = existing.iter().map(String::as_str).chain(listed.iter().copied()).collect();
        let (mut granted, mut refused) = (Vec::new(), BTreeSet::new());
        let (agents, left_out) = (self.agents_by_age(), self.crowded_out(tenant, allowance));
        let counted = agents.iter().filter(|agent| !left_out.contains_key(name_of(agent)));
        for name in counted.flat_map(|agent| &agent.spec.publishes) {
            let Ok(parsed) = ContextTypeName::parse(name) else { continue };
            if listed.contains(name.as_str()) || granted.contains(&parsed) {
                continue;
            }
            let has_place = places.contains(name.as_str()) || places.len() < allowance.context_types;
            if granted.len() < room && has_place {
                places.insert(name);
                granted.push(parsed);
            } else {
                refused.insert(name.clone());
            }
        }
        (granted, refused)
    }

    /// Of the context types that have a topic, those that no resource asks for, granted or not.
    #[must_use]
    pub fn idle_types(&self, tenant: &Tenant, existing: &BTreeSet<String>) -> Vec<String> {
        let listed = tenant.spec.context_types.iter().map(|listed| &listed.name);
        let asked: BTreeSet<&String> = listed.chain(self.staying().flat_map(|agent| &agent.spec.publishes)).collect();
        existing.iter().filter(|name| !asked.contains(name)).cloned().collect()
    }
}

/// A tenancy, and what follows from the whole of it for each of its Agents and Quotas. It is worked out once, and shared: it takes a look
/// at every Agent, which is too much to do again for every Agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    tenancy: Tenancy,
    owner: Option<Owner>,
    operator_namespace: String,
    has_service_accounts: bool,
    accounts: Accounts,
}

/// The tenant that a namespace belongs to, and what it lets the Agents there have.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    namespace: String,
    /// Of two that claim the namespace, the older.
    pub tenant: Tenant,
    /// What its tier gives.
    pub allowance: Allowance,
    /// Limits of the tenant as a whole.
    pub limits: TenantLimits,
    /// Context types that only agents name and that the tier has no room for.
    pub refused_types: BTreeSet<String>,
    /// Context types that nobody asks for any more, and that take room until their topics go.
    pub idle_types: Vec<String>,
    standings: BTreeMap<String, Standing>,
}

/// What holds for one Agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// The smallest limits that apply.
    pub limits: AgentLimits,
    /// The bound that leaves it out: how many are allowed, and by what.
    pub crowded_out: Option<(i64, String)>,
}

impl Census {
    /// Works it out for a namespace, whose Agents and Quotas the tenancy has.
    #[must_use]
    pub fn of(namespace: &str, tenancy: Tenancy, platform: &Platform) -> Self {
        let owner = tenancy.tenant_of(namespace).map(|tenant| {
            let allowance = tier::allowance(tenant.spec.tier, &platform.tiers);
            let mut left_out = tenancy.crowded_out(tenant, &allowance);
            let standings = tenancy.agents.iter().zip(tenancy.agent_limits(tenant, &allowance)).map(|(agent, limits)| {
                let name = name_of(agent);
                (name.to_owned(), Standing { limits, crowded_out: left_out.remove(name) })
            });
            Owner {
                namespace: namespace.to_owned(),
                tenant: tenant.clone(),
                limits: tenancy.tenant_limits(tenant, &allowance),
                refused_types: tenancy.extra_types(tenant, &allowance, &BTreeSet::new()).1,
                idle_types: Vec::new(),
                standings: standings.collect(),
                allowance,
            }
        });
        let readable = tenancy.staying().map(|agent| (&agent.metadata, account_of(agent)));
        let unreadable = tenancy.unreadable.iter().map(|other| (&other.metadata, other.account.as_deref()));
        let accounts = Accounts::of(readable.chain(unreadable));
        let Platform { operator_namespace, has_service_accounts, .. } = platform;
        Self {
            accounts,
            tenancy,
            owner,
            operator_namespace: operator_namespace.clone(),
            has_service_accounts: *has_service_accounts,
        }
    }

    /// The same, where it is known which context types have a topic.
    #[must_use]
    pub fn with_types(mut self, existing: &BTreeSet<String>) -> Self {
        if let Some(owner) = &mut self.owner {
            owner.refused_types = self.tenancy.extra_types(&owner.tenant, &owner.allowance, existing).1;
            owner.idle_types = self.tenancy.idle_types(&owner.tenant, existing);
        }
        self
    }

    /// Where the authorities of tenants are.
    #[must_use]
    pub fn operator_namespace(&self) -> &str {
        &self.operator_namespace
    }

    /// Whether there are Kubernetes ServiceAccounts that agents can prove themselves with.
    #[must_use]
    pub fn has_service_accounts(&self) -> bool {
        self.has_service_accounts
    }

    /// The name of the Agent that a ServiceAccount proves, where that is an older one than this.
    pub(crate) fn older_holder(&self, account: &str, agent: &Agent) -> Option<&str> {
        self.accounts.older(account, &agent.metadata)
    }

    /// What it was worked out from.
    #[must_use]
    pub fn tenancy(&self) -> &Tenancy {
        &self.tenancy
    }

    /// The tenant that a namespace belongs to; `None`: none, or another namespace's census.
    #[must_use]
    pub fn owner(&self, namespace: &str) -> Option<&Owner> {
        self.owner.as_ref().filter(|owner| owner.namespace == namespace)
    }
}

impl Owner {
    /// What holds for an Agent.
    #[must_use]
    pub fn standing(&self, agent: &Agent) -> Standing {
        self.standings.get(name_of(agent)).cloned().unwrap_or_default()
    }
}

fn name_of(agent: &Agent) -> &str {
    agent.metadata.name.as_deref().unwrap_or_default()
}

/// Whether an agent meets everything that a selector sets: to be asked about many.
pub fn selection(selector: &Selector) -> impl Fn(&Agent) -> bool {
    let [names, groups, types]: [BTreeSet<&str>; 3] =
        [&selector.names, &selector.groups, &selector.types].map(|values| values.iter().map(String::as_str).collect());
    let unlabelled = BTreeMap::new();
    move |agent| {
        let labels = agent.metadata.labels.as_ref().unwrap_or(&unlabelled);
        selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && selector.match_expressions.iter().all(|requirement| requirement.is_met_by(labels))
            && (names.is_empty() || names.contains(name_of(agent)))
            && (groups.is_empty() || agent.spec.groups.iter().any(|group| groups.contains(group.as_str())))
            && (types.is_empty() || agent.spec.r#type.as_deref().is_some_and(|kind| types.contains(kind)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::{Value, json};

    use super::*;
    use crate::platform::PlatformPostgres;

    fn object<T: serde::de::DeserializeOwned>(kind: &str, name: &str, age: u32, spec: &Value) -> T {
        let metadata = json!({
            "name": name, "namespace": "acb-acme", "uid": name, "labels": {"of": name},
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", 59 - age),
        });
        serde_json::from_value(json!({"apiVersion": acb_crds::API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn a_namespace_is_the_oldest_tenants_whoever_can_read_it() {
        let spec = json!({"tier": "Free", "agentNamespace": "team"});
        let metadata = |age: u32| object::<Tenant>("Tenant", "newer", age, &spec).metadata;
        for (age, is_its) in [(5, true), (1, false)] {
            let unreadable = Unreadable { space: Some("team".into()), ..Unreadable::new(Kind::Tenant, metadata(age)) };
            let tenants = vec![object("Tenant", "acme", 3, &spec)].into();
            let mut tenancy = Tenancy { tenants, unreadable: vec![unreadable], ..Tenancy::default() };
            assert_eq!(tenancy.unreadable_owner("team").is_some(), is_its);
            tenancy.tenants = Tenants::default();
            assert!(tenancy.unreadable_owner("team").is_some() && tenancy.unreadable_owner("other").is_none());
        }
    }

    #[test]
    fn a_census_says_of_each_agent_what_leaves_it_out_and_the_smallest_limits() {
        let agent = |name: &str, age: u32, of: &str| object("Agent", name, age, &json!({"role": "Observer", "type": of}));
        let tenancy = Tenancy {
            tenants: vec![object("Tenant", "acme", 0, &json!({"tier": "Free", "limits": {"maxAgents": 3}}))].into(),
            // By age: d, c, b, a.
            agents: vec![agent("a", 1, "x"), agent("b", 2, "y"), agent("c", 3, "x"), agent("d", 4, "x")],
            unreadable: Vec::new(),
            quotas: vec![
                object(
                    "Quota",
                    "few",
                    0,
                    &json!({"selector": {"types": ["x"]}, "limits": {"maxAgents": 1, "messagesPerMinute": 7}}),
                ),
                object(
                    "Quota",
                    "slow",
                    0,
                    &json!({"selector": {"matchLabels": {"of": "d"}}, "limits": {"messagesPerMinute": 5}}),
                ),
            ],
        };
        let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
        let census = Census::of("acb-acme", tenancy, &Platform::new(postgres));
        assert!(census.owner("acb-globex").is_none());
        let owner = census.owner("acb-acme").unwrap();
        let found = census.tenancy().agents.iter().map(|agent| {
            let standing = owner.standing(agent);
            (
                standing.crowded_out.map_or_else(String::new, |(most, by)| format!("{most} by {by}")),
                standing.limits.messages_per_minute,
            )
        });
        let found: Vec<(String, Option<i64>)> = found.collect();
        let expected = [("3 by tenant acme", Some(7)), ("", Some(1000)), ("1 by Quota few", Some(7)), ("", Some(5))]
            .map(|(by, most)| (by.to_owned(), most));
        assert_eq!(found, expected);

        // An older one that can't be read may be of that type: nobody is let in by that.
        let mut tenancy = census.tenancy().clone();
        let metadata = object::<Agent>("Agent", "e", 5, &json!({"role": "Observer"})).metadata;
        tenancy.unreadable = vec![Unreadable::new(Kind::Agent, metadata)];
        let platform =
            Platform::new(PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() });
        let census = Census::of("acb-acme", tenancy, &platform);
        let oldest = census.tenancy().agents.iter().find(|agent| name_of(agent) == "d").unwrap();
        let (_, by) = census.owner("acb-acme").unwrap().standing(oldest).crowded_out.unwrap();
        assert_eq!(by, "Quota few");
    }
}
