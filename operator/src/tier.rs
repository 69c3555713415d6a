//! What a tier gives. One table; a platform may raise or lower parts of it, and everything else is measured against the outcome.

use std::collections::BTreeMap;

use acb_crds::{AgentLimits, QuotaLimits, TenantLimits, Tier};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use serde_json::{Map, Value};

/// What a tenant of a tier may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Of the whole tenant; a Tenant's own limits and Quotas may only lower it.
    pub tenant: TenantLimits,
    /// Of an agent, where neither the Tenant nor a Quota says otherwise.
    pub agent_default: AgentLimits,
    /// The most that a Tenant may give an agent.
    pub agent_ceiling: AgentLimits,
    /// Context types, those that only agents name included.
    pub context_types: usize,
    /// Partitions of a context type.
    pub partitions: u32,
    /// Replicas of the hub.
    pub replicas: u32,
}

/// What a Quota may say at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaCeilings {
    /// Of one for the tenant as a whole.
    pub tenant: QuotaLimits,
    /// Of one that selects agents.
    pub agent: QuotaLimits,
}

impl Allowance {
    /// What a Quota may say at most.
    #[must_use]
    pub fn quota_ceilings(&self) -> QuotaCeilings {
        let agent = QuotaLimits { max_agents: self.tenant.max_agents, ..self.agent_ceiling.clone().into() };
        QuotaCeilings { tenant: self.tenant.clone().into(), agent }
    }
}

/// What a platform allows differently. Unset: as in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TierOverride {
    /// Of the whole tenant.
    #[serde(deserialize_with = "tenant_limits")]
    pub tenant: TenantLimits,
    /// Of an agent.
    #[serde(deserialize_with = "agent_limits")]
    pub agent_default: AgentLimits,
    /// The most of an agent.
    #[serde(deserialize_with = "agent_limits")]
    pub agent_ceiling: AgentLimits,
    /// Context types.
    pub context_types: Option<usize>,
    /// Partitions of a context type.
    pub partitions: Option<u32>,
    /// Replicas of the hub.
    pub replicas: Option<u32>,
}

fn tenant_limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TenantLimits, D::Error> {
    limits(deserializer, TenantLimits::FIELDS)
}

fn agent_limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AgentLimits, D::Error> {
    limits(deserializer, AgentLimits::FIELDS)
}

/// A limit with a slip in its name would not be there: what it was to bound would have no bound.
fn limits<'de, D: Deserializer<'de>, L: DeserializeOwned>(
    deserializer: D,
    known: &'static [&'static str],
) -> Result<L, D::Error> {
    let given = Map::deserialize(deserializer)?;
    if let Some(field) = given.keys().find(|field| !known.contains(&field.as_str())) {
        return Err(Error::unknown_field(field, known));
    }
    serde_json::from_value(Value::Object(given)).map_err(Error::custom)
}

/// Platform-wide overrides.
pub type TierOverrides = BTreeMap<Tier, TierOverride>;

const GB: i64 = 1_000_000_000;

/// Contexts that go with a gigabyte: of 10 kB each.
const CONTEXTS: i64 = 100_000;

/// Per agent: messages and bytes a minute, streams, bytes and contexts stored.
fn agent(times: i64) -> AgentLimits {
    AgentLimits {
        messages_per_minute: Some(1_000 * times),
        bytes_per_minute: Some(100_000_000 * times),
        concurrent_streams: Some(10 * times),
        storage_bytes: Some(GB * times),
        contexts: Some(CONTEXTS * times),
        ..AgentLimits::default()
    }
}

fn tenant(agents: i64, messages_per_month: i64, gigabytes: i64) -> TenantLimits {
    TenantLimits {
        max_agents: Some(agents),
        messages_per_month: Some(messages_per_month),
        storage_bytes: Some(gigabytes * GB),
        contexts: Some(gigabytes * CONTEXTS),
        ..TenantLimits::default()
    }
}

fn table(tier: Tier) -> Allowance {
    let (tenant, agent_ceiling, context_types, partitions, replicas) = match tier {
        Tier::Free => (tenant(3, 10_000, 1), agent(1), 5, 4, 1),
        Tier::Starter => (tenant(10, 500_000, 10), agent(1), 20, 8, 2),
        Tier::Professional => (tenant(50, 5_000_000, 100), agent(10), 50, 32, 5),
        Tier::Enterprise => (TenantLimits::default(), AgentLimits::default(), 100, 64, 50),
    };
    Allowance { tenant, agent_default: agent(1), agent_ceiling, context_types, partitions, replicas }
}

/// What a tenant of this tier may use on this platform.
#[must_use]
pub fn allowance(tier: Tier, overrides: &TierOverrides) -> Allowance {
    let base = table(tier);
    let Some(over) = overrides.get(&tier) else { return base };
    Allowance {
        tenant: base.tenant.overridden_by(&over.tenant),
        agent_default: base.agent_default.overridden_by(&over.agent_default),
        agent_ceiling: base.agent_ceiling.overridden_by(&over.agent_ceiling),
        context_types: over.context_types.unwrap_or(base.context_types),
        partitions: over.partitions.unwrap_or(base.partitions),
        replicas: over.replicas.unwrap_or(base.replicas),
    }
}
