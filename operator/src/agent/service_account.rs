//! Which Kubernetes ServiceAccount proves an Agent. Pure.

use std::{cmp::Ordering, collections::BTreeMap};

use acb_crds::{Agent, schema::Kind};

use super::World;
use crate::{
    condition::{Problem, Reason},
    plan::{AgentRow, ServiceAccountRow},
    tenancy::{Tenancy, by_age},
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
    let holder = world.account_holder.as_deref().or_else(|| older(agent, name, world.census.tenancy()))?;
    let message =
        format!("ServiceAccount {name} is that of Agent {holder}, and one proves one agent: give this one an account of its own");
    Some(Problem::new(Reason::ServiceAccountTaken, format!("{FIELD}.name"), message))
}

/// An older Agent that names the same account, whether this version can read all of it or not.
fn older<'a>(agent: &Agent, account: &str, tenancy: &'a Tenancy) -> Option<&'a str> {
    let readable = tenancy.staying().map(|other| (&other.metadata, named(other)));
    let unreadable = tenancy.unreadable.iter().map(|other| (&other.metadata, other.account.as_deref()));
    let mut naming = readable.chain(unreadable).filter(|(_, named)| *named == Some(account));
    let (older, _) = naming.find(|(other, _)| by_age(other, &agent.metadata) == Ordering::Less)?;
    older.name.as_deref()
}

/// Of the agents in PostgreSQL the one that has this account by its row and that this version can't read: nothing is taken from it. `id` is the
/// asking Agent's.
pub(super) fn holder(agent: &Agent, id: &str, tenancy: &Tenancy, rows: &BTreeMap<String, AgentRow>) -> Option<String> {
    let account = named(agent)?;
    let is_unreadable = |row: &&AgentRow| {
        let mut unreadable = tenancy.unreadable.iter().filter(|other| other.kind == Kind::Agent);
        unreadable.any(|other| other.metadata.name.as_ref() == Some(&row.name))
    };
    let has_it = |row: &&AgentRow| row.service_account.as_ref().is_some_and(|found| found.name == account) && row.id != id;
    rows.values().filter(has_it).find(is_unreadable).map(|row| row.name.clone())
}

/// The account by name, and as it is there.
pub(super) fn account(agent: &Agent, world: &World) -> (Option<String>, Option<ServiceAccountRow>) {
    let Some(name) = named(agent).filter(|_| world.census.has_service_accounts()).map(str::to_owned) else { return (None, None) };
    let namespace = agent.metadata.namespace.clone().unwrap_or_default();
    let row = world.account_uid.clone().map(|uid| ServiceAccountRow { namespace, name: name.clone(), uid });
    (Some(name), row)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;
    use crate::tenancy::Unreadable;

    #[test]
    fn the_row_of_an_agent_that_can_not_be_read_says_which_account_is_its() {
        let agent = |name: &str| -> Agent {
            let spec = json!({"role": "Observer", "credentials": {"serviceAccount": {"name": "worker"}}});
            let metadata = json!({"name": name, "namespace": "acb-acme", "uid": name});
            serde_json::from_value(
                json!({"apiVersion": acb_crds::API_VERSION, "kind": "Agent", "metadata": metadata, "spec": spec}),
            )
            .unwrap()
        };
        let row = AgentRow {
            id: "one".to_owned(),
            name: "one".to_owned(),
            r#type: String::new(),
            capabilities: Vec::new(),
            groups: Vec::new(),
            location: String::new(),
            metadata: json!({}),
            role: "observer".to_owned(),
            publishes: Vec::new(),
            subscribes: Vec::new(),
            limits: json!({}),
            suspended: false,
            service_account: Some(ServiceAccountRow { namespace: "acb-acme".into(), name: "worker".into(), uid: "u".into() }),
        };
        let rows = BTreeMap::from([(row.id.clone(), row)]);
        let mut tenancy = Tenancy::default();
        // One that can be read names its account itself, and is judged by that.
        assert_eq!(holder(&agent("two"), "two", &tenancy, &rows), None);
        tenancy.unreadable.push(Unreadable::new(Kind::Agent, agent("one").metadata));
        assert_eq!(holder(&agent("two"), "two", &tenancy, &rows).as_deref(), Some("one"));
        assert_eq!(holder(&agent("one"), "one", &tenancy, &rows), None, "its own");
    }
}
