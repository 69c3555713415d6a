//! The operator's own releases: upgraded, rolled back, uninstalled.

use serde_json::Value;

use super::{
    World, agent_pod, deletion,
    hand::{count, tenant_id},
    install,
    install::SYSTEM,
    load,
    load::Load,
    operator, tenant,
};
use crate::{
    error::{Error, Result, wrong},
    node,
};

/// `upgrade`: the same charts again, while hubs run.
pub(super) fn upgrade(world: &mut World) -> Result<()> {
    let before = tenant::hub_pods(world, "acme")?;
    install::helm(world, &[])?;
    world.kubectl.wait_for("Ready", &["tenant/acme"], 60)?;
    if tenant::hub_pods(world, "acme")? == before { Ok(()) } else { wrong("an upgrade to the same version restarted acme's hub") }
}

/// `rolling-upgrade`: hubs of another image, one replica at a time, under load; and back.
pub(super) fn rolling_upgrade(world: &mut World) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let another = format!("acb-hub:{version}-next");
    node::tag(&format!("docker.io/library/acb-hub:{version}"), &format!("docker.io/library/{another}"))?;
    let load = Load::start(world)?;
    for image in [another, format!("acb-hub:{version}")] {
        install::helm(world, &[&format!("hubImage={image}")])?;
        load::rolled(world, &image)?;
        load.flows(world)?;
    }
    let told = load.finish(world)?;
    if told.refused > 0 {
        return wrong(format!("{} messages were refused during a rolling upgrade", told.refused));
    }
    world.kubectl.wait_for("Ready", &["tenants", "--all"], 120)
}

/// `uninstall`: the operator goes; tenants, their hubs and their data stay, and it takes them up again when it is back.
pub(super) fn uninstall(world: &mut World) -> Result<()> {
    let shared = ["context", "share", "--output", "json", "--type", "documents", "/ca/ca.crt"];
    let said = agent_pod::run(world, "acme", "supervisor", "shares", &shared)?;
    let context: Value = serde_json::from_str(&said)?;
    let context = context["id"].as_str().ok_or_else(|| Error::Wrong(format!("acb context share said {said}")))?;
    let before = (tenant::hub_pods(world, "acme")?, rows(world)?);
    helm_uninstall(world)?;
    let stays = |what: &str| -> Result<()> {
        world.kubectl.get(&["tenant", "acme"])?;
        let now = (tenant::hub_pods(world, "acme")?, rows(world)?);
        if now != before {
            return wrong(format!("{what}: hubs and rows were {before:?}, and are {now:?}"));
        }
        agent_pod::run(world, "acme", "worker-a", "pulls", &["context", "pull", context, "/state/pulled"]).map(drop)
    };
    stays("without the operator")?;
    install::helm(world, &[])?;
    operator::resynced(world)?;
    world.kubectl.wait_for("Ready", &["tenant/acme"], 60)?;
    stays("with the operator back")
}

/// How many rows acme has of what must not be lost.
fn rows(world: &World) -> Result<Vec<u64>> {
    let id = tenant_id(world, "acme")?;
    let tables = ["tenant", "agent", "api_key", "context"];
    tables.into_iter().map(|table| count(world, &format!("acb.{table} WHERE tenant_id = decode('{id}', 'hex')"))).collect()
}

fn helm_uninstall(world: &World) -> Result<()> {
    world.kubectl.helm(&["uninstall", "acb", "--namespace", SYSTEM, "--wait", "--timeout", "120s"]).map(drop)
}

/// `operator-first`: the operator is uninstalled before a tenant is deleted. The last of all: it leaves no operator.
pub(super) fn operator_first(world: &mut World) -> Result<()> {
    deletion::apply(world)?;
    helm_uninstall(world)?;
    let kubectl = &world.kubectl;
    let (tenant, namespace) = (format!("tenant/{}", deletion::TENANT), format!("acb-{}", deletion::TENANT));
    kubectl.run(&["delete", &tenant, "--wait=false"])?;
    kubectl.run(&["--namespace", &namespace, "delete", "agents.acb.dev", "--all", "--wait=false"])?;
    let waits = kubectl.get(&[&tenant])?;
    if waits["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
        return wrong("the tenant went without the operator, and what it had stayed unsaid");
    }
    // docs/install.md, "Uninstall".
    let let_go = |object: &[&str]| {
        let patch = ["--type=merge", "--patch", r#"{"metadata":{"finalizers":null}}"#];
        kubectl.run(&[["patch"].as_slice(), object, patch.as_slice()].concat())
    };
    let agents = kubectl.get(&["--namespace", &namespace, "agents.acb.dev"])?;
    for agent in agents["items"].as_array().into_iter().flatten() {
        let name = agent["metadata"]["name"].as_str().unwrap_or_default();
        let_go(&["--namespace", &namespace, "agent.acb.dev", name])?;
    }
    let_go(&[&tenant])?;
    kubectl.wait_gone(&[&tenant], 30)?;
    kubectl.run(&["delete", "namespace", &namespace, &format!("acbhub-{}", deletion::TENANT), "--timeout=120s"]).map(drop)
}
