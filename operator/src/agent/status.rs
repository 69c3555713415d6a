//! What became of an Agent, for its status.

use acb_crds::{Agent, AgentStatus, agent::AgentEffective};

use super::{World, validate::ValidatedAgent};
use crate::{
    condition::{self, Outcome},
    tenant::newest,
};

/// The status after a reconcile. `now` is RFC 3339.
#[must_use]
pub fn status(agent: &Agent, validated: Option<&ValidatedAgent>, world: &World, outcome: &Outcome, now: &str) -> AgentStatus {
    let previous = agent.status.clone().unwrap_or_default();
    let not_acted_on = validated.map(|validated| validated.not_acted_on.clone()).unwrap_or_default();
    let suspended = validated.is_some_and(|validated| validated.spec.suspend.unwrap_or(false));
    let generation = agent.metadata.generation;
    let conditions = condition::conditions(outcome, suspended, &not_acted_on);
    let mut status = AgentStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        fields_not_acted_on: not_acted_on,
        ..previous
    };
    if let Some(validated) = validated {
        let secret = newest(&world.secrets, &validated.namespace, &validated.name.api_key_secret());
        status.tenant = Some(validated.tenant.to_string());
        status.api_key_secret = Some(secret.object_name());
        status.effective = Some(AgentEffective { limits: validated.limits.clone() });
    }
    status
}
