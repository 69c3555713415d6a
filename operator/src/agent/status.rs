//! What became of an Agent, for its status.

use acb_crds::{Agent, AgentStatus, agent::AgentEffective};

use super::{World, rotation, validate::ValidatedAgent};
use crate::{
    condition::{self, Basis, Outcome},
    tenant::newest,
};

/// The status after a reconcile. `now` is RFC 3339.
#[must_use]
pub fn status(agent: &Agent, validated: Option<&ValidatedAgent>, world: &World, outcome: &Outcome, now: &str) -> AgentStatus {
    let previous = agent.status.clone().unwrap_or_default();
    let not_acted_on = validated.map(|validated| validated.not_acted_on.clone()).unwrap_or_default();
    let generation = agent.metadata.generation;
    let basis = Basis {
        generation,
        previous: &previous.conditions,
        suspended: validated.is_some_and(|validated| validated.spec.suspend.unwrap_or(false)),
        hub: None,
        not_acted_on: &not_acted_on,
    };
    let conditions = condition::conditions(outcome, &basis);
    let mut status = AgentStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        fields_not_acted_on: not_acted_on,
        ..previous
    };
    if let Some(validated) = validated {
        // One that is only planned is not there yet.
        let is_done = *outcome == Outcome::Ready;
        let there = newest(&world.secrets, &validated.namespace, &validated.name.api_key_secret());
        let secret = if is_done { rotation::secret(validated, world) } else { there };
        let name = validated.has_api_key.then(|| secret.object_name());
        status.tenant = Some(validated.tenant.to_string());
        // The time of one that was made just now is this one, and stays.
        let said = status.api_key_since.take().filter(|_| status.api_key_secret == name);
        let made = world.made.get(&secret).filter(|made| !made.is_empty()).cloned();
        status.api_key_since = said.or(made).or_else(|| is_done.then(|| now.to_owned())).filter(|_| validated.has_api_key);
        status.api_key_secret = name;
        status.token_audience = validated.account_name.as_ref().map(|_| format!("acb:{}", validated.tenant_id.hex()));
        status.effective = Some(AgentEffective { limits: validated.limits.clone() });
    }
    status
}
