//! Which Agent a ServiceAccount proves: of all that name it, the oldest. Worked out once for a namespace, which may have thousands of Agents.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, btree_map::Entry},
};

use acb_crds::Agent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::age::by_age;

/// The ServiceAccount that an Agent names.
pub(crate) fn account_of(agent: &Agent) -> Option<&str> {
    Some(agent.spec.credentials.as_ref()?.service_account.as_ref()?.name.as_str())
}

/// The name and the age of the oldest Agent that names an account, by account.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Accounts(BTreeMap<String, ObjectMeta>);

impl Accounts {
    /// Of these Agents, each with the account that it names.
    pub(super) fn of<'a>(agents: impl Iterator<Item = (&'a ObjectMeta, Option<&'a str>)>) -> Self {
        let mut oldest: BTreeMap<&str, &ObjectMeta> = BTreeMap::new();
        for (agent, account) in agents.filter_map(|(agent, account)| Some((agent, account?))) {
            match oldest.entry(account) {
                Entry::Vacant(place) => {
                    place.insert(agent);
                }
                Entry::Occupied(mut known) if by_age(agent, known.get()) == Ordering::Less => {
                    known.insert(agent);
                }
                Entry::Occupied(_) => {}
            }
        }
        let of = |agent: &ObjectMeta| ObjectMeta {
            namespace: agent.namespace.clone(),
            name: agent.name.clone(),
            creation_timestamp: agent.creation_timestamp.clone(),
            ..ObjectMeta::default()
        };
        Self(oldest.into_iter().map(|(account, agent)| (account.to_owned(), of(agent))).collect())
    }

    /// The name of the Agent that has an account, where that is an older one than this.
    pub(super) fn older(&self, account: &str, agent: &ObjectMeta) -> Option<&str> {
        let oldest = self.0.get(account).filter(|oldest| by_age(oldest, agent) == Ordering::Less)?;
        oldest.name.as_deref()
    }
}
