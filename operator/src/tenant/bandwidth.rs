//! What a tenant may take of the brokers. The hub's own limits are finer, and come first: this holds where a hub does not, or where
//! someone else has its credentials.

use acb_crds::{AgentLimits, TenantLimits, Tier};

use super::validate::ValidatedTenant;
use crate::plan::KafkaQuota;

/// Records are more than their payloads, and come in bursts.
const HEADROOM: u64 = 2;
/// Two records of the greatest size in a second, at the least: a quota must not hold up a hub that keeps its limits.
const LEAST: u64 = 4 * 1_048_576;

/// The quota of a tenant's user on each broker. Every replica reads all that is appended, and during a rollout there is one more.
#[must_use]
pub fn kafka_quota(tenant: &ValidatedTenant) -> KafkaQuota {
    let producer = producer(&tenant.limits, &tenant.agent_limits);
    KafkaQuota {
        producer_bytes_per_second: producer,
        consumer_bytes_per_second: producer.map(|bytes| bytes.saturating_mul(u64::from(tenant.max_replicas) + 1)),
        request_percent: request_percent(tenant.tier),
    }
}

/// Bytes a second that a tenant may append, with these limits of it as a whole and of each agent.
#[must_use]
pub(super) fn producer(limits: &TenantLimits, agent_limits: &AgentLimits) -> Option<u64> {
    let of_agents = || limits.max_agents?.checked_mul(agent_limits.bytes_per_minute?);
    let a_minute = limits.bytes_per_minute.or_else(of_agents).and_then(|bytes| u64::try_from(bytes).ok());
    a_minute.map(|bytes| (bytes / 60).saturating_mul(HEADROOM).max(LEAST))
}

/// The smaller of each.
#[must_use]
pub(super) fn smaller(left: KafkaQuota, right: KafkaQuota) -> KafkaQuota {
    let smaller = |left: Option<u64>, right: Option<u64>| left.into_iter().chain(right).min();
    KafkaQuota {
        producer_bytes_per_second: smaller(left.producer_bytes_per_second, right.producer_bytes_per_second),
        consumer_bytes_per_second: smaller(left.consumer_bytes_per_second, right.consumer_bytes_per_second),
        request_percent: smaller(left.request_percent, right.request_percent),
    }
}

fn request_percent(tier: Tier) -> Option<u64> {
    match tier {
        Tier::Free => Some(100),
        Tier::Starter => Some(200),
        Tier::Professional => Some(400),
        Tier::Enterprise => None,
    }
}
