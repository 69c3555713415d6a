//! Which Kubernetes ServiceAccount proves an Agent. Pure.

use std::collections::{BTreeMap, BTreeSet};

use acb_crds::{Agent, schema::Kind};

use super::World;
use crate::{
    condition::{Problem, Reason},
    plan::{AgentRow, ServiceAccountRow},
    tenancy::{Tenancy, account_of},
};

/// Where the spec names it.
pub(super) const FIELD: &str = "spec.credentials.serviceAccount";

/// What is wrong with the credentials that an Agent names.
pub(super) fn problem(agent: &Agent, world: &World) -> Option<Problem> {
    let credentials = agent.spec.credentials.as_ref()?;
    let name = account_of(agent).filter(|_| world.census.has_service_accounts());
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
    let holder = world.account_holder.as_deref().or_else(|| world.census.older_holder(name, agent))?;
    let message =
        format!("ServiceAccount {name} is that of Agent {holder}, and one proves one agent: give this one an account of its own");
    Some(Problem::new(Reason::ServiceAccountTaken, format!("{FIELD}.name"), message))
}

/// The accounts that agents have by their rows in PostgreSQL and that this version can't read: nothing is taken from them. By account, the id and
/// the name of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders(BTreeMap<String, Vec<(String, String)>>);

impl Holders {
    pub(super) fn of(tenancy: &Tenancy, rows: &BTreeMap<String, AgentRow>) -> Self {
        let unreadable = tenancy.unreadable.iter().filter(|other| other.kind == Kind::Agent);
        let unreadable: BTreeSet<&str> = unreadable.filter_map(|other| other.metadata.name.as_deref()).collect();
        let mut holders = BTreeMap::<String, Vec<_>>::new();
        for row in rows.values().filter(|row| unreadable.contains(row.name.as_str())) {
            let Some(account) = &row.service_account else { continue };
            holders.entry(account.name.clone()).or_default().push((row.id.clone(), row.name.clone()));
        }
        Self(holders)
    }

    /// The name of the one that has the account that an Agent names. `id` is the asking Agent's.
    pub(super) fn other_than(&self, agent: &Agent, id: &str) -> Option<String> {
        let mut holders = self.0.get(account_of(agent)?)?.iter();
        holders.find(|(holder, _)| holder != id).map(|(_, name)| name.clone())
    }
}

/// The account by name, and as it is there.
pub(super) fn account(agent: &Agent, world: &World) -> (Option<String>, Option<ServiceAccountRow>) {
    let Some(name) = account_of(agent).filter(|_| world.census.has_service_accounts()).map(str::to_owned) else {
        return (None, None);
    };
    let namespace = agent.metadata.namespace.clone().unwrap_or_default();
    let row = world.account_uid.clone().map(|uid| ServiceAccountRow { namespace, name: name.clone(), uid });
    (Some(name), row)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{
        sync::{Arc, mpsc},
        thread,
        time::Duration,
    };

    use serde_json::json;

    use super::*;
    use crate::{
        platform::{Platform, PlatformPostgres},
        tenancy::{Census, Unreadable},
        tenant::adoption::AgentIds,
    };

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
        assert_eq!(Holders::of(&tenancy, &rows).other_than(&agent("two"), "two"), None);
        tenancy.unreadable.push(Unreadable::new(Kind::Agent, agent("one").metadata));
        let holders = Holders::of(&tenancy, &rows);
        assert_eq!(holders.other_than(&agent("two"), "two").as_deref(), Some("one"));
        assert_eq!(holders.other_than(&agent("one"), "one"), None, "its own");
    }

    /// With a step for each other Agent, these would take a minute and more.
    #[test]
    fn so_many_agents_with_accounts_take_no_longer_than_a_probe_waits() {
        const AGENTS: usize = 40_000;
        let (told, hears) = mpsc::channel();
        thread::spawn(move || {
            let one: Agent = serde_json::from_value(json!({
                "apiVersion": acb_crds::API_VERSION, "kind": "Agent", "metadata": {"namespace": "acb-acme"},
                "spec": {"role": "Observer", "credentials": {"serviceAccount": {"name": "worker"}}},
            }))
            .unwrap();
            let agent = |number: usize| {
                let mut agent = one.clone();
                (agent.metadata.name, agent.metadata.uid) = (Some(format!("a{number}")), Some(format!("u{number}")));
                // The last two name one account.
                let account = format!("of-{}", number.min(AGENTS - 2));
                agent.spec.credentials.as_mut().unwrap().service_account.as_mut().unwrap().name = account;
                agent
            };
            let tenancy = Tenancy { agents: (0..AGENTS).map(agent).collect(), ..Tenancy::default() };
            let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
            let mut platform = Platform::new(postgres);
            platform.has_service_accounts = true;
            let census = Arc::new(Census::of("acb-acme", tenancy, &platform));
            let world = World { census: Arc::clone(&census), ..World::default() };
            let agents = &census.tenancy().agents;
            let refused = agents.iter().filter(|agent| problem(agent, &world).is_some()).count();
            let ids = AgentIds::new(agents.iter().filter_map(|agent| agent.metadata.uid.as_deref()), &BTreeMap::new());
            let id = |agent: &Agent| ids.of(agent.metadata.uid.as_deref().unwrap(), agent.metadata.name.as_deref().unwrap());
            let own = agents.iter().filter(|agent| Some(id(agent)) == agent.metadata.uid).count();
            told.send((refused, own)).unwrap();
        });
        let found = hears.recv_timeout(Duration::from_secs(20)).expect("decided in time");
        assert_eq!(found, (1, AGENTS));
    }
}
