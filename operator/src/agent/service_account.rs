//! Which Kubernetes ServiceAccount proves an Agent. Pure.

use std::cmp::Ordering;

use acb_crds::Agent;

use super::World;
use crate::{
    condition::{Problem, Reason},
    plan::ServiceAccountRow,
    tenancy::by_age,
};

/// Where the spec names it.
pub(super) const FIELD: &str = "spec.credentials.serviceAccount";

fn named(agent: &Agent) -> Option<&str> {
    Some(agent.spec.credentials.as_ref()?.service_account.as_ref()?.name.as_str())
}

/// What is wrong with the credentials that an Agent names.
pub(super) fn problem(agent: &Agent, world: &World) -> Option<Problem> {
    let credentials = agent.spec.credentials.as_ref()?;
    let name = named(agent).filter(|_| world.census.has_service_accounts());
    if credentials.api_key.is_none() && name.is_none() {
        let message = match &credentials.service_account {
            Some(_) => "there are ServiceAccounts on a Kubernetes cluster only: add apiKey, or leave credentials out",
            None => {
                "API keys and ServiceAccounts are checked, and nothing else yet: add apiKey or serviceAccount, or leave credentials out"
            }
        };
        return Some(Problem::new(Reason::CredentialNotSupported, "spec.credentials", message));
    }
    // Its token would not say which of the two it is for.
    let name = name?;
    let is_older = |other: &&Agent| by_age(&other.metadata, &agent.metadata) == Ordering::Less;
    let older = world.census.tenancy().staying().filter(is_older).find(|other| named(other) == Some(name))?;
    let message = format!(
        "ServiceAccount {name} is that of Agent {}, and one proves one agent: give this one an account of its own",
        older.metadata.name.as_deref().unwrap_or_default()
    );
    Some(Problem::new(Reason::ServiceAccountTaken, format!("{FIELD}.name"), message))
}

/// The account by name, and as it is there.
pub(super) fn account(agent: &Agent, world: &World) -> (Option<String>, Option<ServiceAccountRow>) {
    let Some(name) = named(agent).filter(|_| world.census.has_service_accounts()).map(str::to_owned) else { return (None, None) };
    let namespace = agent.metadata.namespace.clone().unwrap_or_default();
    let row = world.account_uid.clone().map(|uid| ServiceAccountRow { namespace, name: name.clone(), uid });
    (Some(name), row)
}
