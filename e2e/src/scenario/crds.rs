//! The kinds on a real API server: what must be taken, and what must be refused with a message that says where.

use serde_json::{Value, json};

use super::{
    World,
    hostile::{Bad, bad_values},
};
use crate::{
    error::{Result, wrong},
    kubectl::Kubectl,
    say,
};

const SAMPLES: [&str; 2] = ["acb-acme", "acb-globex"];
const NAMESPACE: &str = "acb-hostile";

pub(super) fn run(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    let folder = world.place.root.join("crds/yaml").display().to_string();
    kubectl.run(&["apply", "--server-side", "--filename", &folder])?;
    let result = check(world);
    // What comes after installs them from the chart.
    kubectl.run(&["delete", "--wait", "--timeout=60s", "--filename", &folder])?;
    for namespace in SAMPLES.into_iter().chain([NAMESPACE]) {
        kubectl.run(&["delete", "namespace", namespace, "--ignore-not-found", "--timeout=60s"])?;
    }
    result
}

fn check(world: &World) -> Result<()> {
    let kubectl = &world.kubectl;
    for kind in ["tenants", "agents", "quotas"] {
        kubectl.wait_for("Established", &[&format!("crd/{kind}.acb.dev")], 30)?;
    }
    for namespace in SAMPLES.into_iter().chain([NAMESPACE]) {
        kubectl.run(&["create", "namespace", namespace])?;
    }
    for name in ["acme.yaml", "globex.yaml"] {
        let file = world.place.root.join("config/samples").join(name).display().to_string();
        kubectl.run(&["apply", "--dry-run=server", "--filename", &file])?;
    }
    let mut problems = Vec::new();
    let mut tried = 0;
    for (kind, plural, base) in [
        ("Tenant", "tenants", json!({"tier": "Free"})),
        ("Agent", "agents", json!({"role": "Admin"})),
        ("Quota", "quotas", json!({"limits": {"maxAgents": 1}})),
    ] {
        let definition = kubectl.get(&["crd", &format!("{plural}.acb.dev")])?;
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let bad = bad_values(schema, &base);
        tried += bad.len();
        problems.extend(refused(kubectl, kind, &bad)?);
    }
    for (what, document, expected) in by_hand() {
        tried += 1;
        let output = kubectl.with_input(&["create", "--dry-run=server", "--filename", "-"], &document.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains(expected) {
            problems.push(format!("{what}: not refused with {expected:?}: {}", said.trim()));
        }
    }
    tried += transitions(kubectl, &mut problems)?;
    problems.extend(shadowed(kubectl)?);
    say(&format!("         {tried} bad values tried"));
    if problems.is_empty() { Ok(()) } else { wrong(format!("{} of {tried}:\n{}", problems.len(), problems.join("\n"))) }
}

fn document(kind: &str, name: &str, spec: &Value) -> Value {
    let mut document = json!({"apiVersion": "acb.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    if kind != "Tenant" {
        document["metadata"]["namespace"] = json!(NAMESPACE);
    }
    document
}

/// Every name means our kind, and takes none away from another: `kubectl get quota` is Kubernetes' own ResourceQuota.
fn shadowed(kubectl: &Kubectl) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, kind) in [
        ("tenant", "Tenant"),
        ("tenants", "Tenant"),
        ("tn", "Tenant"),
        ("agent", "Agent"),
        ("agents", "Agent"),
        ("agt", "Agent"),
        ("acbquota", "Quota"),
        ("quotas", "Quota"),
        ("qta", "Quota"),
        ("quota", "ResourceQuota"),
    ] {
        let explained = kubectl.run(&["explain", name])?;
        let meant = explained.lines().find_map(|line| line.strip_prefix("KIND:")).unwrap_or_default().trim();
        if meant != kind {
            problems.push(format!("kubectl takes {name} for {meant:?}, and not for {kind}"));
        }
    }
    Ok(problems)
}

/// Sends all of them at once, and answers with those that were not refused where they should be.
fn refused(kubectl: &Kubectl, kind: &str, bad: &[Bad]) -> Result<Vec<String>> {
    let items: Vec<Value> = bad.iter().enumerate().map(|(n, bad)| document(kind, &format!("bad-{n}"), &bad.spec)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
    // kubectl's own check would refuse the whole list for one value of a wrong type.
    let output = kubectl.with_input(&["create", "--dry-run=server", "--validate=ignore", "--filename", "-"], &list)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let messages: Vec<&str> = said.split("Error from server").collect();
    let judge = |(n, bad): (usize, &Bad)| {
        let name = format!("\"bad-{n}\" is invalid");
        let message = messages.iter().find(|message| message.contains(&name));
        match message {
            Some(message) if message.contains(&bad.path) => None,
            Some(message) => {
                Some(format!("{kind} {} {}: refused without naming the field: {}", bad.path, bad.why, message.trim()))
            }
            None => Some(format!("{kind} {} {}: not refused", bad.path, bad.why)),
        }
    };
    Ok(bad.iter().enumerate().filter_map(judge).collect())
}

/// What no schema of a field says: names, rules over several fields, fields that do not exist.
fn by_hand() -> Vec<(&'static str, Value, &'static str)> {
    let tenant = |name: &str, spec: Value| document("Tenant", name, &spec);
    let agent = |spec: Value| document("Agent", "worker", &spec);
    let free = || json!({"tier": "Free"});
    let with = |field: &str, value: Value| {
        let mut spec = free();
        spec[field] = value;
        spec
    };
    vec![
        ("no spec", json!({"apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "a"}}), "spec: Required"),
        ("no tier", tenant("a", json!({})), "spec.tier: Required"),
        ("an unknown field", tenant("a", json!({"tier": "Free", "teir": "Free"})), "unknown field \"spec.teir\""),
        ("an unknown nested field", tenant("a", with("hub", json!({"replica": 1}))), "unknown field \"spec.hub.replica\""),
        ("an unknown kind", document("Tenan", "a", &free()), "no matches for kind"),
        ("a long name", tenant(&"a".repeat(41), free()), "at most 40 characters"),
        ("a reserved name", tenant("kube-x", free()), "reserved"),
        ("sys", tenant("sys", free()), "reserved"),
        ("a dotted name", tenant("ac.me", free()), "a tenant's name"),
        ("a name with a digit first", tenant("1a", free()), "a tenant's name"),
        ("a name in capitals", tenant("Acme", free()), "metadata.name"),
        ("a name that climbs", tenant("../acme", free()), "metadata.name"),
        ("a reserved context type", tenant("a", with("contextTypes", json!([{"name": "sys"}]))), "reserved"),
        (
            "replicas and a range",
            tenant("a", with("hub", json!({"replicas": 1, "autoscaling": {"maxReplicas": 2}}))),
            "either replicas",
        ),
        ("half a range", tenant("a", with("hub", json!({"autoscaling": {"minReplicas": 1}}))), "maxReplicas"),
        (
            "a range upside down",
            tenant("a", with("hub", json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}))),
            "more than maxReplicas",
        ),
        (
            "pods beside the hub",
            tenant("a", with("hub", json!({"ingressPeers": [{"podSelector": {}}]}))),
            "either namespaceSelector",
        ),
        (
            "a label that the hub is found by",
            tenant("a", with("hub", json!({"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}}))),
            "choose others",
        ),
        (
            "a device for a hub",
            tenant("a", with("hub", json!({"resources": {"limits": {"example.com/gpu": 1}}}))),
            "nothing else",
        ),
        ("a name without a Gateway", tenant("a", with("hub", json!({"hostnames": ["a.example"]}))), "gatewayRef and hostnames"),
        ("a peer of nothing", tenant("a", with("hub", json!({"ingressPeers": [{}]}))), "either namespaceSelector"),
        (
            "a peer of both",
            tenant("a", with("hub", json!({"ingressPeers": [{"namespaceSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}))),
            "either namespaceSelector",
        ),
        ("Kubernetes' namespace", tenant("a", with("agentNamespace", json!("kube-system"))), "belongs to Kubernetes"),
        ("another hub's namespace", tenant("a", with("agentNamespace", json!("acbhub-b"))), "belongs to Kubernetes"),
        (
            "a user in a namespace",
            tenant("a", with("admins", json!([{"kind": "User", "name": "x", "namespace": "y"}]))),
            "goes with kind ServiceAccount",
        ),
        (
            "a service account of nowhere",
            tenant("a", with("admins", json!([{"kind": "ServiceAccount", "name": "x"}]))),
            "goes with kind ServiceAccount",
        ),
        ("no way to prove who it is", agent(json!({"role": "Admin", "credentials": {}})), "at least one of"),
        ("a reserved type published", agent(json!({"role": "Admin", "publishes": ["system"]})), "reserved"),
        ("an agent's dotted name", document("Agent", "a.b", &json!({"role": "Admin"})), "an agent's name"),
        ("an agent's long name", document("Agent", &"a".repeat(64), &json!({"role": "Admin"})), "at most 63"),
        (
            "a quota of nothing",
            document("Quota", "q", &json!({"selector": {"names": ["a"]}, "limits": {}})),
            "at least one limit",
        ),
        ("a quota's long name", document("Quota", &"q".repeat(64), &json!({"limits": {"maxAgents": 1}})), "at most 63"),
    ]
}

/// Changes that are refused, of objects that are there. Answers with how many were tried.
fn transitions(kubectl: &Kubectl, problems: &mut Vec<String>) -> Result<usize> {
    let spec = json!({"tier": "Free", "agentNamespace": "team", "contextTypes": [{"name": "a", "partitions": 4}]});
    kubectl.apply(&document("Tenant", "changing", &spec).to_string())?;
    let patches = [
        (json!([{"op": "remove", "path": "/spec/agentNamespace"}]), "agentNamespace is immutable"),
        (json!([{"op": "replace", "path": "/spec/agentNamespace", "value": "other"}]), "agentNamespace is immutable"),
        (json!([{"op": "replace", "path": "/spec/contextTypes/0/partitions", "value": 3}]), "partitions can only grow"),
    ];
    for (patch, expected) in &patches {
        let text = patch.to_string();
        let output = kubectl.output(&["patch", "tenant", "changing", "--type=json", "--patch", &text])?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || !said.contains(expected) {
            problems.push(format!("{text}: not refused with {expected:?}: {}", said.trim()));
        }
    }
    let grown = json!([{"op": "replace", "path": "/spec/contextTypes/0/partitions", "value": 8}]).to_string();
    kubectl.run(&["patch", "tenant", "changing", "--type=json", "--patch", &grown])?;
    // A Tenant is removed by whoever took its finalizer; here nobody has.
    kubectl.run(&["delete", "tenant", "changing", "--timeout=30s"])?;
    Ok(patches.len())
}
