//! Agents that PostgreSQL knows, and no Agent stands for any more: theirs was let go while its tenant was away, or while PostgreSQL was.
//! They are shut out. Their mailboxes stay, for an Agent of the name that adopts them. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    World,
    adoption::{AgentIds, Identity},
};
use crate::plan::{AgentRow, PostgresStep, Step};

pub(super) fn suspensions(identity: &Identity, world: &World) -> Vec<Step> {
    let Some(observed) = world.postgres.known() else { return Vec::new() };
    let rows = &observed.agents;
    // One that this version of the operator can't read is there all the same.
    let unreadable = world.tenancy.unreadable.iter().map(|unreadable| &unreadable.metadata);
    let agents: Vec<&ObjectMeta> = world.tenancy.agents.iter().map(|agent| &agent.metadata).chain(unreadable).collect();
    let uids: Vec<&str> = agents.iter().filter_map(|agent| agent.uid.as_deref()).collect();
    let mut known: BTreeSet<String> = uids.iter().map(|uid| (*uid).to_owned()).collect();
    if identity.adopted {
        let ids = AgentIds::new(uids, rows);
        let id = |agent: &&ObjectMeta| Some(ids.of(agent.uid.as_deref()?, agent.name.as_deref().unwrap_or_default()));
        known.extend(agents.iter().filter_map(id));
    }
    let has_key = |row: &AgentRow| observed.api_keys.contains_key(&row.id) || observed.replaced_keys.contains(&row.id);
    let is_let_in = |row: &AgentRow| !row.suspended || row.service_account.is_some() || has_key(row);
    let orphans = rows.values().filter(|row| !known.contains(&row.id) && is_let_in(row));
    orphans.map(|row| shut_out(&identity.id.hex(), row)).collect()
}

/// Refuses an agent and forgets its keys and its ServiceAccount; its mailbox stays.
pub(crate) fn shut_out(tenant_id: &str, row: &AgentRow) -> Step {
    let agent = AgentRow { suspended: true, service_account: None, ..row.clone() };
    Step::Postgres(PostgresStep::ProjectAgent { tenant_id: tenant_id.to_owned(), agent, api_key: None })
}
