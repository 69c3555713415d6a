//! What is to be done about a Tenant, from what was read: the one place where that is decided, for a reconcile and for `acb plan`. Pure.

use acb_crds::Tenant;

use super::{
    World, hub,
    hub_secrets::HubSecrets,
    opening, plan, removal,
    removal::Stage,
    restraint,
    validate::{self, ValidatedTenant},
};
use crate::{condition::Problem, effect::EffectError, plan::Plan, platform::Platform};

/// What is to be done about a Tenant.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It can't be as it is written.
    Refused {
        /// What is wrong with it; never empty.
        problems: Vec<Problem>,
        /// What is taken away from it all the same.
        restraint: Plan,
        /// What could not be looked at for that.
        away: Vec<EffectError>,
    },
    /// The operator has to be let into its namespaces first: while their Secrets can't be read, nothing may be decided from their absence.
    Open {
        /// What it is.
        tenant: Box<ValidatedTenant>,
        /// What lets the operator in, after what is taken away.
        plan: Plan,
    },
    /// It is on its way out.
    TakeDown {
        /// What it is; `None`: what was never provisioned.
        tenant: Option<Box<ValidatedTenant>>,
        /// In their order.
        stages: Vec<Stage>,
    },
    /// It is brought to where it should be.
    Converge {
        /// What it is.
        tenant: Box<ValidatedTenant>,
        /// The steps. Empty and nothing away: it is there.
        plan: Plan,
        /// The Secrets of its hub.
        secrets: Box<HubSecrets>,
        /// Systems that more steps may be for.
        away: Vec<EffectError>,
    },
}

impl Decision {
    /// What the Tenant is; `None` where it can't be.
    #[must_use]
    pub fn tenant(&self) -> Option<&ValidatedTenant> {
        match self {
            Self::Refused { .. } => None,
            Self::TakeDown { tenant, .. } => tenant.as_deref(),
            Self::Open { tenant, .. } | Self::Converge { tenant, .. } => Some(tenant),
        }
    }

    /// Every step, of all stages.
    #[must_use]
    pub fn plan(&self) -> Plan {
        match self {
            Self::Refused { restraint: plan, .. } | Self::Open { plan, .. } | Self::Converge { plan, .. } => plan.clone(),
            Self::TakeDown { stages, .. } => Plan { steps: stages.iter().flat_map(|stage| stage.plan.steps.clone()).collect() },
        }
    }
}

/// Decides.
#[must_use]
pub fn decide(tenant: &Tenant, world: &World, platform: &Platform) -> Decision {
    let is_leaving = tenant.metadata.deletion_timestamp.is_some();
    let validated = match validate::validate(tenant, world, platform) {
        Ok(validated) => Box::new(validated),
        // What was refused by its name was never provisioned.
        Err(_) if is_leaving => return Decision::TakeDown { tenant: None, stages: Vec::new() },
        Err(problems) => {
            let (restraint, away) = (restraint::restraint(tenant, world, platform), world.away());
            return Decision::Refused { problems, restraint, away };
        }
    };
    if is_leaving {
        return Decision::TakeDown { stages: removal::stages(&validated, world, platform), tenant: Some(validated) };
    }
    if let Some(mut opening) = opening::opening(&validated, world, platform) {
        let mut plan = restraint::restraint(tenant, world, platform);
        plan.steps.append(&mut opening.steps);
        return Decision::Open { tenant: validated, plan };
    }
    let secrets = Box::new(hub::secrets(&validated, world, platform));
    Decision::Converge { plan: plan::plan(&validated, world, platform), secrets, away: world.away(), tenant: validated }
}
