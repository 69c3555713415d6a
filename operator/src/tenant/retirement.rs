//! Topics of context types that no resource asks for any more. Such a topic is marked in PostgreSQL, and goes once its retention has passed since:
//! then nothing is left in it that it would have kept. Until then it counts against the tier's allowance, and whoever asks for the type has it
//! back. Pure.

use std::collections::BTreeSet;

use acb_crds::{schema::Kind, tenant::ContextTypeStatus};

use super::{World, validate::ValidatedTenant};
use crate::{
    plan::{FOR_EVER, KafkaStep, PostgresStep, Step, TopicSpec},
    platform::Platform,
};

/// Those that no resource asks for. None where that is not known: an Agent that this version can't read may.
fn idle<'a>(tenant: &ValidatedTenant, world: &'a World, platform: &Platform) -> Vec<(&'a str, &'a TopicSpec)> {
    if world.tenancy.has_unreadable(Kind::Agent) || !world.away().is_empty() {
        return Vec::new();
    }
    let granted = tenant.context_types.iter().map(|row| row.name.as_str());
    // What is refused, or of an Agent that is stalled or suspended, is asked for.
    let asked: BTreeSet<&str> =
        granted.chain(world.tenancy.staying().flat_map(|agent| agent.spec.publishes.iter().map(String::as_str))).collect();
    world.context_topics(&tenant.name, platform).filter(|(name, _)| !asked.contains(name)).collect()
}

/// What there is to do about them now.
#[must_use]
pub(super) fn steps(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Vec<Step> {
    let Some(observed) = world.postgres.known().filter(|_| world.away().is_empty()) else { return Vec::new() };
    let tenant_id = tenant.id.hex();
    let idle = idle(tenant, world, platform);
    let mut steps = Vec::new();
    for (_, spec) in &idle {
        let topic = spec.name.clone();
        match observed.retired.get(&topic) {
            None => steps.push(Step::Postgres(PostgresStep::RetireTopic {
                tenant_id: tenant_id.clone(),
                topic,
                retention_seconds: spec.retention_seconds,
            })),
            // Someone keeps it for longer since.
            Some(retired) if retired.retention_seconds < spec.retention_seconds.min(FOR_EVER) => {
                steps.push(Step::Postgres(PostgresStep::RetireTopic {
                    tenant_id: tenant_id.clone(),
                    topic,
                    retention_seconds: spec.retention_seconds,
                }));
            }
            Some(retired) if !retired.is_over => {}
            Some(_) if platform.has_kafka() => steps.push(Step::Kafka(KafkaStep::RemoveTopic { name: topic })),
            Some(_) => steps.push(Step::Postgres(PostgresStep::RemoveTopic { tenant_id: tenant_id.clone(), topic })),
        }
    }
    let is_idle = |topic: &String| idle.iter().any(|(_, spec)| spec.name == *topic);
    // Where it is not known whether anybody asks for it, its time stands still: it begins anew.
    let revived = observed.retired.keys().filter(|topic| !is_idle(topic));
    steps.extend(
        revived.map(|topic| Step::Postgres(PostgresStep::ReviveTopic { tenant_id: tenant_id.clone(), topic: topic.clone() })),
    );
    steps
}

/// For the status: what is still there, and since when nobody asks for it.
#[must_use]
pub fn retired(tenant: &ValidatedTenant, world: &World, platform: &Platform) -> Vec<ContextTypeStatus> {
    let since = |topic: &str| {
        let observed = world.postgres.known()?;
        observed.retired.get(topic).map(|retired| retired.since.clone())
    };
    let all = idle(tenant, world, platform).into_iter().map(|(name, spec)| ContextTypeStatus {
        name: name.to_owned(),
        origin: "Nobody".to_owned(),
        topic: spec.name.clone(),
        partitions: spec.partitions,
        unwanted_since: since(&spec.name),
    });
    all.collect()
}
