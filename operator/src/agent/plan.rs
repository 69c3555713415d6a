//! A [`ValidatedAgent`] and the world become a plan.

use acb_crds::{Agent, names::objects, schema::Kind};
use serde_json::json;

use super::{
    StoredApiKey, World,
    restraint::restraint,
    rotation, service_account,
    validate::{ValidatedAgent, validate},
};
use crate::{
    plan::{AgentRow, ApiKeyRef, KubernetesStep, Plan, PostgresStep, SecretContent, SecretRef, Step},
    tenant::{newest, orphan::shut_out},
};

/// What has to be there before an Agent can be provisioned. Empty where it is.
#[must_use]
pub fn waits_for(agent: &ValidatedAgent, world: &World) -> Option<String> {
    // What such a Quota allows is not known: who is not let in yet could be one too many.
    let is_let_in = world.row.as_ref().is_some_and(|row| !row.suspended);
    if !is_let_in && world.census.tenancy().has_unreadable(Kind::Quota) {
        return Some(
            "waiting for a Quota of this namespace that this version of the operator can't read: upgrade it, or mend the Quota"
                .to_owned(),
        );
    }
    let keys = newest(&world.secrets, &agent.tenant.hub_namespace(), objects::HUB_KEYS);
    (!world.tenant_projected || !world.secrets.contains(&keys))
        .then(|| format!("waiting for tenant {} to be provisioned: see its status", agent.tenant))
}

/// What has to be there before an Agent that is provisioned can log in as its spec says. Empty where it is.
#[must_use]
pub fn lacks(agent: &ValidatedAgent, world: &World) -> Option<String> {
    let name = agent.account_name.as_ref()?;
    if agent.account.is_none() {
        let (namespace, field) = (&agent.namespace, service_account::FIELD);
        return Some(format!("waiting for ServiceAccount {namespace}/{name}: make it, or take it out of {field}"));
    }
    let why = "waiting for the keys that the cluster's tokens are checked with: the operator asks the API server for them, and its log has why it \
               has none";
    (!world.has_issuer).then(|| why.to_owned())
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
        metadata: json!(spec.attributes),
        role: spec.role.stored().to_owned(),
        publishes: spec.publishes.clone(),
        subscribes: spec.subscribes.clone(),
        limits: json!(agent.limits),
        suspended: spec.suspend.unwrap_or(false),
        service_account: agent.account.clone(),
    }
}

/// What has to be done for this Agent. While it [waits](waits_for) that is only what takes something away.
#[must_use]
pub fn plan(agent: &ValidatedAgent, world: &World) -> Plan {
    let tenant_id = agent.tenant_id.hex();
    let secret = rotation::secret(agent, world);
    let authority = newest(&world.secrets, world.census.operator_namespace(), &agent.tenant_id.authority_secret());
    let mut plan = Plan::default();
    if agent.deleting {
        if world.row.is_some() {
            plan.steps.push(Step::Postgres(PostgresStep::RemoveAgent { tenant_id, agent_id: agent.uid.clone() }));
        }
        plan.steps.extend(own_keys(world, &secret));
        return plan;
    }
    if waits_for(agent, world).is_some() {
        plan.steps.extend(restraint(agent, world));
        return plan;
    }
    let row = agent_row(agent);
    if !agent.has_api_key {
        let has_key = world.api_key != StoredApiKey::Absent || world.has_replaced_key;
        if has_key || world.row.as_ref() != Some(&row) {
            plan.steps.push(Step::Postgres(PostgresStep::ProjectAgent { tenant_id, agent: row, api_key: None }));
        }
        plan.steps.extend(own_keys(world, &secret));
        return plan;
    }
    let missing = !world.secrets.contains(&secret);
    if missing {
        // Another Secret may be in the way of this one.
        plan.steps.extend(restraint(agent, world));
        let (content, asked) = (SecretContent::ApiKey { authority: authority.clone() }, agent.rotate.clone());
        plan.steps.push(Step::Kubernetes(KubernetesStep::EnsureSecret { secret: secret.clone(), content, asked }));
    }
    let before = rotation::before(agent, world, &secret);
    // Who removes the Secret of a key that was replaced wants that one to end now.
    let is_cut_off = world.has_replaced_key && before.is_none();
    if missing || is_cut_off || world.api_key != StoredApiKey::Current || world.row.as_ref() != Some(&row) {
        let keys = newest(&world.secrets, &agent.tenant.hub_namespace(), objects::HUB_KEYS);
        let api_key = Some(ApiKeyRef { secret, keys, authority, before });
        plan.steps.push(Step::Postgres(PostgresStep::ProjectAgent { tenant_id, agent: row, api_key }));
    }
    if plan.steps.is_empty() {
        plan.steps.extend(world.ended_keys.iter().map(removal));
    }
    plan
}

/// Removes the Secrets of its keys, of all generations.
fn own_keys<'a>(world: &'a World, secret: &'a SecretRef) -> impl Iterator<Item = Step> + 'a {
    world.secrets.iter().filter(move |known| known.namespace == secret.namespace && known.name == secret.name).map(removal)
}

fn removal(secret: &SecretRef) -> Step {
    Step::Kubernetes(KubernetesStep::Delete {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        namespace: secret.namespace.clone(),
        name: secret.object_name(),
    })
}

/// What is taken away from an Agent, by what it is and may be now. PostgreSQL alone has to be there for it: it waits for no other system.
#[must_use]
pub fn taken_away(agent: &Agent, world: &World) -> Plan {
    match validate(agent, world) {
        Ok(validated) if validated.deleting => Plan::default(),
        Ok(validated) => Plan { steps: restraint(&validated, world).into_iter().collect() },
        Err(_) => world.tenant_id.map(|id| suspension(&id.hex(), world)).unwrap_or_default(),
    }
}

/// What has to be done for an Agent that was provisioned, and that may no longer be: it is refused, and keeps its mailbox. `tenant_id`
/// is its tenant's.
#[must_use]
pub fn suspension(tenant_id: &str, world: &World) -> Plan {
    let mut plan = Plan::default();
    if let Some(row) =
        world.row.as_ref().filter(|row| !row.suspended || row.service_account.is_some() || world.api_key != StoredApiKey::Absent)
    {
        plan.steps.push(shut_out(tenant_id, row));
    }
    plan
}
