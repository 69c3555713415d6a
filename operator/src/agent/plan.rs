//! A [`ValidatedAgent`] and the world become a plan.

use acb_crds::{Retention, names::objects};
use serde_json::json;

use super::{StoredApiKey, World, validate::ValidatedAgent};
use crate::{
    plan::{AgentRow, ApiKeyRef, KubernetesStep, Plan, PostgresStep, SecretContent, Step},
    tenant::newest,
};

/// The overlap of a rotation policy that names none: a day.
const DEFAULT_OVERLAP_SECONDS: u64 = 24 * 60 * 60;

/// What has to be there before an Agent can be provisioned. Empty where it is.
#[must_use]
pub fn waits_for(agent: &ValidatedAgent, world: &World) -> Option<String> {
    let keys = newest(&world.secrets, &agent.tenant.hub_namespace(), objects::HUB_KEYS);
    (!world.tenant_projected || !world.secrets.contains(&keys))
        .then(|| format!("waiting for tenant {} to be provisioned: see its status", agent.tenant))
}

/// The agent's row as it should be.
#[must_use]
pub fn agent_row(agent: &ValidatedAgent) -> AgentRow {
    let spec = &agent.spec;
    let mut groups = spec.groups.clone();
    groups.sort();
    AgentRow {
        id: agent.uid.clone(),
        name: agent.name.to_string(),
        r#type: spec.r#type.clone().unwrap_or_default(),
        capabilities: spec.capabilities.clone(),
        groups,
        location: spec.location.clone().unwrap_or_default(),
        metadata: json!(spec.metadata),
        role: spec.role.as_str().to_owned(),
        publishes: spec.publishes.clone(),
        subscribes: spec.subscribes.clone(),
        limits: json!(agent.limits),
        suspended: spec.suspend.unwrap_or(false),
    }
}

/// How long a replaced key still works. Without a rotation policy a new key is there because somebody removed the old one's Secret: that
/// one must not live on.
fn overlap_seconds(agent: &ValidatedAgent) -> u64 {
    let rotation = agent.spec.credentials.as_ref().and_then(|credentials| credentials.rotation.as_ref());
    rotation.map_or(0, |rotation| rotation.overlap.map_or(DEFAULT_OVERLAP_SECONDS, Retention::seconds))
}

/// What has to be done for this Agent. Empty, too, while it [waits](waits_for).
#[must_use]
pub fn plan(agent: &ValidatedAgent, world: &World) -> Plan {
    let tenant_id = agent.tenant_id.hex();
    let secret = newest(&world.secrets, &agent.namespace, &agent.name.api_key_secret());
    let mut plan = Plan::default();
    if agent.deleting {
        if world.row.is_some() {
            plan.steps.push(Step::Postgres(PostgresStep::RemoveAgent { tenant_id, agent_id: agent.uid.clone() }));
        }
        let own = world.secrets.iter().filter(|known| known.namespace == secret.namespace && known.name == secret.name);
        plan.steps.extend(own.map(|secret| {
            Step::Kubernetes(KubernetesStep::Delete {
                api_version: "v1".to_owned(),
                kind: "Secret".to_owned(),
                namespace: secret.namespace.clone(),
                name: secret.object_name(),
            })
        }));
        return plan;
    }
    if waits_for(agent, world).is_some() {
        return plan;
    }
    let missing = !world.secrets.contains(&secret);
    if missing {
        plan.steps
            .push(Step::Kubernetes(KubernetesStep::EnsureSecret { secret: secret.clone(), content: SecretContent::ApiKey }));
    }
    let row = agent_row(agent);
    if missing || world.api_key != StoredApiKey::Current || world.row.as_ref() != Some(&row) {
        let keys = newest(&world.secrets, &agent.tenant.hub_namespace(), objects::HUB_KEYS);
        let api_key = Some(ApiKeyRef { secret, keys, overlap_seconds: overlap_seconds(agent) });
        plan.steps.push(Step::Postgres(PostgresStep::ProjectAgent { tenant_id, agent: row, api_key }));
    }
    plan
}

/// What has to be done for an Agent that was provisioned, and that may no longer be: it is refused, and keeps its mailbox. `tenant_id`
/// is its tenant's.
#[must_use]
pub fn suspension(tenant_id: &str, world: &World) -> Plan {
    let mut plan = Plan::default();
    if let Some(row) = world.row.as_ref().filter(|row| !row.suspended || world.api_key != StoredApiKey::Absent) {
        let agent = AgentRow { suspended: true, ..row.clone() };
        plan.steps.push(Step::Postgres(PostgresStep::ProjectAgent { tenant_id: tenant_id.to_owned(), agent, api_key: None }));
    }
    plan
}
