//! What takes something away: a suspension, agents that nobody stands for any more, limits that got smaller. It is done also while the
//! Tenant is stalled, and before anything that an API server may refuse. Pure.

use acb_crds::{Tenant, TenantLimits, names::TenantName};
use serde_json::json;

use super::{World, bandwidth, oidc, orphan, validate};
use crate::{
    plan::{KafkaQuota, KafkaStep, Plan, PostgresStep, Step, TenantRow},
    platform::Platform,
    tenancy::Tenancy,
    tier,
};

/// What has to be taken away from a Tenant that can't be provisioned as it is written. What it may have more of stays as it was.
#[must_use]
pub(super) fn restraint(tenant: &Tenant, world: &World, platform: &Platform) -> Plan {
    let mut plan = Plan::default();
    let Ok(name) = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()) else { return plan };
    // Without a row of its own nobody can be its agent.
    let Some(row) = world.row().filter(|row| row.name == name.as_str()) else { return plan };
    let identity = world.identity(tenant);
    let known: TenantLimits = serde_json::from_value(row.limits.clone()).unwrap_or_default();
    let mut operation_limits = row.operation_limits.clone();
    for (operation, most) in validate::operation_limits(tenant) {
        let known = operation_limits.entry(operation).or_insert(most);
        *known = most.min(*known);
    }
    let limits = known.smallest(&validate::effective_limits(tenant, world, platform));
    let suspended = row.suspended || tenant.spec.suspend.unwrap_or(false);
    let issuer = row.issuer.as_ref().and_then(|known| world.issuer(Some(known)));
    let oidc_issuers = oidc::still_trusted(&row.oidc_issuers, tenant, platform);
    let is_less = limits != known || operation_limits != row.operation_limits || suspended != row.suspended;
    if is_less || issuer != row.issuer || oidc_issuers != row.oidc_issuers {
        let row = TenantRow { suspended, limits: json!(limits), operation_limits, issuer, oidc_issuers, ..row.clone() };
        plan.steps.push(Step::Postgres(PostgresStep::ProjectTenant { tenant_id: identity.id.hex(), tenant: row }));
    }
    plan.steps.extend(orphan::suspensions(&identity, world));
    let Some(kafka) = world.kafka.known().filter(|kafka| platform.has_kafka() && kafka.has_user) else { return plan };
    let agent_limits = Tenancy::agent_base(tenant, &tier::allowance(tenant.spec.tier, &platform.tiers));
    let producer_bytes_per_second = bandwidth::producer(&limits, &agent_limits);
    let quota = bandwidth::smaller(kafka.quota, KafkaQuota { producer_bytes_per_second, ..KafkaQuota::default() });
    if quota != kafka.quota {
        plan.steps.push(Step::Kafka(KafkaStep::EnsureQuota { username: identity.id.login(), quota }));
    }
    plan
}
