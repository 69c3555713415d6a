//! `plan`: a pull-request check asks the operator what a change would do, with an account that may apply nothing.

use std::{path::Path, process::Output};

use serde_json::{Value, json};

use super::{
    World,
    account::{self, NAMESPACE, acb, said},
    install::SYSTEM,
};
use crate::{
    error::{Result, at, wrong},
    process::eventually,
    say,
};

pub(super) const AUDIENCE: &str = "acb.dev/plan";

/// A branch of the repository: a Tenant and its Agent.
const BRANCH: &str = "\
apiVersion: acb.dev/v1alpha1
kind: Tenant
metadata: {name: planned}
spec: {tier: Free, deletionPolicy: Delete, contextTypes: [{name: notes}]}
---
apiVersion: acb.dev/v1alpha1
kind: Agent
metadata: {name: writer, namespace: acb-planned}
spec: {role: AgentFull, publishes: [notes]}
";

pub(super) fn run(world: &mut World) -> Result<()> {
    for name in ["planner", "stranger", "outsider"] {
        account::make(world, name)?;
    }
    let kubectl = &world.kubectl;
    // As docs/gitops.md says: the verb everywhere, the way in the operator's namespace. A stranger has the way alone, an outsider nothing.
    let subject = |name: &str| json!([{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}]);
    let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "acb-planner"});
    let mut way = subject("planner");
    way.as_array_mut()
        .into_iter()
        .for_each(|subjects| subjects.extend(subject("stranger").as_array().cloned().unwrap_or_default()));
    let bindings = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "e2e-planner"},
            "roleRef": role("ClusterRole"), "subjects": subject("planner"),
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "e2e-planner", "namespace": SYSTEM}, "roleRef": role("Role"), "subjects": way,
        },
    ]});
    kubectl.apply(&bindings.to_string())?;
    let folder = world.place.run().join("branch");
    std::fs::create_dir_all(&folder).map_err(at(&folder))?;
    std::fs::write(folder.join("planned.yaml"), BRANCH).map_err(at(&folder))?;
    let result = check(world, &folder);
    world.kubectl.run(&[
        "delete",
        "--ignore-not-found",
        "agents.acb.dev",
        "writer",
        "--namespace=acb-planned",
        "--timeout=60s",
    ])?;
    world.kubectl.run(&["delete", "--ignore-not-found", "tenant", "planned", "--timeout=120s"])?;
    world.kubectl.run(&["delete", "namespace", NAMESPACE, "--timeout=60s"])?;
    world.kubectl.run(&["delete", "clusterrolebinding", "e2e-planner"])?;
    world.kubectl.run(&["--namespace", SYSTEM, "delete", "rolebinding", "e2e-planner"])?;
    result
}

fn check(world: &World, folder: &Path) -> Result<()> {
    let kubeconfig = |name: &str| account::kubeconfig(world, &account::token(world, NAMESPACE, name, None)?);
    let planner = kubeconfig("planner")?;
    let folder_text = folder.display().to_string();
    let plan = ["plan", "--cluster", "--file", &folder_text];
    let json_plan = [&plan[..], &["--output", "json"]].concat();

    // A gathered role holds a moment after its parts.
    let fresh = eventually(30, "the planner has its rights", || {
        let output = acb(world, &planner, &plan).map_err(|error| error.to_string())?;
        if output.status.code() == Some(4) { Err(said(&output)) } else { Ok(output) }
    })?;
    let text = said(&fresh);
    for line in ["Tenant planned:", "+ Namespace acb-planned", "+ kafka topic acb.planned.notes", "+ postgres agent writer"] {
        if fresh.status.code() != Some(6) || !text.contains(line) {
            return wrong(format!("a plan of what is new, without {line:?} or with another code than 6: {text}"));
        }
    }
    if world.kubectl.find(&["tenant", "planned"])?.is_some() {
        return wrong("a plan made the Tenant");
    }
    denied(world, &kubeconfig("stranger")?, &plan, "may neither plan nor apply Tenant planned")?;
    denied(world, &kubeconfig("outsider")?, &plan, "leases.coordination.k8s.io \"acb-operator\" is forbidden")?;
    bound(world, &planner, &plan)?;

    apply(world, folder)?;
    let converged = acb(world, &planner, &json_plan)?;
    let report = report(&converged)?;
    let empty = |object: &Value| object["steps"].as_array().is_some_and(Vec::is_empty);
    let objects = report["objects"].as_array().cloned().unwrap_or_default();
    if converged.status.code() != Some(0) || objects.len() != 2 || !objects.iter().all(empty) {
        return wrong(format!("a plan of what is applied: {}", said(&converged)));
    }
    refused(world, &planner, folder, &json_plan)
}

/// Applies the branch, and waits until it is so.
fn apply(world: &World, folder: &Path) -> Result<()> {
    let folder = folder.display().to_string();
    eventually(60, "the branch is applied", || {
        world.kubectl.run(&["apply", "--filename", &folder]).map(drop).map_err(|error| error.to_string())
    })?;
    world.kubectl.wait_for("Ready", &["tenant/planned"], 60)?;
    world.kubectl.wait_for("Ready", &["--namespace", "acb-planned", "agents.acb.dev/writer"], 30)
}

fn denied(world: &World, kubeconfig: &Path, plan: &[&str], says: &str) -> Result<()> {
    let output = acb(world, kubeconfig, plan)?;
    let text = said(&output);
    if output.status.code() == Some(4) && text.contains(says) { Ok(()) } else { wrong(format!("wanted {says:?}: {text}")) }
}

/// A token for plans is one for plans alone; and who has a client certificate gets one by `--service-account`.
fn bound(world: &World, planner: &Path, plan: &[&str]) -> Result<()> {
    let token = account::token(world, NAMESPACE, "planner", Some(AUDIENCE))?;
    let file = token.display().to_string();
    let with_token = acb(world, planner, &[plan, &["--token-file", &file]].concat())?;
    if with_token.status.code() != Some(6) {
        return wrong(format!("a token for {AUDIENCE}: {}", said(&with_token)));
    }
    let replayed = account::kubeconfig(world, &token)?;
    denied(world, &replayed, plan, "Unauthorized")?;
    let admin = world.place.kubeconfig("admin");
    let without = acb(world, &admin, plan)?;
    if without.status.code() != Some(2) || !said(&without).contains("--service-account") {
        return wrong(format!("a client certificate alone: {}", said(&without)));
    }
    let named = format!("{NAMESPACE}/planner");
    let requested = acb(world, &admin, &[plan, &["--service-account", &named]].concat())?;
    if !said(&requested).contains("+ Namespace acb-planned") {
        return wrong(format!("a requested token: {}", said(&requested)));
    }
    say("         tokens of both audiences are taken, and one for plans is of no use to the API server");
    Ok(())
}

/// What was printed as JSON, or all that was said where there is none.
fn report(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).or_else(|error| wrong(format!("{error}: {}", said(output))))
}

/// What would be refused is said, and not only by the operator's status.
fn refused(world: &World, planner: &Path, folder: &Path, plan: &[&str]) -> Result<()> {
    let above = BRANCH.replace("contextTypes: [{name: notes}]", "contextTypes: [{name: notes}], limits: {maxAgents: 1000000}");
    std::fs::write(folder.join("planned.yaml"), above).map_err(at(folder))?;
    let output = acb(world, planner, plan)?;
    let report = report(&output)?;
    let reason = &report["objects"][0]["problems"][0]["reason"];
    if output.status.code() == Some(1) && reason == "AboveTier" {
        Ok(())
    } else {
        wrong(format!("above the tier: {}", said(&output)))
    }
}
