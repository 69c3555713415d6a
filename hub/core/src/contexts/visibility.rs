//! Which contexts an agent sees: defined once, as a condition. [`Condition::holds`] decides it for one context, and a store makes its query of the same
//! condition; a test holds the two against each other over random contexts and agents.

use super::audience::{Access, Scope};
use crate::directory::agent::{Agent, AgentId, Permission};

/// What may be so of a context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is a context.
    Always,
    /// This agent made it.
    CreatedBy(AgentId),
    /// Its type is one of these.
    TypeIn(Vec<String>),
    /// It has this scope.
    HasScope(Scope),
    /// Its audience has one of these groups.
    NamesGroupOf(Vec<String>),
    /// Its audience has this agent.
    NamesAgent(String),
    /// All of these.
    All(Vec<Condition>),
    /// At least one of these.
    Any(Vec<Condition>),
}

impl Condition {
    /// Whether it is so of a context of this type, creator and access.
    #[must_use]
    pub fn holds(&self, kind: &str, creator: AgentId, access: &Access) -> bool {
        match self {
            Self::Always => true,
            Self::CreatedBy(agent) => *agent == creator,
            Self::TypeIn(types) => types.iter().any(|own| own == kind),
            Self::HasScope(scope) => *scope == access.scope,
            Self::NamesGroupOf(groups) => access.groups.iter().any(|group| groups.contains(group)),
            Self::NamesAgent(name) => access.agents.contains(name),
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(kind, creator, access)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(kind, creator, access)),
        }
    }
}

/// What an agent sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer(Condition);

impl Viewer {
    /// What this agent may see now: what it made, and of the types that it reads what is for it. An observer sees of these what is public, and an
    /// admin everything.
    #[must_use]
    pub fn of(agent: &Agent) -> Self {
        use Condition::{All, Always, Any, CreatedBy, HasScope, NamesAgent, NamesGroupOf, TypeIn};
        if agent.role.allows(Permission::AllContexts) {
            return Self(Always);
        }
        let mut sees = vec![CreatedBy(agent.id)];
        if agent.role.allows(Permission::ReadContext) {
            let mut is_for = vec![HasScope(Scope::Public)];
            if agent.role.allows(Permission::ReadAddressedContext) {
                is_for.push(All(vec![HasScope(Scope::Group), NamesGroupOf(agent.groups.clone())]));
                is_for.push(All(vec![HasScope(Scope::Shared), NamesAgent(agent.name.clone())]));
            }
            sees.push(All(vec![TypeIn(agent.subscribes.clone()), Any(is_for)]));
        }
        Self(Any(sees))
    }

    /// What must be so of what it sees.
    #[must_use]
    pub fn condition(&self) -> &Condition {
        &self.0
    }

    /// Whether it may see a context of this type, creator and access.
    #[must_use]
    pub fn sees(&self, kind: &str, creator: AgentId, access: &Access) -> bool {
        self.0.holds(kind, creator, access)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{contexts::audience::tests::agent, directory::agent::Role};

    /// Every role, scope, relation and subscription, against the rule said in words once more.
    #[test]
    fn every_scope_decision() {
        let mut decisions = 0;
        for role in Role::ALL {
            for scope in Scope::ALL {
                for subscribed in [false, true] {
                    for member in [false, true] {
                        for listed in [false, true] {
                            for creator in [false, true] {
                                let viewer = agent(
                                    "viewer",
                                    role,
                                    if subscribed { &["notes"] } else { &["other"] },
                                    if member { &["red", "blue"] } else { &["blue"] },
                                );
                                let maker = if creator { viewer.id } else { AgentId(Uuid::nil()) };
                                let access = Access {
                                    scope,
                                    groups: vec!["red".into(), "green".into()],
                                    agents: vec![if listed { "viewer" } else { "viewer2" }.into()],
                                };
                                let reads = !matches!(role, Role::Producer | Role::Auditor);
                                let in_audience = match scope {
                                    Scope::Public => true,
                                    Scope::Private => false,
                                    Scope::Group => member && role != Role::Observer,
                                    Scope::Shared => listed && role != Role::Observer,
                                };
                                let expected = role == Role::Admin || creator || (reads && subscribed && in_audience);
                                assert_eq!(
                                    Viewer::of(&viewer).sees("notes", maker, &access),
                                    expected,
                                    "{role:?} {scope:?} subscribed {subscribed} member {member} listed {listed} creator {creator}"
                                );
                                decisions += 1;
                            }
                        }
                    }
                }
            }
        }
        assert_eq!(decisions, Role::ALL.len() * 4 * 16);
    }
}
