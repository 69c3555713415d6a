//! What takes something away from an Agent that is let in: a suspension, a smaller role, smaller limits, an account that is gone. It needs no Secret, and so is done
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
    let suspended = row.suspended || role.is_none() || agent.spec.suspend.unwrap_or(false);
    let role = role.unwrap_or_else(|| row.role.clone());
    let service_account = row.service_account.clone().filter(|known| agent.account.as_ref() == Some(known));
    if limits == known && role == row.role && suspended == row.suspended && service_account == row.service_account {
        return None;
    }
    let agent_row = AgentRow { limits: json!(limits), role, suspended, service_account, ..row.clone() };
    Some(Step::Postgres(PostgresStep::RestrainAgent { tenant_id: agent.tenant_id.hex(), agent: agent_row }))
}

/// The role that may do no more than either. `None` where no role does: the one that has it may then do nothing.
fn smaller(known: &str, wanted: Role) -> Option<String> {
    // What this version does not know it can't compare: it is set.
    let Some(known) = Role::ALL.into_iter().find(|role| role.stored() == known) else { return Some(wanted.stored().to_owned()) };
    let within = |role: &Role| includes(known, *role) && includes(wanted, *role);
    [wanted, known, Role::Observer].into_iter().find(within).map(|role| role.stored().to_owned())
}

/// Whether a role may do all that the other may. The hub's own table is in `hub/core/src/directory/agent.rs`.
fn includes(role: Role, other: Role) -> bool {
    match role {
        Role::Admin => true,
        Role::AgentFull => !matches!(other, Role::Admin | Role::Auditor),
        Role::AgentConsumer => matches!(other, Role::AgentConsumer | Role::Observer),
        Role::AgentProducer | Role::Observer | Role::Auditor => role == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_never_more_than_it_was_or_is_to_be() {
        for (known, wanted, expected) in [
            ("admin", Role::AgentFull, Some("agent-full")),
            ("admin", Role::Auditor, Some("auditor")),
            ("agent-full", Role::Admin, Some("agent-full")),
            ("agent-full", Role::AgentProducer, Some("agent-producer")),
            ("agent-producer", Role::AgentFull, Some("agent-producer")),
            ("agent-consumer", Role::Observer, Some("observer")),
            ("observer", Role::Admin, Some("observer")),
            ("auditor", Role::Admin, Some("auditor")),
            ("of a newer version", Role::Observer, Some("observer")),
            // Of these neither has all that the other has, and no role has what both have.
            ("agent-producer", Role::AgentConsumer, None),
            ("agent-producer", Role::Observer, None),
            ("agent-full", Role::Auditor, None),
            ("auditor", Role::Observer, None),
        ] {
            assert_eq!(smaller(known, wanted).as_deref(), expected, "{known} and {}", wanted.as_str());
        }
    }

    /// Said of the hub's own table, so that the two can't differ.
    #[test]
    fn a_role_includes_another_where_the_hub_says_so() {
        use acb_hub_core::directory::agent::{Permission, Role as HubRole};
        let hubs = |role: Role| role.stored().parse::<HubRole>().unwrap();
        for role in Role::ALL {
            for other in Role::ALL {
                let all = Permission::ALL
                    .into_iter()
                    .all(|permission| !hubs(other).allows(permission) || hubs(role).allows(permission));
                assert_eq!(includes(role, other), all, "{} and {}", role.as_str(), other.as_str());
            }
        }
    }
}
