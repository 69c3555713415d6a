//! `contexts`: a person's command line finds a tenant's hub by the cluster, and speaks to it by port-forward.

use serde_json::Value;

use super::{
    World,
    account::{acb, said},
    agent_pod, tenant,
};
use crate::{
    error::{Result, wrong},
    node,
};

pub(super) fn run(world: &mut World) -> Result<()> {
    let admin = world.place.kubeconfig("admin");
    let ok = |arguments: &[&str]| {
        let output = acb(world, &admin, arguments)?;
        if output.status.success() { Ok(String::from_utf8_lossy(&output.stdout).into_owned()) } else { wrong(said(&output)) }
    };
    let listed: Value = serde_json::from_str(&ok(&["get", "tn", "acme", "--cluster", "--output", "json"])?)?;
    if listed["metadata"]["name"] != "acme" || !listed["status"]["endpoints"][0]["address"].is_string() {
        return wrong(format!("acb get: {listed}"));
    }
    let agents = ok(&["get", "agt", "--cluster", "--namespace", "acb-acme"])?;
    if !agents.contains("worker-a-api-key-") {
        return wrong(format!("acb get: {agents}"));
    }
    ok(&["login", "acme/supervisor", "--cluster"])?;
    let profiles = ok(&["profile", "list"])?;
    if !profiles.contains("acme/supervisor") || !profiles.contains("https://hub.acbhub-acme.svc:8443 by port-forward") {
        return wrong(format!("acb profile: {profiles}"));
    }
    let whoami: Value = serde_json::from_str(&ok(&["whoami", "--profile", "acme/supervisor", "--output", "json"])?)?;
    if (&whoami["tenant"], &whoami["agent"]) != (&Value::from("acme"), &Value::from("supervisor")) {
        return wrong(format!("acb whoami: {whoami}"));
    }
    let page = ok(&["status", "tenant", "acme", "--cluster"])?;
    for part in [
        "replicas are ready",
        "Running",
        "hub-postgres-",
        "worker-a-api-key-",
        "acb.acme.sys.messages",
        "Last events",
        "Waits for\nnothing",
    ] {
        if !page.contains(part) {
            return wrong(format!("acb status, without {part:?}: {page}"));
        }
    }
    let orphans = ok(&["get", "orphans", "--cluster", "--service-account", "acb-system/acb-operator", "--output", "json"])?;
    let orphans: Value = serde_json::from_str(&orphans)?;
    if !orphans["lookedAt"].is_string() || orphans["away"] != serde_json::json!([]) || orphans["orphans"] != serde_json::json!([])
    {
        return wrong(format!("acb get orphans: {orphans}"));
    }
    let answers = agent_pod::start(world, "acme", "worker-a", "forwarded", &["reply", "--topic", "hail", "over here"])?;
    agent_pod::wait_running(world, &answers)?;
    let ask = || ok(&["request", "--profile", "acme/supervisor", "worker-a", "hello", "--topic", "hail"]);
    let first = ask()?;
    // Whichever pod is left is gone to.
    if let Some(pod) = tenant::hub_pods(world, "acme")?.first() {
        node::signal(&world.kubectl, "acbhub-acme", pod, "SIGKILL")?;
    }
    let second = ask()?;
    agent_pod::remove(world, &answers)?;
    world.kubectl.run(&["--namespace", "acbhub-acme", "rollout", "status", "deployment/hub", "--timeout=90s"])?;
    if !first.contains("over here") || !second.contains("over here") {
        return wrong(format!("worker-a answered {first:?}, and {second:?}"));
    }
    let nobody = acb(world, &admin, &["login", "acme/nobody", "--cluster"])?;
    if nobody.status.code() == Some(3) && said(&nobody).contains("there is no Agent acb-acme/nobody") {
        return Ok(());
    }
    wrong(format!("an agent that is not there: {}", said(&nobody)))
}
