//! A tenant as its team sees it: applied, ready, its agents talking.

use std::time::Instant;

use serde_json::{Value, json};

use super::{World, agent_pod, operator};
use crate::{
    error::{Result, wrong},
    process::eventually,
    say,
};

/// What was promised.
const READY_SECONDS: u64 = 60;
/// Selects the hub's pods among those of its namespace.
pub(super) const HUB_PODS: &str = "app.kubernetes.io/component=hub";

/// `tenant-ready`.
pub(super) fn ready(world: &mut World) -> Result<()> {
    let start = Instant::now();
    apply_sample(world, "acme")?;
    world.kubectl.wait_for("Ready", &["tenant/acme"], READY_SECONDS)?;
    let seconds = start.elapsed().as_secs_f64();
    say(&format!("         acme is Ready after {seconds:.1} s"));
    if seconds > READY_SECONDS as f64 {
        return wrong(format!("acme was Ready after {seconds:.1} s: {READY_SECONDS} s were promised"));
    }
    world.kubectl.wait_for("Ready", &["--namespace", "acb-acme", "agents.acb.dev", "--all"], 30)?;
    apply_sample(world, "globex")?;
    world.kubectl.wait_for("Ready", &["tenant/globex"], READY_SECONDS)?;
    world.kubectl.wait_for("Ready", &["--namespace", "acb-globex", "agents.acb.dev", "--all"], 30)
}

/// Applies a sample as a user or a GitOps tool does: once.
pub(super) fn apply_sample(world: &World, name: &str) -> Result<()> {
    world.kubectl.run(&["apply", "--filename", &sample(world, name).display().to_string()]).map(drop)
}

fn sample(world: &World, name: &str) -> std::path::PathBuf {
    world.place.root.join("config/samples").join(format!("{name}.yaml"))
}

/// `agents-talk`: one pod answers, another asks.
pub(super) fn agents_talk(world: &mut World) -> Result<()> {
    talk(world)
}

/// One pod answers, another asks.
pub(super) fn talk(world: &World) -> Result<()> {
    let answers = agent_pod::start(world, "acme", "worker-a", "answers", &["reply", "--topic", "greet", "good day"])?;
    agent_pod::wait_running(world, &answers)?;
    let reply = agent_pod::ask(world, "acme", "supervisor", "worker-a", "greet")?;
    agent_pod::remove(world, &answers)?;
    if reply.contains("good day") { Ok(()) } else { wrong(format!("worker-a answered {reply:?}")) }
}

/// `reapply`: what GitOps does every few minutes changes nothing.
pub(super) fn reapply(world: &mut World) -> Result<()> {
    for name in ["acme", "globex"] {
        world.kubectl.wait_for("Ready", &[&format!("tenant/{name}")], 60)?;
    }
    let before = versions(world)?;
    for name in ["acme", "globex"] {
        apply_sample(world, name)?;
    }
    // Only then a write would have come.
    operator::resynced(world)?;
    let after = versions(world)?;
    let changed: Vec<&String> = before.keys().filter(|name| before.get(*name) != after.get(*name)).collect();
    if changed.is_empty() { Ok(()) } else { wrong(format!("these changed, though nothing was changed: {changed:?}")) }
}

/// The resource versions of the kinds and of what the operator owns.
fn versions(world: &World) -> Result<std::collections::BTreeMap<String, String>> {
    let mut all = Vec::new();
    for kinds in [
        "tenants.acb.dev,agents.acb.dev,quotas.acb.dev",
        "deployments,services,secrets,configmaps,networkpolicies,serviceaccounts,rolebindings,poddisruptionbudgets",
    ] {
        let list = world.kubectl.get(&[kinds, "--all-namespaces"])?;
        all.extend(list["items"].as_array().cloned().unwrap_or_default());
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let named = |item: &Value| {
        let meta = &item["metadata"];
        let name = format!("{} {}/{}", text(&item["kind"]), text(&meta["namespace"]), text(&meta["name"]));
        (name, text(&meta["resourceVersion"]))
    };
    let ours = |item: &&Value| item["metadata"]["namespace"].as_str().is_none_or(|namespace| namespace.starts_with("acb"));
    Ok(all.iter().filter(ours).map(named).collect())
}

/// `quota`: a Quota that changes holds without a restart.
pub(super) fn quota(world: &mut World) -> Result<()> {
    let pods = hub_pods(world, "acme")?;
    let spec = json!({"limits": {"messagesPerMinute": 123}});
    let quota = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Quota", "metadata": {"name": "e2e", "namespace": "acb-acme"}, "spec": spec,
    });
    world.kubectl.apply(&quota.to_string())?;
    eventually(60, "the Quota is in the supervisor's effective limits", || {
        let agent = world.kubectl.get(&["--namespace", "acb-acme", "quota.acb.dev", "e2e"]).map_err(|error| error.to_string())?;
        match agent["status"]["effective"]["messagesPerMinute"].as_i64() {
            Some(123) => Ok(()),
            _ => Err(agent["status"].to_string()),
        }
    })?;
    world.kubectl.run(&["--namespace", "acb-acme", "delete", "quota.acb.dev", "e2e"])?;
    if hub_pods(world, "acme")? == pods { Ok(()) } else { wrong("a Quota restarted the hub") }
}

/// The names of a tenant's hub pods.
pub(super) fn hub_pods(world: &World, tenant: &str) -> Result<Vec<String>> {
    let namespace = format!("acbhub-{tenant}");
    // Pods of the Jobs that attack the walls are there, too.
    let list = world.kubectl.get(&["--namespace", &namespace, "pods", "--selector", HUB_PODS])?;
    let alive = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned);
    let mut names: Vec<String> = list["items"].as_array().into_iter().flatten().filter(alive).filter_map(name).collect();
    names.sort();
    Ok(names)
}
