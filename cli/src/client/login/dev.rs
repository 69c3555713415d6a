//! What a login takes, found in the state folder of `acb dev`.

use std::{collections::BTreeMap, path::Path};

use acb_operator::runtime::standalone::access::{self, Access};

use super::{
    super::{
        payload::text_of,
        profile::{Profile, Profiles},
    },
    agent::AgentOf,
};
use crate::{
    output::{Exit, Failure},
    standalone::State,
};

/// A profile without a name, and without a key where none is asked for.
pub(super) fn find(state: &State, who: &AgentOf, with_key: bool) -> Result<Profile, Failure> {
    let access = access_of(state, who)?;
    let api_key = if with_key { text_of(key_file(state, who, &access)?)?.trim().to_owned() } else { String::new() };
    Ok(Profile { api_key, tenant: who.tenant.to_string(), agent: who.agent.to_string(), ..profile(&access)? })
}

/// How a program finds the hub of the `acb dev` that runs, and speaks as this agent: the variables of docs/sdk-config.md.
pub(crate) fn environment(state: &State, who: &AgentOf) -> Result<[(&'static str, String); 3], Failure> {
    let access = access_of(state, who)?;
    let key = key_file(state, who, &access)?;
    Ok([
        ("ACB_SERVER", access.server.clone()),
        ("ACB_CA_FILE", ca_file(&access)?.display().to_string()),
        ("ACB_API_KEY_FILE", key.display().to_string()),
    ])
}

/// How the hub is reached that this agent speaks with, where it runs.
fn access_of(state: &State, who: &AgentOf) -> Result<Access, Failure> {
    let state = state.existing()?;
    let mut accesses = access::read(&state).map_err(Failure::failed)?;
    let tenant = who.tenant.to_string();
    let access = accesses.remove(&tenant).ok_or_else(|| missing("tenant", &tenant, accesses.keys(), state.root()))?;
    if state.holder().is_none() || access.server.is_empty() {
        let hint = if state.holder().is_none() { "start `acb dev`" } else { "`acb get tenants` says why" };
        return Err(Failure::new(Exit::Unavailable, format_args!("the hub of tenant {tenant} is not running: {hint}")));
    }
    Ok(access)
}

fn key_file<'a>(state: &State, who: &AgentOf, access: &'a Access) -> Result<&'a Path, Failure> {
    let agent = who.agent.to_string();
    let what = || format!("agent of tenant {}", who.tenant);
    let file = access.api_key_files.get(&agent).map(Path::new);
    file.ok_or_else(|| missing(&what(), &agent, access.api_key_files.keys(), &state.path()))
}

fn ca_file(access: &Access) -> Result<&Path, Failure> {
    access.ca_file.as_deref().map(Path::new).ok_or_else(|| Failure::new(Exit::Unavailable, "the tenant has no CA yet"))
}

fn profile(access: &Access) -> Result<Profile, Failure> {
    Ok(Profile::at(access.server.split(',').map(str::to_owned).collect(), text_of(ca_file(access)?)?))
}

/// With what there is, as long as that is not too much to read.
fn missing<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String>, state: &Path) -> Failure {
    const SHOWN: usize = 10;
    let mut known: Vec<&str> = known.map(String::as_str).collect();
    let more = if known.len() > SHOWN { ", …" } else { "" };
    known.truncate(SHOWN);
    let there = if known.is_empty() { "there is none".to_owned() } else { format!("there are {}{more}", known.join(", ")) };
    Failure::new(
        Exit::NotFound,
        format_args!("acb dev in {} has no {what} {name:?}: {there}; on a cluster: --cluster", state.display()),
    )
}

/// What became of the profiles of all agents.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The profiles of these names are kept.
    pub(crate) names: Vec<String>,
    /// These names are those of agents elsewhere, whose profiles stay.
    pub(crate) elsewhere: Vec<String>,
}

/// Keeps a profile for each agent that can log in, as TENANT/AGENT. The current profile stays, where there is one.
pub(crate) fn keep_all(accesses: &BTreeMap<String, Access>) -> Result<Kept, Failure> {
    let mut found = Vec::new();
    for (tenant, access) in accesses.iter().filter(|(_, access)| !access.server.is_empty()) {
        for (agent, file) in &access.api_key_files {
            let api_key = text_of(file)?.trim().to_owned();
            let (tenant, agent) = (tenant.clone(), agent.clone());
            found.push(Profile { name: format!("{tenant}/{agent}"), api_key, tenant, agent, ..profile(access)? });
        }
    }
    let mut kept = Kept::default();
    Profiles::change(|profiles| {
        let current = profiles.current.clone();
        for profile in found {
            let name = profile.name.clone();
            // Whoever speaks as that one means the cluster.
            if profiles.profiles.iter().any(|known| known.name == name && known.is_remote()) {
                kept.elsewhere.push(name);
            } else {
                profiles.keep(profile);
                kept.names.push(name);
            }
        }
        // Never somebody whom this did not find.
        let is_there = profiles.profiles.iter().any(|profile| profile.name == current);
        profiles.current = if is_there { current } else { kept.names.first().cloned().unwrap_or_default() };
        Ok(())
    })?;
    Ok(kept)
}
