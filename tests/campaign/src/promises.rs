//! What the documents promise, said a second time and more simply than the operator does: without this, what is wrong in a fresh cluster in the
//! same way would not be found.

use std::collections::BTreeMap;

use acb_crds::names::annotations::ADOPT;
use acb_operator::plan::{AgentRow, SecretRef, TenantRow};
use serde_json::Value;

use crate::{
    documents::{Documents, name},
    operator::Operator,
    systems::Systems,
    watch::{identity, ids},
};

const DAY: u64 = 86_400;

/// Of a settled cluster where every system is there.
pub(crate) fn kept(operator: &Operator) -> Result<(), String> {
    let (documents, systems) = (&operator.documents, &operator.systems);
    let mut owners: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for ((.., tenant), document) in documents.of_kind("Tenant") {
        if !document["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        let (id, spec) = (identity(document, systems), &document["spec"]);
        let rows = systems.postgres.observe(&id.hex());
        let Some(row) = &rows.tenant else { continue };
        if row.name != *tenant {
            return Err(format!("Tenant {tenant} has the row of {}", row.name));
        }
        let space = spec["agentNamespace"].as_str().map_or_else(|| format!("acb-{tenant}"), str::to_owned);
        owners.entry(space.clone()).or_default().push(tenant);
        if spec["suspend"] == true && !row.suspended {
            return Err(format!("Tenant {tenant} is suspended, and let in"));
        }
        accounts_are_there(documents, rows.agents.values())?;
        // It asks for what it can't have: nothing else of it is acted on.
        let asks = document["metadata"]["annotations"][ADOPT].as_str();
        if asks.is_some_and(|asks| asks != id.hex()) {
            continue;
        }
        issuer(operator, &space, tenant, row)?;
        let limits = bounds(documents, &space, &spec["limits"], None, most_agents(spec));
        within(&limits, &row.limits).map_err(|why| format!("Tenant {tenant}: {why}"))?;
        of_agents(operator, &space, &rows.agents, limits.get("maxAgents").copied())?;
        let whose = document;
        let is_let_in = |agent: &AgentRow| !agent.suspended || rows.api_keys.contains_key(&agent.id);
        for agent in rows.agents.values().filter(|agent| is_let_in(agent)) {
            let there = documents.get(&name("Agent", &space, &agent.name));
            // Who adopts a tenant's data has the agents of its names.
            let is_it = |document: &&Value| document["metadata"]["uid"] == agent.id || ids(whose, systems).len() > 1;
            there
                .filter(is_it)
                .ok_or_else(|| format!("agent {} of {tenant} is let in, and no Agent stands for it", agent.name))?;
        }
        log(systems, tenant, &id.login(), spec, row.context_types.len())?;
        secrets(systems, &format!("acbhub-{tenant}"), &document["metadata"]["annotations"]["acb.dev/rotate"])?;
    }
    match owners.iter().find(|(_, tenants)| tenants.len() > 1) {
        Some((space, tenants)) => Err(format!("namespace {space} is of {}", tenants.join(" and "))),
        None => Ok(()),
    }
}

/// Whoever proves himself with a ServiceAccount does so with one that is there, and that his Agent names.
pub(crate) fn accounts_are_there<'a>(documents: &Documents, rows: impl Iterator<Item = &'a AgentRow>) -> Result<(), String> {
    for row in rows {
        let Some(account) = &row.service_account else { continue };
        if documents.account(&account.namespace, &account.name) != Some(account.uid.as_str()) {
            return Err(format!("agent {} is let in by ServiceAccount {}, which is gone", row.name, account.name));
        }
        let agent = documents.get(&name("Agent", &account.namespace, &row.name));
        if agent.is_none_or(|agent| agent["spec"]["credentials"]["serviceAccount"]["name"] != account.name) {
            return Err(format!("agent {} is let in by ServiceAccount {}, which no Agent names", row.name, account.name));
        }
    }
    Ok(())
}

/// A tenant whose Agents name accounts knows the cluster's issuer and keys, and no others.
fn issuer(operator: &Operator, space: &str, tenant: &str, row: &TenantRow) -> Result<(), String> {
    let agents = operator.documents.of_kind("Agent").filter(|((_, of, _), _)| of == space);
    let mut staying = agents.filter(|(_, agent)| agent["metadata"]["deletionTimestamp"].is_null());
    let wanted = staying.any(|(_, agent)| !agent["spec"]["credentials"]["serviceAccount"].is_null()).then_some(&operator.issuer);
    let found = row.issuer.as_ref();
    if wanted.map(|wanted| (&wanted.issuer, &wanted.jwks)) != found.map(|found| (&found.issuer, &found.jwks)) {
        return Err(format!("Tenant {tenant} knows {found:?}, and the cluster has {wanted:?}"));
    }
    found.and_then(|found| found.previous.as_ref()).map_or(Ok(()), |before| Err(format!("Tenant {tenant} still takes {before}")))
}

/// By tier, as docs/concepts.md has it.
fn most_agents(spec: &Value) -> Option<i64> {
    match spec["tier"].as_str() {
        Some("Free") => Some(3),
        Some("Starter") => Some(10),
        Some("Professional") => Some(50),
        _ => None,
    }
}

/// The smallest of each limit: the own one, and those of the Quotas that are for it.
fn bounds(
    documents: &Documents,
    space: &str,
    own: &Value,
    agent: Option<&str>,
    most_agents: Option<i64>,
) -> BTreeMap<String, i64> {
    let mut all: BTreeMap<String, i64> = most_agents.map(|most| ("maxAgents".to_owned(), most)).into_iter().collect();
    let quotas = documents.of_kind("Quota").filter(|((_, of, _), _)| of == space).filter(|(_, quota)| {
        let names = quota["spec"]["selector"]["names"].as_array();
        match agent {
            None => names.is_none(),
            Some(agent) => names.is_some_and(|names| names.iter().any(|name| name == agent)),
        }
    });
    for limits in quotas.map(|(_, quota)| &quota["spec"]["limits"]).chain([own]) {
        for (limit, most) in limits.as_object().into_iter().flatten() {
            let most = most.as_i64().unwrap_or(i64::MAX);
            all.entry(limit.clone()).and_modify(|known| *known = most.min(*known)).or_insert(most);
        }
    }
    all
}

fn within(wanted: &BTreeMap<String, i64>, found: &Value) -> Result<(), String> {
    for (limit, most) in wanted {
        if found[limit].as_i64().is_none_or(|found| found > *most) {
            return Err(format!("{limit} is {}, and may be {most}", found[limit]));
        }
    }
    Ok(())
}

/// Each Agent is as it is written, or refused.
fn of_agents(operator: &Operator, space: &str, rows: &BTreeMap<String, AgentRow>, most: Option<i64>) -> Result<(), String> {
    let (documents, systems) = (&operator.documents, &operator.systems);
    let mut agents: Vec<_> = documents.of_kind("Agent").filter(|((_, of, _), _)| of == space).collect();
    agents.retain(|(_, agent)| agent["metadata"]["deletionTimestamp"].is_null());
    agents.sort_by_key(|((.., name), agent)| (agent["metadata"]["creationTimestamp"].as_str().map(str::to_owned), name.clone()));
    let has_room = |place: usize| most.is_none_or(|most| i64::try_from(place).unwrap() < most);
    let account_of = |document: &Value| document["spec"]["credentials"]["serviceAccount"]["name"].as_str().map(str::to_owned);
    for (place, ((.., agent), document)) in agents.iter().enumerate() {
        let (spec, fail) = (&document["spec"], |why: String| Err(format!("Agent {space}/{agent}: {why}")));
        let account = account_of(document);
        // One account proves one agent, and the older has it.
        let is_taken = account.is_some() && agents[..place].iter().any(|(_, older)| account_of(older) == account);
        let Some(row) = rows.values().find(|row| row.name == *agent && !row.suspended) else {
            let is_refused = spec["suspend"] == true || !has_room(place) || is_taken;
            // Only where there are so many context types may an Agent be refused for them.
            if is_refused || spec["publishes"].as_array().is_some_and(|publishes| publishes.len() > 1) {
                continue;
            }
            return fail("it is not let in".to_owned());
        };
        if spec["suspend"] == true || !has_room(place) || is_taken {
            return fail("it is let in, and may not be".to_owned());
        }
        let role = spec["role"].as_str().unwrap_or_default();
        if row.role.replace('-', "") != role.to_lowercase()
            || row.publishes.len() != spec["publishes"].as_array().map_or(0, Vec::len)
        {
            return fail(format!("it is {} and publishes {:?}", row.role, row.publishes));
        }
        within(&bounds(documents, space, &Value::Null, Some(agent), None), &row.limits).or_else(fail)?;
        let there = account.as_ref().and_then(|account| documents.account(space, account));
        if row.service_account.as_ref().map(|account| account.uid.as_str()) != there {
            return fail(format!("its account is {there:?}, and it is let in by {:?}", row.service_account));
        }
        let has_key = spec["credentials"].is_null() || !spec["credentials"]["apiKey"].is_null();
        if !has_key {
            let left = systems
                .kubernetes
                .secrets
                .keys()
                .any(|secret| secret.namespace == *space && secret.name == format!("{agent}-api-key"));
            if left {
                return fail("it has a key, and none is asked for".to_owned());
            }
            continue;
        }
        let own = |secret: &&SecretRef| secret.namespace == *space && secret.name == format!("{agent}-api-key");
        let Some((newest, found)) = systems.kubernetes.secrets.iter().rfind(|(secret, _)| own(secret)) else {
            return fail("it has no key".to_owned());
        };
        if systems.kubernetes.secrets.keys().filter(own).count() > 1 {
            return fail("keys that were replaced lie around".to_owned());
        }
        let asked = document["metadata"]["annotations"]["acb.dev/rotate"].as_str();
        if asked.is_some() && found.asked.as_deref() != asked {
            return fail(format!("{newest} does not answer {asked:?}"));
        }
        let mut pepper = systems.kubernetes.secrets.iter().filter(|(secret, _)| secret.name == "hub-keys");
        let of = operator.owner(space);
        let pepper = pepper.rfind(|(secret, _)| Some(&secret.namespace) == of.as_ref()).map(|(_, keys)| keys.pepper);
        let is_current = |id: &str| pepper.is_some_and(|pepper| systems.postgres.is_current(id, &row.id, found.serial, pepper));
        if !systems.postgres.tenants.keys().any(|id| is_current(id)) {
            return fail("the key in its Secret does not let it in".to_owned());
        }
    }
    Ok(())
}

/// Topics, and who may use them.
fn log(systems: &Systems, tenant: &str, user: &str, spec: &Value, types: usize) -> Result<(), String> {
    let listed = spec["contextTypes"].as_array().map(Vec::as_slice).unwrap_or_default();
    if types < listed.len() {
        return Err(format!("Tenant {tenant} has {types} context types, and lists {}", listed.len()));
    }
    let Some(kafka) = &systems.kafka else { return Ok(()) };
    for listed in listed {
        let topic = format!("acb.{tenant}.{}", listed["name"].as_str().unwrap());
        let days = listed["retention"].as_str().map_or(7, |text| text.trim_end_matches('d').parse().unwrap_or(7));
        let found = kafka.topics.get(&topic).ok_or_else(|| format!("topic {topic} is missing"))?;
        if found.retention_seconds != days * DAY {
            return Err(format!("topic {topic} keeps {} s", found.retention_seconds));
        }
    }
    let found = kafka.users.get(user).ok_or_else(|| format!("Tenant {tenant} has no user"))?;
    if found.prefixes != [format!("acb.{tenant}.")] {
        return Err(format!("the user of {tenant} may use {:?}", found.prefixes));
    }
    if spec["tier"] != "Enterprise" && found.quota.producer_bytes_per_second.is_none() {
        return Err(format!("the user of {tenant} has no quota"));
    }
    Ok(())
}

/// One generation of each, which its pods have, and which answers what was asked for.
fn secrets(systems: &Systems, space: &str, asked: &Value) -> Result<(), String> {
    let own: Vec<_> = systems.kubernetes.secrets.iter().filter(|(secret, _)| secret.namespace == space).collect();
    for (secret, found) in &own {
        if own.iter().filter(|(other, _)| other.name == secret.name).count() > 1 {
            return Err(format!("what was replaced of {space}/{} lies around", secret.name));
        }
        if asked.as_str().is_some_and(|asked| found.asked.as_deref() != Some(asked)) {
            return Err(format!("{} does not answer {asked}", secret.object_name()));
        }
        if !systems.kubernetes.mounted(space).contains(&secret.object_name()) {
            return Err(format!("the hub in {space} does not have {}", secret.object_name()));
        }
    }
    Ok(())
}
