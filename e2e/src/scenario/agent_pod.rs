//! An agent in a pod of its tenant's namespace: the image of the command line, the agent's key, the tenant's CA.

use serde_json::{Value, json};

use super::World;
use crate::{
    error::{Result, wrong},
    process::eventually,
};

/// A pod that was started.
pub(super) struct AgentPod {
    namespace: String,
    name: String,
}

/// Starts `acb` with these arguments, logged in as an agent.
pub(super) fn start(world: &World, tenant: &str, agent: &str, name: &str, arguments: &[&str]) -> Result<AgentPod> {
    let namespace = format!("acb-{tenant}");
    let object = world.kubectl.get(&["--namespace", &namespace, "agents.acb.dev", agent])?;
    let Some(secret) = object["status"]["apiKeySecret"].as_str() else {
        return wrong(format!("agent {namespace}/{agent} has no API key in its status: {}", object["status"]));
    };
    let tenant_object = world.kubectl.get(&["tenant", tenant])?;
    let Some(endpoint) = tenant_object["status"]["endpoints"]["grpc"][0].as_str() else {
        return wrong(format!("tenant {tenant} has no endpoint in its status: {}", tenant_object["status"]));
    };
    let name = format!("{name}-{agent}");
    world.kubectl.apply(&pod(&namespace, &name, secret, &format!("https://{endpoint}"), arguments).to_string())?;
    Ok(AgentPod { namespace, name })
}

fn pod(namespace: &str, name: &str, secret: &str, server: &str, arguments: &[&str]) -> Value {
    let image = format!("acb:{}", env!("CARGO_PKG_VERSION"));
    let security = json!({
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
    });
    let env = json!([{"name": "ACB_CONFIG", "value": "/state/config.yaml"}]);
    let mounts = json!([
        {"name": "state", "mountPath": "/state"},
        {"name": "ca", "mountPath": "/ca", "readOnly": true},
        {"name": "key", "mountPath": "/key", "readOnly": true},
    ]);
    let login = ["login", "--context", "hub", "--server", server, "--ca", "/ca/ca.crt", "--api-key-file", "/key/api-key"];
    let container = |name: &str, arguments: &[&str]| {
        json!({
            "name": name, "image": image, "args": arguments, "env": env, "volumeMounts": mounts, "securityContext": security,
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 2,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "fsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "initContainers": [container("login", &login)],
            "containers": [container("agent", arguments)],
            "volumes": [
                {"name": "state", "emptyDir": {}},
                {"name": "ca", "configMap": {"name": "acb-ca"}},
                {"name": "key", "secret": {"secretName": secret, "defaultMode": 0o440}},
            ],
        },
    })
}

/// Waits until it has logged in and runs.
pub(super) fn wait_running(world: &World, pod: &AgentPod) -> Result<()> {
    wait_phase(world, pod, "Running", 60)
}

/// Waits until it has ended well, and answers with what it printed.
pub(super) fn wait_done(world: &World, pod: &AgentPod, seconds: u64) -> Result<String> {
    wait_phase(world, pod, "Succeeded", seconds)?;
    world.kubectl.run(&["--namespace", &pod.namespace, "logs", &pod.name, "--container", "agent"])
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
        let logs = ["--namespace", &pod.namespace, "logs", &pod.name, "--container", container];
        world.kubectl.run(&logs).unwrap_or_default()
    };
    wrong(format!("pod {}/{} failed: {}{}", pod.namespace, pod.name, said("login"), said("agent")))
}

/// One request from a pod of its own, and the answer.
pub(super) fn ask(world: &World, tenant: &str, from: &str, to: &str, topic: &str) -> Result<String> {
    let pod = start(world, tenant, from, "asks", &["request", to, "hello", "--topic", topic, "--timeout", "60s"])?;
    let said = wait_done(world, &pod, 120)?;
    remove(world, &pod)?;
    Ok(said)
}

/// Ends it, and waits until it is gone.
pub(super) fn remove(world: &World, pod: &AgentPod) -> Result<()> {
    world.kubectl.run(&["--namespace", &pod.namespace, "delete", "pod", &pod.name, "--timeout=60s"]).map(drop)
}
