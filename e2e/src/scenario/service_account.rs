//! An agent without a secret: its pod logs in with the token that the kubelet projects into it, as docs/authentication.md says.

use std::time::Instant;

use serde_json::{Value, json};

use super::{World, agent_pod};
use crate::{
    error::{Result, wrong},
    process::eventually,
    say,
};

const TENANT: &str = "unkeyed";
const NAMESPACE: &str = "acb-unkeyed";
/// Of the agent and of its account.
const NAME: &str = "worker";
/// What was promised, and a moment until what ended is seen in the status of its pod.
const ENDS_WITHIN: f64 = 5.0;
const SEEN_WITHIN: u64 = 30;

/// `service-account`.
pub(super) fn run(world: &mut World) -> Result<()> {
    let agent = |name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": NAMESPACE});
        json!({"apiVersion": "acb.dev/v1alpha1", "kind": "Agent", "metadata": metadata, "spec": spec})
    };
    let all = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"acb.dev/tenant": TENANT}}},
        agent(NAME, json!({"role": "AgentFull", "credentials": {"serviceAccount": {"name": NAME}}})),
        agent("asker", json!({"role": "AgentFull"})),
        {
            "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": TENANT, "annotations": {"acb.dev/confirm-delete": TENANT}},
            "spec": {"tier": "Starter", "deletionPolicy": "Delete", "hub": {"replicas": 2}},
        },
    ]});
    world.kubectl.apply(&all.to_string())?;
    world.kubectl.wait_for("Ready", &[&format!("tenant/{TENANT}")], 90)?;
    lacks_account(world)?;
    make_account(world)?;
    world.kubectl.wait_for("Ready", &["--namespace", NAMESPACE, "agents.acb.dev", "--all"], 60)?;
    let status = world.kubectl.get(&["--namespace", NAMESPACE, "agents.acb.dev", NAME])?["status"].clone();
    let Some(audience) = status["tokenAudience"].as_str().filter(|_| status["apiKeySecret"].is_null()) else {
        return wrong(format!("the agent was to have an audience and no key: {status}"));
    };
    is_let_in(world, audience, "unkeyed-first")?;
    is_refused(world, "https://kubernetes.default.svc.cluster.local", "unkeyed-api-server")?;

    let answers =
        agent_pod::start_with_account(world, TENANT, NAME, audience, "unkeyed-answers", &["reply", "--topic", "greet", "hello"])?;
    agent_pod::wait_running(world, &answers)?;
    let reply = agent_pod::ask(world, TENANT, "asker", NAME, "greet")?;
    if !reply.contains("hello") {
        return wrong(format!("{NAME} answered {reply:?}"));
    }
    world.kubectl.run(&["--namespace", NAMESPACE, "delete", "serviceaccount", NAME])?;
    let deleted = Instant::now();
    let ended = agent_pod::ended_at(world, &answers, SEEN_WITHIN)?;
    let seconds = ended.duration_since(deleted).as_secs_f64();
    say(&format!("         what was open ended {seconds:.1} s after the account was deleted"));
    let said = agent_pod::wait_refused(world, &answers)?;
    if !said.contains("SUBJECT_TOKEN_REFUSED") {
        return wrong(format!("the agent ended for another reason: {said}"));
    }
    agent_pod::remove(world, &answers)?;
    if seconds > ENDS_WITHIN {
        return wrong(format!(
            "the agent was let in {seconds:.1} s after its account was deleted: {ENDS_WITHIN} s were promised"
        ));
    }
    lacks_account(world)?;
    // Made again it has another UID, and new tokens.
    make_account(world)?;
    world.kubectl.wait_for("Ready", &["--namespace", NAMESPACE, "agents.acb.dev", NAME], 60)?;
    is_let_in(world, audience, "unkeyed-again")?;
    world.kubectl.run(&["delete", "tenant", TENANT, "--timeout=120s"]).map(drop)
}

fn lacks_account(world: &World) -> Result<()> {
    eventually(30, "the Agent says what it lacks", || {
        let agent = world.kubectl.get(&["--namespace", NAMESPACE, "agents.acb.dev", NAME]).map_err(|error| error.to_string())?;
        let conditions = agent["status"]["conditions"].to_string();
        if conditions.contains("waiting for ServiceAccount") { Ok(()) } else { Err(conditions) }
    })
}

fn make_account(world: &World) -> Result<()> {
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": NAMESPACE}});
    world.kubectl.apply(&account.to_string()).map(drop)
}

fn is_let_in(world: &World, audience: &str, pod: &str) -> Result<()> {
    let pod = agent_pod::start_with_account(world, TENANT, NAME, audience, pod, &["whoami"])?;
    let said = agent_pod::wait_done(world, &pod, 120)?;
    agent_pod::remove(world, &pod)?;
    if said.contains(NAME) { Ok(()) } else { wrong(format!("{NAME} is told that it is {said}")) }
}

fn is_refused(world: &World, audience: &str, pod: &str) -> Result<()> {
    let pod = agent_pod::start_with_account(world, TENANT, NAME, audience, pod, &["whoami"])?;
    let said = agent_pod::wait_refused(world, &pod)?;
    agent_pod::remove(world, &pod)?;
    if said.contains("SUBJECT_TOKEN_REFUSED") { Ok(()) } else { wrong(format!("refused for another reason: {said}")) }
}
