//! What takes something away from an Agent that is let in: a suspension, a smaller role, smaller limits. It needs no Secret, and so is done
//! also where its key can't be made: the key that is stored works on. Pure.

use acb_crds::{AgentLimits, agent::Role};
use serde_json::json;

use super::{World, validate::ValidatedAgent};
use crate::plan::{AgentRow, PostgresStep, Step};

/// What it may have more of stays as it was.
pub(super) fn restraint(agent: &ValidatedAgent, world: &World) -> Option<Step> {
    let row = world.row.as_ref()?;
    let known: AgentLimits = serde_json::from_value(row.limits.clone()).unwrap_or_default();
    let limits = known.smallest(&agent.limits);
    let role = smaller(&row.role, agent.spec.role);
    let suspended = row.suspended || agent.spec.suspend.unwrap_or(false);
    if limits == known && role == row.role && suspended == row.suspended {
        return None;
    }
    let agent_row = AgentRow { limits: json!(limits), role, suspended, ..row.clone() };
    Some(Step::Postgres(PostgresStep::RestrainAgent { tenant_id: agent.tenant_id.hex(), agent: agent_row }))
}

/// The role that may do no more than either; of two of which neither has all that the other has, the one that only sees.
fn smaller(known: &str, wanted: Role) -> String {
    // What this version does not know it can't compare: it is set.
    let Some(known) = Role::ALL.into_iter().find(|role| role.stored() == known) else { return wanted.stored().to_owned() };
    let role = match (includes(known, wanted), includes(wanted, known)) {
        (true, _) => wanted,
        (false, true) => known,
        (false, false) => Role::Observer,
    };
    role.stored().to_owned()
}

/// Whether a role may do all that the other may. The hub's own table is in `hub/core/src/directory/agent.rs`.
fn includes(role: Role, other: Role) -> bool {
    match role {
        Role::Admin => true,
        Role::AgentFull => other != Role::Admin,
        Role::AgentConsumer => matches!(other, Role::AgentConsumer | Role::Observer),
        Role::AgentProducer | Role::Observer => role == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_never_more_than_it_was_or_is_to_be() {
        for (known, wanted, expected) in [
            ("admin", Role::AgentFull, "agent-full"),
            ("agent-full", Role::Admin, "agent-full"),
            ("agent-full", Role::AgentProducer, "agent-producer"),
            ("agent-producer", Role::AgentFull, "agent-producer"),
            ("agent-producer", Role::AgentConsumer, "observer"),
            ("agent-producer", Role::Observer, "observer"),
            ("agent-consumer", Role::Observer, "observer"),
            ("observer", Role::Admin, "observer"),
            ("of a newer version", Role::Observer, "observer"),
        ] {
            assert_eq!(smaller(known, wanted), expected, "{known} and {}", wanted.as_str());
        }
    }
}
