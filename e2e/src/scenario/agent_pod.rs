//! Agents in pods of their tenant's namespace, with the agent's key and the tenant's CA: the command line, or an agent under load.

use std::time::Instant;

use serde_json::{Value, json};

use super::World;
use crate::{
    error::{Error, Result, wrong},
    node,
    process::eventually,
};

/// A pod that was started.
pub(super) struct AgentPod {
    namespace: String,
    name: String,
}

/// What an agent needs: the Secret of its key, and its hub.
struct Access {
    secret: String,
    server: String,
}

fn access(world: &World, tenant: &str, agent: &str) -> Result<Access> {
    let namespace = format!("acb-{tenant}");
    let object = world.kubectl.get(&["--namespace", &namespace, "agents.acb.dev", agent])?;
    let Some(secret) = object["status"]["apiKeySecret"].as_str() else {
        return wrong(format!("agent {namespace}/{agent} has no API key in its status: {}", object["status"]));
    };
    Ok(Access { secret: secret.to_owned(), server: server(world, tenant)? })
}

fn server(world: &World, tenant: &str) -> Result<String> {
    let object = world.kubectl.get(&["tenant", tenant])?;
    match object["status"]["endpoints"][0]["address"].as_str() {
        Some(endpoint) => Ok(format!("https://{endpoint}")),
        None => wrong(format!("tenant {tenant} has no endpoint in its status: {}", object["status"])),
    }
}

fn key_volume(secret: &str) -> Value {
    json!({"name": "key", "secret": {"secretName": secret, "defaultMode": 0o440}})
}

/// Starts `acb` with these arguments, logged in as an agent.
pub(super) fn start(world: &World, tenant: &str, agent: &str, name: &str, arguments: &[&str]) -> Result<AgentPod> {
    start_with(world, tenant, &format!("{name}-{agent}"), &access(world, tenant, agent)?, arguments)
}

/// The same, with a key of this Secret.
pub(super) fn start_with_key(
    world: &World,
    tenant: &str,
    agent: &str,
    secret: &str,
    name: &str,
    arguments: &[&str],
) -> Result<AgentPod> {
    let access = Access { secret: secret.to_owned(), ..access(world, tenant, agent)? };
    start_with(world, tenant, name, &access, arguments)
}

fn start_with(world: &World, tenant: &str, name: &str, access: &Access, arguments: &[&str]) -> Result<AgentPod> {
    let server = &access.server;
    let login = ["login", "--profile", "hub", "--server", server, "--ca", "/ca/ca.crt", "--api-key-file", "/key/api-key"];
    let containers = json!({
        "initContainers": [container("login", "acb", &login)],
        "containers": [container("agent", "acb", arguments)],
    });
    apply(world, tenant, name, &key_volume(&access.secret), containers)
}

/// Starts an agent under load, in the place of one that an earlier scenario may have left behind.
pub(super) fn start_load(world: &World, tenant: &str, agent: &str, arguments: &[&str]) -> Result<AgentPod> {
    let access = access(world, tenant, agent)?;
    let mut all = vec!["--server", &access.server, "--ca", "/ca/ca.crt", "--api-key-file", "/key/api-key"];
    all.extend(arguments);
    let containers = json!({"containers": [container("agent", "acb-e2e-agent", &all)]});
    let name = format!("load-{agent}");
    let namespace = format!("acb-{tenant}");
    world.kubectl.run(&["--namespace", &namespace, "delete", "pod", &name, "--ignore-not-found", "--timeout=60s"])?;
    apply(world, tenant, &name, &key_volume(&access.secret), containers)
}

/// Starts `acb` with these arguments, logged in with nothing but the token of a ServiceAccount.
pub(super) fn start_with_account(
    world: &World,
    tenant: &str,
    account: &str,
    audience: &str,
    name: &str,
    arguments: &[&str],
) -> Result<AgentPod> {
    let server = server(world, tenant)?;
    let login = ["login", "--profile", "hub", "--server", &server, "--ca", "/ca/ca.crt", "--token-file", "/key/token"];
    let token = json!({"serviceAccountToken": {"audience": audience, "expirationSeconds": 600, "path": "token"}});
    let more = json!({
        "serviceAccountName": account,
        "initContainers": [container("login", "acb", &login)],
        "containers": [container("agent", "acb", arguments)],
    });
    apply(world, tenant, name, &json!({"name": "key", "projected": {"defaultMode": 0o440, "sources": [token]}}), more)
}

fn container(name: &str, image: &str, arguments: &[&str]) -> Value {
    json!({
        "name": name,
        "image": format!("{image}:{}", env!("CARGO_PKG_VERSION")),
        "args": arguments,
        "env": [{"name": "ACB_CONFIG", "value": "/state/config.yaml"}],
        "volumeMounts": [
            {"name": "state", "mountPath": "/state"},
            {"name": "ca", "mountPath": "/ca", "readOnly": true},
            {"name": "key", "mountPath": "/key", "readOnly": true},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
    })
}

fn apply(world: &World, tenant: &str, name: &str, key: &Value, containers: Value) -> Result<AgentPod> {
    let namespace = format!("acb-{tenant}");
    let mut spec = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": 2,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "state", "emptyDir": {}},
            {"name": "ca", "configMap": {"name": "acb-ca"}},
            key,
        ],
    });
    if let (Some(spec), Value::Object(containers)) = (spec.as_object_mut(), containers) {
        spec.extend(containers);
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    });
    world.kubectl.apply(&pod.to_string())?;
    Ok(AgentPod { namespace, name: name.to_owned() })
}

/// Waits until it has logged in and runs.
pub(super) fn wait_running(world: &World, pod: &AgentPod) -> Result<()> {
    wait_phase(world, pod, "Running", 60)
}

/// Waits until it has ended well, and answers with what it printed.
pub(super) fn wait_done(world: &World, pod: &AgentPod, seconds: u64) -> Result<String> {
    wait_phase(world, pod, "Succeeded", seconds)?;
    said(world, pod)
}

/// What it has printed so far.
pub(super) fn said(world: &World, pod: &AgentPod) -> Result<String> {
    world.kubectl.run(&["--namespace", &pod.namespace, "logs", &pod.name, "--container", "agent"])
}

/// Tells it to end in order. Unlike a deletion this leaves what it printed.
pub(super) fn end(world: &World, pod: &AgentPod) -> Result<()> {
    node::signal(&world.kubectl, &pod.namespace, &pod.name, "SIGTERM")
}

/// Waits until it has failed, and answers with what it said.
pub(super) fn wait_refused(world: &World, pod: &AgentPod) -> Result<String> {
    match wait_phase(world, pod, "Succeeded", 120) {
        Err(Error::Wrong(said)) => Ok(said),
        Err(error) => Err(error),
        Ok(()) => wrong(format!("pod {}/{} was not refused: {}", pod.namespace, pod.name, said(world, pod)?)),
    }
}

fn wait_phase(world: &World, pod: &AgentPod, phase: &str, seconds: u64) -> Result<()> {
    let seen = eventually(seconds, &format!("pod {}/{} is {phase}", pod.namespace, pod.name), || {
        let object = world.kubectl.get(&["--namespace", &pod.namespace, "pod", &pod.name]).map_err(|error| error.to_string())?;
        match object["status"]["phase"].as_str() {
            Some(now) if now == phase || now == "Failed" => Ok(now.to_owned()),
            _ => Err(object["status"].to_string()),
        }
    })?;
    if seen == phase {
        return Ok(());
    }
    let said = |container: &str| {
        let logs = ["--namespace", &pod.namespace, "logs", &pod.name, "--container", container, "--tail=20"];
        world.kubectl.run(&logs).unwrap_or_default()
    };
    wrong(format!("pod {}/{} failed: {}{}", pod.namespace, pod.name, said("login"), said("agent")))
}

/// Waits until its program has ended, and when that was seen.
pub(super) fn ended_at(world: &World, pod: &AgentPod, seconds: u64) -> Result<Instant> {
    eventually(seconds, &format!("pod {}/{} has ended", pod.namespace, pod.name), || {
        let object = world.kubectl.get(&["--namespace", &pod.namespace, "pod", &pod.name]).map_err(|error| error.to_string())?;
        match object["status"]["containerStatuses"][0]["state"]["terminated"].is_null() {
            true => Err(object["status"].to_string()),
            false => Ok(Instant::now()),
        }
    })
}

/// A command of `acb` to its end, in a pod of its own, and what it printed.
pub(super) fn run(world: &World, tenant: &str, agent: &str, name: &str, arguments: &[&str]) -> Result<String> {
    let pod = start(world, tenant, agent, name, arguments)?;
    let said = wait_done(world, &pod, 120)?;
    remove(world, &pod)?;
    Ok(said)
}

/// One request, and the answer.
pub(super) fn ask(world: &World, tenant: &str, from: &str, to: &str, topic: &str) -> Result<String> {
    run(world, tenant, from, "asks", &["request", to, "hello", "--topic", topic, "--timeout", "60s"])
}

/// Logs in, and sees for whom it speaks.
pub(super) fn is_let_in(world: &World, tenant: &str, agent: &str) -> Result<()> {
    let said = run(world, tenant, agent, "whoami", &["whoami"])?;
    if said.contains(agent) { Ok(()) } else { wrong(format!("{agent} of {tenant} is told that it is {said}")) }
}

/// Ends it, and waits until it is gone.
pub(super) fn remove(world: &World, pod: &AgentPod) -> Result<()> {
    world.kubectl.run(&["--namespace", &pod.namespace, "delete", "pod", &pod.name, "--timeout=60s"]).map(drop)
}
