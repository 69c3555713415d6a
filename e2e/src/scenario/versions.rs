//! The way of the kinds to a next version, as docs/api-versions.md says it, there and back on a real API server.

use serde_json::{Value, json};

use super::World;
use crate::{
    error::{Result, wrong},
    kubectl::Kubectl,
    process::eventually,
};

const KINDS: [&str; 3] = ["tenants", "agents", "quotas"];
const NAMESPACE: &str = "acb-versions";
const OLD: &str = "v1alpha1";
const NEXT: &str = "v1beta1";

pub(super) fn run(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    let folder = world.place.root.join("crds/yaml").display().to_string();
    kubectl.run(&["apply", "--server-side", "--filename", &folder])?;
    let result = there_and_back(kubectl);
    // What comes after installs them from the chart.
    kubectl.run(&["delete", "--wait", "--timeout=60s", "--filename", &folder])?;
    kubectl.run(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s"])?;
    // kubectl remembers for minutes which versions there are: the next scenario would ask for one that is gone.
    kubectl.run(&["api-resources", "--cached=false"])?;
    result
}

fn there_and_back(kubectl: &Kubectl) -> Result<()> {
    for kind in KINDS {
        kubectl.wait_for("Established", &[&format!("crd/{kind}.acb.dev")], 30)?;
    }
    kubectl.run(&["create", "namespace", NAMESPACE])?;
    apply(kubectl, OLD)?;
    let before = specs(kubectl, OLD)?;
    // Both are served.
    serve(kubectl, OLD)?;
    same(&before, &specs(kubectl, NEXT)?, "read as the next version")?;
    apply(kubectl, NEXT)?;
    same(&before, &specs(kubectl, OLD)?, "applied as the next version")?;
    for (to, from) in [(NEXT, OLD), (OLD, NEXT)] {
        serve(kubectl, to)?;
        for kind in KINDS {
            let definition = format!("customresourcedefinition/{kind}.acb.dev");
            if stored(kubectl, &definition)? != json!([from, to]) {
                return wrong(format!("{definition} does not say that both {from} and {to} are stored"));
            }
            // As the page says it.
            let all = kubectl.get(&[&format!("{kind}.acb.dev"), "--all-namespaces"])?;
            let replaced = kubectl.with_input(&["replace", "--filename", "-"], &all.to_string())?;
            if !replaced.status.success() {
                return wrong(format!("{kind} are not rewritten: {}", String::from_utf8_lossy(&replaced.stderr)));
            }
            let status = json!({"status": {"storedVersions": [to]}}).to_string();
            kubectl.run(&["patch", &definition, "--subresource=status", "--type=merge", "--patch", &status])?;
        }
        same(&before, &specs(kubectl, from)?, &format!("rewritten to {to}"))?;
    }
    // What is stored in one version alone is served without the other.
    for kind in KINDS {
        let patch = json!([{"op": "remove", "path": "/spec/versions/1"}]).to_string();
        kubectl.run(&["patch", &format!("customresourcedefinition/{kind}.acb.dev"), "--type=json", "--patch", &patch])?;
    }
    same(&before, &specs(kubectl, OLD)?, "without the next version")
}

fn apply(kubectl: &Kubectl, version: &str) -> Result<()> {
    let object = |kind: &str, namespace: Option<&str>, spec: Value| {
        let mut object =
            json!({"apiVersion": format!("acb.dev/{version}"), "kind": kind, "metadata": {"name": "moved"}, "spec": spec});
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object
    };
    let spec = json!({"tier": "Free", "hub": {"resources": {"limits": {"cpu": 1, "memory": "0.5Gi"}}}, "contextTypes": [{"name": "notes"}]});
    let items = [
        object("Tenant", None, spec),
        object("Agent", Some(NAMESPACE), json!({"role": "AgentFull", "publishes": ["notes"], "attributes": {"team": "red"}})),
        object("Quota", Some(NAMESPACE), json!({"selector": {"names": ["moved"]}, "limits": {"messagesPerMinute": 5}})),
    ];
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()).map(drop)
}

/// The specs and generations of the three, as read in a version.
fn specs(kubectl: &Kubectl, version: &str) -> Result<Vec<Value>> {
    let read = |kind: &str| {
        let object = kubectl.get(&[&format!("{kind}.{version}.acb.dev"), "moved", "--namespace", NAMESPACE])?;
        if object["apiVersion"] != format!("acb.dev/{version}") {
            return wrong(format!("{kind} are read as {}", object["apiVersion"]));
        }
        Ok(json!([object["spec"], object["metadata"]["generation"], object["metadata"]["uid"]]))
    };
    KINDS.iter().map(|kind| read(kind)).collect()
}

fn same(before: &[Value], after: &[Value], when: &str) -> Result<()> {
    if before == after { Ok(()) } else { wrong(format!("{when}: {after:?} was {before:?}")) }
}

/// Serves both versions of each kind, and stores one.
fn serve(kubectl: &Kubectl, storage: &str) -> Result<()> {
    for kind in KINDS {
        let name = format!("customresourcedefinition/{kind}.acb.dev");
        let mut definition = kubectl.get(&[&name])?;
        let mut versions = vec![definition["spec"]["versions"][0].take()];
        versions.push(versions[0].clone());
        for (version, name) in versions.iter_mut().zip([OLD, NEXT]) {
            (version["name"], version["storage"]) = (json!(name), json!(name == storage));
        }
        let patch = json!([{"op": "replace", "path": "/spec/versions", "value": versions}]).to_string();
        kubectl.run(&["patch", &name, "--type=json", "--patch", &patch])?;
        kubectl.wait_for("Established", &[&name], 30)?;
    }
    let is_served = |version: &str| {
        let said = kubectl.run(&["get", "--raw", &format!("/apis/acb.dev/{version}")]).unwrap_or_default();
        KINDS.iter().all(|kind| said.contains(kind))
    };
    eventually(30, "both versions are served", || {
        if is_served(OLD) && is_served(NEXT) { Ok(()) } else { Err("a kind is missing".to_owned()) }
    })
}

fn stored(kubectl: &Kubectl, definition: &str) -> Result<Value> {
    Ok(kubectl.get(&[definition])?["status"]["storedVersions"].take())
}
