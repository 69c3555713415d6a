//! Agents that PostgreSQL knows, and no Agent stands for any more: theirs was let go while its tenant was away, or while PostgreSQL was.
//! They are shut out. Their mailboxes stay, for an Agent of the name that adopts them. Pure.

use std::collections::BTreeSet;

use super::{World, adoption, validate::ValidatedTenant};
use crate::{
    agent::plan::shut_out,
    plan::{AgentRow, Step},
};

pub(super) fn suspensions(tenant: &ValidatedTenant, world: &World) -> Vec<Step> {
    let (rows, agents) = (&world.postgres.agents, &world.tenancy.agents);
    let uids: Vec<&str> = agents.iter().filter_map(|agent| agent.metadata.uid.as_deref()).collect();
    let mut known: BTreeSet<String> = uids.iter().map(|uid| (*uid).to_owned()).collect();
    if tenant.adopted {
        let id = |uid: &str, name: Option<&str>| adoption::agent_id(uid, name.unwrap_or_default(), &uids, rows);
        let ids = agents.iter().filter_map(|agent| Some(id(agent.metadata.uid.as_deref()?, agent.metadata.name.as_deref())));
        known.extend(ids);
    }
    let observed = &world.postgres;
    let is_let_in =
        |row: &AgentRow| !row.suspended || observed.api_keys.contains_key(&row.id) || observed.replaced_keys.contains(&row.id);
    let orphans = rows.values().filter(|row| !known.contains(&row.id) && is_let_in(row));
    orphans.map(|row| shut_out(&tenant.id.hex(), row)).collect()
}
