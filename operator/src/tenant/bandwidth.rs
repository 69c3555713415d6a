//! What a tenant may take of the brokers. The hub's own limits are finer, and come first: this holds where a hub does not, or where
//! someone else has its credentials.

use acb_crds::Tier;

use super::validate::ValidatedTenant;
use crate::plan::KafkaQuota;

/// Records are more than their payloads, and come in bursts.
const HEADROOM: u64 = 2;
/// Two records of the greatest size in a second, at the least: a quota must not hold up a hub that keeps its limits.
const LEAST: u64 = 4 * 1_048_576;

/// The quota of a tenant's user on each broker. Every replica reads all that is appended, and during a rollout there is one more.
#[must_use]
pub fn kafka_quota(tenant: &ValidatedTenant) -> KafkaQuota {
    let of_agents = || tenant.limits.max_agents?.checked_mul(tenant.agent_limits.bytes_per_minute?);
    let a_minute = tenant.limits.bytes_per_minute.or_else(of_agents).and_then(|bytes| u64::try_from(bytes).ok());
    let producer = a_minute.map(|bytes| (bytes / 60).saturating_mul(HEADROOM).max(LEAST));
    KafkaQuota {
        producer_bytes_per_second: producer,
        consumer_bytes_per_second: producer.map(|bytes| bytes.saturating_mul(u64::from(tenant.max_replicas) + 1)),
        request_percent: request_percent(tenant.tier),
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
