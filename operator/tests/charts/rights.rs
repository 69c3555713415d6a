use std::collections::BTreeSet;

use acb_operator::{
    plan::{KubernetesStep, Step},
    preview::question,
    tenant::network::MONITORING_LABEL,
};
use serde_json::Value;

use crate::{
    given::{first, kafka_platform, plan, tenancy, tenant_text, world},
    manifests, read,
};

fn words(rule: &Value, field: &str) -> Vec<String> {
    rule[field].as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn rules(kind: &str, name: &str) -> Vec<Value> {
    let roles = manifests();
    let role = roles.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    role.unwrap_or_else(|| panic!("no {kind} {name}"))["rules"].as_array().unwrap().clone()
}

/// A rule as the page shows it.
fn row(shown: &str, rule: &Value) -> String {
    let urls: Vec<_> = words(rule, "nonResourceURLs").iter().map(|url| format!("`{url}`")).collect();
    if !urls.is_empty() {
        return format!("| {shown} | URLs | {} | {} |", urls.join(", "), words(rule, "verbs").join(", "));
    }
    let group = match words(rule, "apiGroups").as_slice() {
        [group] if group.is_empty() => "core".to_owned(),
        [group] => format!("`{group}`"),
        other => panic!("{other:?}: one group a rule, so that the page can say it"),
    };
    let names: Vec<_> = words(rule, "resourceNames").iter().map(|name| format!("`{name}`")).collect();
    let names = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
    format!("| {shown} | {group} | {}{names} | {} |", words(rule, "resources").join(", "), words(rule, "verbs").join(", "))
}

const ROLES: [(&str, &str, &str); 4] = [
    ("ClusterRole", "acb-operator", "`acb-operator`"),
    ("ClusterRole", "acb-operator-tenant", "`acb-operator-tenant`"),
    ("ClusterRole", "acb-operator-isolation", "`acb-operator-isolation`"),
    ("Role", "acb-operator", "Role `acb-operator`"),
];

#[test]
fn every_right_is_justified_and_every_justification_is_of_a_right() {
    let wanted: Vec<String> =
        ROLES.iter().flat_map(|(kind, name, shown)| rules(kind, name).into_iter().map(|rule| row(shown, &rule))).collect();
    let page = read("docs/rbac.md");
    let section = page.split("\n## The operator\n").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let found: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let cut = |line: &&str| line.splitn(6, " | ").take(4).collect::<Vec<_>>().join(" | ") + " |";
    assert_eq!(found.iter().map(cut).collect::<Vec<_>>(), wanted);
    for line in found {
        assert!(line.splitn(5, " | ").nth(4).is_some_and(|why| why.trim_end_matches(['|', ' ']).len() > 5), "why? {line}");
    }
}

#[test]
fn no_right_is_wider_than_it_must_be() {
    for (kind, name, _) in ROLES {
        for rule in rules(kind, name) {
            for field in ["apiGroups", "resources", "verbs"] {
                assert!(!words(&rule, field).contains(&"*".to_owned()), "{name}: {rule}");
            }
            let secrets = words(&rule, "resources").contains(&"secrets".to_owned());
            assert!(!secrets || (kind, name) != ("ClusterRole", "acb-operator"), "cluster-wide the operator reads no Secret");
            assert!(
                !secrets || !words(&rule, "verbs").iter().any(|verb| verb == "patch" || verb == "update"),
                "nor overwrites one"
            );
        }
    }
    assert_eq!(words(&rules("ClusterRole", "acb-resources-plan")[0], "verbs"), [question::VERB], "who plans applies nothing");
    for role in ["acb-resources-edit", "acb-resources-view"] {
        for rule in rules("ClusterRole", role) {
            assert_eq!(words(&rule, "apiGroups"), ["acb.dev"], "a tenant sees and edits ACB's own, and nothing else");
            assert!(!words(&rule, "resources").contains(&"tenants".to_owned()));
        }
    }
}

/// The plural of a kind, as rules name it.
fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

#[test]
fn everything_that_a_plan_holds_may_be_applied_and_watched() {
    let spec = "{tier: Enterprise, admins: [{kind: Group, name: a}], hub: {autoscaling: {minReplicas: 1, maxReplicas: 2}, \
                gatewayRef: {name: edge, namespace: gateways}, hostnames: [acme.example]}}";
    let tenancy = tenancy(&tenant_text("acme", spec));
    let steps = plan(&first(&tenancy), &world(&tenancy), &kafka_platform()).steps;
    let applied = steps.iter().filter_map(|step| match step {
        Step::Kubernetes(KubernetesStep::Apply { object }) => {
            let version = object["apiVersion"].as_str().unwrap();
            let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
            Some((group, plural(object["kind"].as_str().unwrap())))
        }
        _ => None,
    });
    let applied: BTreeSet<_> = applied.collect();
    assert!(applied.len() >= 9, "{applied:?}");
    let may = |role: &str, group: &str, resource: &str, verb: &str| {
        rules("ClusterRole", role).iter().any(|rule| {
            let has = |field: &str, wanted: &str| words(rule, field).iter().any(|word| word == wanted);
            has("apiGroups", group) && has("resources", resource) && has("verbs", verb)
        })
    };
    for (group, resource) in applied {
        for verb in ["create", "patch", "delete"] {
            let allowed = ["acb-operator", "acb-operator-tenant"].iter().any(|role| may(role, &group, &resource, verb));
            assert!(allowed, "{verb} {resource} of {group:?}: the plan holds one, and the chart allows none");
        }
        for verb in ["list", "watch"] {
            assert!(may("acb-operator", &group, &resource, verb), "{verb} {resource} of {group:?} in every namespace");
        }
    }
}

#[test]
fn who_plans_is_let_in_where_the_operator_listens() {
    let manifests = manifests();
    let operator = manifests.iter().find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == "acb-operator");
    let args = operator.unwrap()["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(args.contains(&format!("--plan-port={}", question::PORT)), "{args}");
    let page = read("docs/rbac.md");
    assert!(page.contains(question::AUDIENCE));
    let way: Vec<String> = rules("Role", "acb-planner").iter().map(|rule| row("", rule)).collect();
    let wanted = ["|  | `coordination.k8s.io` | leases (`acb-operator`) | get |", "|  | core | pods/portforward | get, create |"];
    assert_eq!(way, wanted, "a way to the operator, and no further");
}

#[test]
fn only_who_monitors_is_let_in_to_the_operator() {
    let manifests = manifests();
    let policy = manifests.iter().find(|object| object["kind"] == "NetworkPolicy").unwrap();
    let from = serde_json::json!([{"namespaceSelector": {"matchLabels": {MONITORING_LABEL: "true"}}}]);
    assert_eq!(policy["spec"]["ingress"], serde_json::json!([{"from": from, "ports": [{"port": "ops", "protocol": "TCP"}]}]));
    assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
}

#[test]
fn the_admission_policy_reads_the_annotations_that_the_plan_writes() {
    let policies = manifests();
    let of = |name: &str| {
        let policy =
            policies.iter().find(|object| object["kind"] == "ValidatingAdmissionPolicy" && object["metadata"]["name"] == name);
        policy.unwrap_or_else(|| panic!("no policy {name}")).to_string()
    };
    let ceiling = of("acb-quota-ceiling");
    assert!(ceiling.contains(&format!("'{}'", acb_operator::tenant::space::CEILING_ANNOTATION)));
    assert!(ceiling.contains(&format!("'{}'", acb_operator::tenant::space::UNLIMITED)));
    for (field, _) in acb_crds::QuotaLimits::default().entries() {
        assert!(ceiling.contains(&format!("'{field}'")), "{field} has no ceiling");
    }
    let label = format!("'{}'", acb_operator::tenant::namespace::TENANT_LABEL);
    assert!(of("acb-tenant-namespace").contains(&label) && of("acb-operator-bounds").contains(&label));
}
