//! What is to be done about an Agent, from what was read: the one place where that is decided, for a reconcile and for `acb plan`. Pure.

use acb_crds::Agent;

use super::{
    World, plan,
    validate::{ValidatedAgent, validate},
};
use crate::{condition::Problem, plan::Plan};

/// What is to be done about an Agent.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It can't be as it is written, or may no longer be.
    Refused {
        /// What is wrong with it; never empty.
        problems: Vec<Problem>,
        /// What is taken away from it all the same.
        restraint: Plan,
    },
    /// It is brought to where it should be, which is away where it is on its way out.
    Converge {
        /// What it is.
        agent: Box<ValidatedAgent>,
        /// The steps. Empty: it is there.
        plan: Plan,
        /// What has to come up first for the rest of it.
        waits_for: Option<String>,
    },
}

impl Decision {
    /// What the Agent is; `None` where it can't be.
    #[must_use]
    pub fn agent(&self) -> Option<&ValidatedAgent> {
        match self {
            Self::Refused { .. } => None,
            Self::Converge { agent, .. } => Some(agent),
        }
    }

    /// What is done now.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        match self {
            Self::Refused { restraint: plan, .. } | Self::Converge { plan, .. } => plan,
        }
    }
}

/// Decides about an Agent.
#[must_use]
pub fn decide(agent: &Agent, world: &World) -> Decision {
    match validate(agent, world) {
        // What was let in before, and may no longer be, is shut out.
        Err(problems) => {
            let restraint = world.tenant_id.map(|id| plan::suspension(&id.hex(), world)).unwrap_or_default();
            Decision::Refused { problems, restraint }
        }
        Ok(agent) => {
            let waits_for = || plan::waits_for(&agent, world).or_else(|| plan::lacks(&agent, world));
            let waits_for = if agent.deleting { None } else { waits_for() };
            Decision::Converge { plan: plan::plan(&agent, world), agent: Box::new(agent), waits_for }
        }
    }
}
