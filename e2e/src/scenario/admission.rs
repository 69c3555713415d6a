//! What the chart's admission policies and roles allow and deny on a real API server, as a user of kustomize installs them. No operator
//! runs: what it would ask for is asked in its name.

use serde_json::{Value, json};

use super::World;
use crate::{
    error::{Result, wrong},
    kubectl::Kubectl,
    process::eventually,
    say,
};

const OPERATOR: &str = "system:serviceaccount:acb-system:acb-operator";
const OWN: &str = "acb-admitted";
const HUB: &str = "acbhub-admitted";
/// Made by the platform team, and given to a tenant.
const GIVEN: &str = "admitted-given";
/// Nobody's.
const OTHER: &str = "admitted-other";

pub(super) fn run(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    let crds = world.place.root.join("crds/yaml").display().to_string();
    let operator = world.place.root.join("config/operator").display().to_string();
    kubectl.run(&["apply", "--server-side", "--filename", &crds])?;
    kubectl.run(&["apply", "--kustomize", &operator])?;
    let result = prepare(kubectl).and_then(|()| check(kubectl));
    for namespace in [OWN, HUB, GIVEN, OTHER] {
        kubectl.run(&["delete", "namespace", namespace, "--ignore-not-found", "--timeout=60s"])?;
    }
    kubectl.run(&["delete", "clusterrole,clusterrolebinding", "admitted-editor", "--ignore-not-found"])?;
    kubectl.run(&["delete", "--kustomize", &operator, "--timeout=60s"])?;
    kubectl.run(&["delete", "--filename", &crds, "--timeout=60s"])?;
    result
}

fn prepare(kubectl: &Kubectl) -> Result<()> {
    for kind in ["tenants", "agents", "quotas"] {
        kubectl.wait_for("Established", &[&format!("crd/{kind}.acb.dev")], 30)?;
    }
    kubectl.run(&["create", "namespace", OTHER])?;
    kubectl.run(&["create", "namespace", GIVEN])?;
    kubectl.run(&["label", "namespace", GIVEN, "acb.dev/tenant=admitted"])?;
    kubectl.run(&["create", "clusterrole", "admitted-editor", "--verb=get,list,update,patch", "--resource=namespaces"])?;
    kubectl.run(&["create", "clusterrolebinding", "admitted-editor", "--clusterrole=admitted-editor", "--user=mallory"])?;
    // A policy holds a moment after it is made, a gathered role a moment after its parts.
    eventually(30, "the admission policies hold", || {
        let output = kubectl.output(&["label", "namespace", OTHER, "acb.dev/tenant=x", "--as=mallory", "--dry-run=server"]);
        let said = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
        if said.contains("acb-namespace-marks") { Ok(()) } else { Err(said) }
    })?;
    eventually(30, "the tenant's admins have their rights", || {
        let role = kubectl.get(&["clusterrole", "acb-tenant-admin"]).unwrap_or_default();
        if role["rules"].as_array().is_some_and(|rules| rules.len() == 3) { Ok(()) } else { Err(role["rules"].to_string()) }
    })
}

/// Something that is asked for, and what is said: nothing where it is allowed.
struct Case {
    who: Option<&'static str>,
    arguments: Vec<String>,
    document: Option<Value>,
    denied: Option<&'static str>,
}

fn asks(who: Option<&'static str>, arguments: &[&str], denied: Option<&'static str>) -> Case {
    Case { who, arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(), document: None, denied }
}

fn applies(who: Option<&'static str>, document: Value, denied: Option<&'static str>) -> Case {
    let apply = ["apply", "--server-side", "--force-conflicts", "--filename", "-"];
    Case { document: Some(document), ..asks(who, &apply, denied) }
}

fn namespace(name: &str, labels: Value) -> Value {
    let annotations = json!({
        "acb.dev/ceiling-tenant-maxAgents": "3",
        "acb.dev/ceiling-tenant-storageBytes": "1000",
        "acb.dev/ceiling-tenant-messagesPerMinute": "unlimited",
        "acb.dev/ceiling-agent-messagesPerMinute": "100",
    });
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels, "annotations": annotations}})
}

fn resource(kind: &str, namespace: &str, spec: Value) -> Value {
    json!({"apiVersion": "acb.dev/v1alpha1", "kind": kind, "metadata": {"name": "tried", "namespace": namespace}, "spec": spec})
}

/// What a Tenant's data goes with its Tenant by.
fn confirmations() -> Vec<Case> {
    let tenant =
        json!({"apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "retained"}, "spec": {"tier": "Free"}});
    let policy = |policy: &str, denied| {
        let patch = json!({"spec": {"deletionPolicy": policy}}).to_string();
        asks(None, &["patch", "tenant", "retained", "--type=merge", "--patch", &patch], denied)
    };
    let confirms = |name: &str| {
        asks(None, &["annotate", "tenant", "retained", &format!("acb.dev/confirm-delete={name}"), "--overwrite"], None)
    };
    let denied = Some("confirm it with the annotation acb.dev/confirm-delete=retained");
    vec![
        applies(None, tenant, None),
        policy("Delete", denied),
        policy("Retain", None),
        confirms("another"),
        policy("Delete", denied),
        confirms("retained"),
        policy("Delete", None),
        asks(None, &["annotate", "tenant", "retained", "acb.dev/confirm-delete-"], None),
        asks(None, &["label", "tenant", "retained", "team=x"], None),
        policy("Retain", None),
        policy("Delete", denied),
        asks(None, &["delete", "tenant", "retained"], None),
    ]
}

fn cases() -> Vec<Case> {
    let operator = Some(OPERATOR);
    let mallory = Some("mallory");
    let ours = || json!({"acb.dev/tenant": "admitted"});
    let bounds = Some("the operator may not touch it");
    let bind = |namespace: &str, role: &str, denied| {
        let (space, role) = (format!("--namespace={namespace}"), format!("--clusterrole={role}"));
        let account = "--serviceaccount=acb-system:acb-operator";
        asks(operator, &["create", "rolebinding", "acb-operator", &space, &role, account], denied)
    };
    let secrets = |namespace: &str, denied| asks(operator, &["get", "secrets", &format!("--namespace={namespace}")], denied);
    // Without ceilings: its Tenant is still to be provisioned.
    let mut marked = namespace(GIVEN, json!({"acb.dev/tenant": "admitted", "acb.dev/tenant-uid": "u"}));
    marked["metadata"]["annotations"] = json!({});
    let mut cases = vec![
        applies(operator, namespace("admitted-evil", ours()), bounds),
        applies(operator, namespace(OWN, json!({})), bounds),
        applies(operator, namespace(OWN, ours()), None),
        applies(operator, namespace(HUB, ours()), None),
        applies(operator, namespace(OTHER, ours()), bounds),
        applies(operator, namespace("acb-system", ours()), bounds),
        applies(operator, marked, None),
        asks(operator, &["delete", "namespace", GIVEN], bounds),
        asks(operator, &["delete", "namespace", OTHER], bounds),
        bind("kube-system", "acb-operator-tenant", bounds),
        bind(OWN, "cluster-admin", Some("attempting to grant RBAC permissions not currently held")),
        secrets(OWN, Some("cannot list resource \"secrets\"")),
        bind(OWN, "acb-operator-tenant", None),
        secrets("kube-system", Some("cannot list resource \"secrets\"")),
        secrets("acb-system", None),
        asks(mallory, &["label", "namespace", OTHER, "acb.dev/monitoring=true"], Some("acb-namespace-marks")),
        asks(mallory, &["label", "namespace", OWN, "acb.dev/tenant-"], Some("acb-namespace-marks")),
        asks(
            mallory,
            &["annotate", "namespace", OWN, "acb.dev/ceiling-tenant-maxAgents=99", "--overwrite"],
            Some("acb-namespace-marks"),
        ),
        asks(mallory, &["label", "namespace", OWN, "team=x"], None),
    ];
    for (space, denied) in [(OWN, None), (GIVEN, None), (HUB, Some("no tenant's")), (OTHER, Some("no tenant's"))] {
        cases.push(applies(None, resource("Agent", space, json!({"role": "AgentFull"})), denied));
    }
    let above = Some("which is what the tier allows");
    let missing = Some("has no annotation acb.dev/ceiling-");
    for (space, spec, denied) in [
        (OWN, json!({"limits": {"maxAgents": 3}}), None),
        (OWN, json!({"limits": {"maxAgents": 4}}), above),
        (OWN, json!({"limits": {"maxAgents": 1, "storageBytes": 1001}}), above),
        (OWN, json!({"limits": {"messagesPerMinute": 1_000_000}}), None),
        (OWN, json!({"limits": {"bytesPerMinute": 1}}), missing),
        (OWN, json!({"selector": {"groups": ["g"]}, "limits": {"messagesPerMinute": 100}}), None),
        (OWN, json!({"selector": {"groups": ["g"]}, "limits": {"messagesPerMinute": 101}}), above),
        // Nothing is selected: the tenant as a whole.
        (OWN, json!({"selector": {"groups": []}, "limits": {"messagesPerMinute": 101}}), None),
        (OWN, json!({"selector": {}, "limits": {"messagesPerMinute": 101}}), None),
        (OWN, json!({"selector": {"matchLabels": {"a": "b"}}, "limits": {"maxAgents": 1}}), missing),
        // Its Tenant is still to be provisioned: what a Quota says is held against the tier by the operator.
        (GIVEN, json!({"limits": {"maxAgents": 1}}), None),
    ] {
        cases.push(applies(None, resource("Quota", space, spec), denied));
    }
    // Under a tier that became smaller what is there stays, and is not raised.
    let mut lowered = namespace(OWN, ours());
    lowered["metadata"]["annotations"]["acb.dev/ceiling-tenant-maxAgents"] = json!("2");
    cases.push(applies(None, resource("Quota", OWN, json!({"limits": {"maxAgents": 3}})), None));
    cases.push(applies(operator, lowered, None));
    cases.push(asks(None, &["label", "quotas.acb.dev", "tried", "--namespace", OWN, "team=x"], None));
    for (most, denied) in [(4, above), (3, None), (2, None), (3, above)] {
        cases.push(applies(None, resource("Quota", OWN, json!({"limits": {"maxAgents": most}})), denied));
    }
    cases.extend(confirmations());
    cases.push(asks(operator, &["delete", "namespace", OWN, "--wait=false"], None));
    cases
}

fn check(kubectl: &Kubectl) -> Result<()> {
    let mut problems = Vec::new();
    let cases = cases();
    for case in &cases {
        let mut arguments: Vec<&str> = case.arguments.iter().map(String::as_str).collect();
        let who = case.who.map(|who| format!("--as={who}"));
        arguments.extend(who.as_deref());
        let output = match &case.document {
            Some(document) => kubectl.with_input(&arguments, &document.to_string())?,
            None => kubectl.output(&arguments)?,
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let right = match case.denied {
            None => output.status.success(),
            Some(denied) => !output.status.success() && said.contains(denied),
        };
        if !right {
            let document = case.document.as_ref().map(Value::to_string).unwrap_or_default();
            problems.push(format!("{} {document}: wanted {:?}, and it said: {}", arguments.join(" "), case.denied, said.trim()));
        }
    }
    problems.extend(admins(kubectl)?);
    say(&format!("         {} requests tried", cases.len()));
    if problems.is_empty() { Ok(()) } else { wrong(problems.join("\n")) }
}

/// A tenant's admin sees and edits Agents and Quotas in one namespace, and nothing else.
fn admins(kubectl: &Kubectl) -> Result<Vec<String>> {
    let space = format!("--namespace={GIVEN}");
    kubectl.run(&["create", "rolebinding", "acb-tenant-admins", &space, "--clusterrole=acb-tenant-admin", "--user=tina"])?;
    let mut problems = Vec::new();
    for (may, verb, resource, namespace) in [
        ("yes", "create", "agents.acb.dev", GIVEN),
        ("yes", "delete", "quotas.acb.dev", GIVEN),
        ("no", "create", "agents.acb.dev", OTHER),
        ("no", "get", "secrets", GIVEN),
        ("no", "create", "pods", GIVEN),
        ("no", "get", "tenants.acb.dev", GIVEN),
        ("no", "create", "rolebindings", GIVEN),
    ] {
        let output = kubectl.output(&["auth", "can-i", verb, resource, &format!("--namespace={namespace}"), "--as=tina"])?;
        let said = String::from_utf8_lossy(&output.stdout);
        if said.trim() != may {
            problems.push(format!("a tenant's admin, {verb} {resource} in {namespace}: {} and not {may}", said.trim()));
        }
    }
    Ok(problems)
}
