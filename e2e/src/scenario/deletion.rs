//! Tenants that are deleted, and made again under their names.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    World, agent_pod,
    hand::{self, count, sql, tenant_id},
    operator, tenant,
};
use crate::{
    backends::{self, Order},
    error::{Result, wrong},
    process::eventually,
};

/// Whose tenants come and go.
pub(super) const TENANT: &str = "umbrella";
const AGENT: &str = "clerk";

/// `delete`: with Delete nothing is left, with Retain the data is.
pub(super) fn delete(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    let (gone, kept) = (tenant_id(world, "initech")?, tenant_id(world, "globex")?);
    kubectl.run(&["delete", "tenant", "initech", "globex", "--timeout=180s"])?;
    for namespace in ["acb-initech", "acbhub-initech"] {
        kubectl.wait_gone(&["namespace", namespace], 90)?;
    }
    // Retained data is of no use without the keys to it: the namespaces stay, the hub does not.
    kubectl.wait_gone(&["--namespace", "acbhub-globex", "deployment", "hub"], 90)?;
    kubectl.get(&["namespace", "acb-globex"])?;
    let rows = |id: &str| count(world, &format!("acb.tenant WHERE tenant_id = decode('{id}', 'hex')"));
    match (rows(&gone)?, rows(&kept)?) {
        (0, 1) => {}
        (gone, kept) => {
            return wrong(format!("rows of the tenant with Delete: {gone}, with Retain: {kept}; 0 and 1 were expected"));
        }
    }
    let logins = count(world, &format!("pg_roles WHERE rolname = 'acb_t_{gone}'"))?;
    if logins == 0 { Ok(()) } else { wrong("the login of the tenant with Delete is still there") }
}

/// Applies a tenant with one agent, and waits until both are ready.
pub(super) fn apply(world: &World) -> Result<()> {
    let tenant = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": TENANT},
        "spec": {"tier": "Free", "deletionPolicy": "Delete", "contextTypes": [{"name": "notes"}]},
    });
    let agent = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Agent", "metadata": {"name": AGENT, "namespace": format!("acb-{TENANT}")},
        "spec": {"role": "AgentFull", "publishes": ["notes"], "subscribes": ["notes"]},
    });
    world.kubectl.apply(&tenant.to_string())?;
    let agent = agent.to_string();
    eventually(60, "the agent is applied", || world.kubectl.apply(&agent).map_err(|error| error.to_string()))?;
    world.kubectl.wait_for("Ready", &[&format!("tenant/{TENANT}")], 90)?;
    world.kubectl.wait_for("Ready", &["--namespace", &format!("acb-{TENANT}"), &format!("agent.acb.dev/{AGENT}")], 150)
}

/// Everything secret that a tenant has.
struct Secrets {
    /// By namespace and name.
    data: Vec<(String, Value)>,
    api_key: String,
}

fn secrets(world: &World) -> Result<Secrets> {
    let mut data = Vec::new();
    for namespace in [format!("acb-{TENANT}"), format!("acbhub-{TENANT}")] {
        let list = world.kubectl.get(&["--namespace", &namespace, "secrets"])?;
        for secret in list["items"].as_array().into_iter().flatten() {
            let name = secret["metadata"]["name"].as_str().unwrap_or_default();
            for (field, value) in secret["data"].as_object().into_iter().flatten() {
                // Authorities that the platform gave are nobody's secret.
                if field != "ca.crt" {
                    data.push((format!("{namespace}/{name}: {field}"), value.clone()));
                }
            }
        }
    }
    let key = data.iter().find(|(name, _)| name.ends_with(": api-key")).and_then(|(_, value)| value.as_str());
    let api_key = String::from_utf8_lossy(&STANDARD.decode(key.unwrap_or_default()).unwrap_or_default()).into_owned();
    if api_key.is_empty() { wrong(format!("{TENANT} has no API key")) } else { Ok(Secrets { data, api_key }) }
}

/// `made-again`: a tenant of the same name is another tenant.
pub(super) fn made_again(world: &mut World) -> Result<()> {
    apply(world)?;
    let (id, before) = (tenant_id(world, TENANT)?, secrets(world)?);
    agent_pod::is_let_in(world, TENANT, AGENT)?;
    world.kubectl.run(&["delete", "tenant", TENANT, "--timeout=180s"])?;
    for namespace in [format!("acb-{TENANT}"), format!("acbhub-{TENANT}")] {
        world.kubectl.wait_gone(&["namespace", &namespace], 120)?;
    }
    apply(world)?;
    if tenant_id(world, TENANT)? == id {
        return wrong("the new tenant has the id of the old one");
    }
    let now = secrets(world)?;
    // What everybody knows stays: names that are no secret.
    let known = |(_, value): &&(String, Value)| {
        let text = STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default();
        !text.is_empty()
    };
    let same = now.data.iter().filter(known).find(|(_, value)| before.data.iter().any(|(_, old)| old == value));
    if let Some((name, _)) = same {
        return wrong(format!("{name} is what the old tenant had"));
    }
    old_key_is_refused(world, &before.api_key)?;
    agent_pod::is_let_in(world, TENANT, AGENT)
}

/// A pod that has the old tenant's key is refused by the new one's hub.
fn old_key_is_refused(world: &World, key: &str) -> Result<()> {
    let namespace = format!("acb-{TENANT}");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "old-key", "namespace": namespace}, "stringData": {"api-key": key},
    });
    world.kubectl.apply(&secret.to_string())?;
    let pod = agent_pod::start_with_key(world, TENANT, AGENT, "old-key", "old", &["whoami"])?;
    let said = agent_pod::wait_refused(world, &pod)?;
    agent_pod::remove(world, &pod)?;
    world.kubectl.run(&["--namespace", &namespace, "delete", "secret", "old-key"])?;
    if said.contains("API key") { Ok(()) } else { wrong(format!("the old key was refused for another reason: {said}")) }
}

/// `retained`: a tenant of a name under which data was retained waits, until the platform takes the data over, or removes it.
pub(super) fn retained(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    let old = sql(world, "SELECT encode(tenant_id, 'hex') FROM acb.tenant WHERE name = 'globex'")?;
    tenant::apply_sample(world, "globex")?;
    operator::says(world, &["tenant/globex"], "RetainedData", &old, 60)?;
    // These go while nobody knows whose they were.
    kubectl.run(&["--namespace", "acb-globex", "delete", "agents.acb.dev", "--all", "--timeout=60s"])?;
    // docs/day-two.md, "Take it over".
    kubectl.run(&["annotate", "tenant", "globex", &format!("acb.dev/adopt={old}")])?;
    world.kubectl.wait_for("Ready", &["tenant/globex"], 120)?;
    let of_it = format!("WHERE tenant_id = decode('{old}', 'hex')");
    let (agents, keys) =
        (count(world, &format!("acb.agent {of_it} AND NOT suspended"))?, count(world, &format!("acb.api_key {of_it}"))?);
    if agents > 0 || keys > 0 {
        return wrong(format!("{agents} agents that nobody has, and {keys} of their keys, came back with the data"));
    }
    let is_there = |world: &World| -> Result<()> {
        world.kubectl.wait_for("Ready", &["tenant/globex"], 120)?;
        tenant::apply_sample(world, "globex")?;
        world.kubectl.wait_for("Ready", &["--namespace", "acb-globex", "agents.acb.dev", "--all"], 60)?;
        agent_pod::is_let_in(world, "globex", "analyst")
    };
    is_there(world)?;
    if tenant_id(world, "globex")? != old {
        return wrong("the adopted tenant has another id than its data");
    }
    // What was granted holds, and is what is removed.
    kubectl.run(&["annotate", "tenant", "globex", "acb.dev/adopt-"])?;
    // "Remove it".
    let deletes = ["patch", "tenant", "globex", "--type=merge", "--patch", r#"{"spec":{"deletionPolicy":"Delete"}}"#];
    let refused = kubectl.output(&deletes)?;
    if refused.status.success() || !String::from_utf8_lossy(&refused.stderr).contains("acb.dev/confirm-delete=globex") {
        return wrong("the data is to go with its Tenant although nobody confirmed it");
    }
    kubectl.run(&["annotate", "tenant", "globex", "acb.dev/confirm-delete=globex"])?;
    kubectl.run(&deletes)?;
    kubectl.run(&["delete", "tenant", "globex", "--timeout=180s"])?;
    for namespace in ["acb-globex", "acbhub-globex"] {
        kubectl.wait_gone(&["namespace", namespace], 90)?;
    }
    let left = count(world, &format!("acb.tenant WHERE tenant_id = decode('{old}', 'hex')"))?;
    if left > 0 || !hand::observe_kafka_topics(world, "globex")?.is_empty() {
        return wrong("rows or topics of the removed tenant are left");
    }
    tenant::apply_sample(world, "globex")?;
    is_there(world)
}

/// `delete-while-kafka-down`: what Kafka is not needed for goes at once; the rest when it is back, and not before the Tenant may go.
pub(super) fn while_kafka_down(world: &mut World) -> Result<()> {
    apply(world)?;
    agent_pod::is_let_in(world, TENANT, AGENT)?;
    let id = tenant_id(world, TENANT)?;
    backends::order(Order::StopKafka)?;
    let shut = shut_without_kafka(world, &id);
    // Also where that failed: later scenarios need it.
    backends::order(Order::StartKafka)?;
    shut?;
    world.kubectl.wait_gone(&["tenant", TENANT], 180)?;
    is_nothing_left(world, TENANT, &id)
}

fn shut_without_kafka(world: &World, id: &str) -> Result<()> {
    world.kubectl.run(&["delete", "tenant", TENANT, "--wait=false"])?;
    world.kubectl.wait_gone(&["--namespace", &format!("acbhub-{TENANT}"), "deployment", "hub"], 90)?;
    eventually(90, "the login is barred", || {
        match count(world, &format!("pg_roles WHERE rolname = 'acb_t_{id}' AND rolcanlogin")) {
            Ok(0) => Ok(()),
            Ok(_) => Err("it may log in".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    })?;
    let tenant = format!("tenant/{TENANT}");
    operator::says(world, &[&tenant], "Retrying", "Kafka", 60)?;
    // Its data is asked to go, and can't: whoever asked is not told that it is gone.
    if count(world, &format!("acb.tenant WHERE tenant_id = decode('{id}', 'hex')"))? != 1 {
        return wrong("the rows went before the topics, whose they prove to be");
    }
    world.kubectl.get(&["namespace", &format!("acbhub-{TENANT}")]).map(drop)
}

/// Nothing of a tenant that was deleted with Delete is left in any system.
fn is_nothing_left(world: &World, tenant: &str, id: &str) -> Result<()> {
    world.kubectl.wait_gone(&["namespace", &format!("acbhub-{tenant}")], 120)?;
    let (rows, logins) = (
        count(world, &format!("acb.tenant WHERE tenant_id = decode('{id}', 'hex')"))?,
        count(world, &format!("pg_roles WHERE rolname = 'acb_t_{id}'"))?,
    );
    let kafka = hand::observe_kafka_of(world, tenant, id)?;
    if rows > 0 || logins > 0 || kafka.has_user || !kafka.topics.is_empty() {
        return wrong(format!("left of {tenant}: {rows} rows, {logins} logins, in Kafka {kafka:?}"));
    }
    Ok(())
}

/// `delete-after-namespace`: a Tenant whose given namespace was removed before it takes all that it has with it.
pub(super) fn after_namespace(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    let (name, space) = ("initrode", "team-initrode");
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": {"acb.dev/tenant": name}},
    });
    let tenant = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name},
        "spec": {"tier": "Free", "deletionPolicy": "Delete", "agentNamespace": space},
    });
    kubectl.apply(&namespace.to_string())?;
    kubectl.apply(&tenant.to_string())?;
    let object = format!("tenant/{name}");
    kubectl.wait_for("Ready", &[&object], 120)?;
    let id = tenant_id(world, name)?;
    kubectl.run(&["delete", "namespace", space, "--timeout=120s"])?;
    operator::says(world, &[&object], "NamespaceNotOurs", space, 90)?;
    kubectl.run(&["delete", "tenant", name, "--timeout=180s"])?;
    is_nothing_left(world, name, &id)
}

/// `suspended`: agents are refused while their tenant is, and come back as they were.
pub(super) fn suspended(world: &mut World) -> Result<()> {
    apply(world)?;
    agent_pod::is_let_in(world, TENANT, AGENT)?;
    let tenant = format!("tenant/{TENANT}");
    let suspend = |suspend: bool| {
        let patch = json!({"spec": {"suspend": suspend}}).to_string();
        world.kubectl.run(&["patch", &tenant, "--type=merge", "--patch", &patch]).map(drop)
    };
    suspend(true)?;
    operator::says(world, &[&tenant], "Suspended", "suspend", 60)?;
    // It has come to where it was to be: nobody who waits for it waits for ever.
    world.kubectl.wait_for("Ready", &[&tenant], 10)?;
    let pod = agent_pod::start(world, TENANT, AGENT, "suspended", &["whoami"])?;
    agent_pod::wait_refused(world, &pod)?;
    agent_pod::remove(world, &pod)?;
    suspend(false)?;
    world.kubectl.wait_for("Ready", &[&tenant], 60)?;
    eventually(60, "the agent is let in again", || agent_pod::is_let_in(world, TENANT, AGENT).map_err(|error| error.to_string()))
}

/// `by-hand`: namespaces and the kind of the agents, deleted by hand. Nothing hangs; what can come back by itself does.
pub(super) fn by_hand(world: &mut World) -> Result<()> {
    apply(world)?;
    let kubectl = &world.kubectl;
    for namespace in [format!("acb-{TENANT}"), format!("acbhub-{TENANT}")] {
        let uid = |world: &World| -> Result<Value> {
            let found = world.kubectl.find(&["namespace", &namespace])?;
            Ok(found.map(|found| found["metadata"]["uid"].clone()).unwrap_or_default())
        };
        let before = uid(world)?;
        kubectl.run(&["delete", "namespace", &namespace, "--timeout=120s"])?;
        eventually(90, &format!("namespace {namespace} is there again"), || match uid(world) {
            Ok(now) if now != before && !now.is_null() => Ok(()),
            Ok(now) => Err(now.to_string()),
            Err(error) => Err(error.to_string()),
        })?;
        kubectl.wait_for("Ready", &[&format!("tenant/{TENANT}")], 120)?;
        // Agents are the team's: nobody else puts them back.
        apply(world)?;
        agent_pod::is_let_in(world, TENANT, AGENT)?;
    }
    let hubs = tenant::hub_pods(world, TENANT)?;
    kubectl.run(&["delete", "crd", "agents.acb.dev", "--timeout=120s"])?;
    operator::resynced(world)?;
    super::install::helm(world, &[])?;
    kubectl.wait_for("Established", &["crd/agents.acb.dev"], 30)?;
    apply(world)?;
    agent_pod::is_let_in(world, TENANT, AGENT)?;
    if tenant::hub_pods(world, TENANT)? != hubs {
        return wrong("the hub was replaced when the kind of the agents went");
    }
    // The others' agents went, too.
    for name in ["acme", "globex"] {
        if kubectl.find(&["tenant", name])?.is_some() {
            tenant::apply_sample(world, name)?;
            kubectl.wait_for("Ready", &["--namespace", &format!("acb-{name}"), "agents.acb.dev", "--all"], 60)?;
        }
    }
    Ok(())
}
