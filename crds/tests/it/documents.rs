use std::{fs, path::PathBuf};

use acb_crds::{
    document::{self, collect, load},
    schema::{self, Kind, Resource},
};
use proptest::prelude::*;

fn tenant(spec: &str) -> String {
    format!("apiVersion: acb.dev/v1alpha1\nkind: Tenant\nmetadata:\n  name: acme\nspec:\n{spec}")
}

fn agent(spec: &str) -> String {
    format!("apiVersion: acb.dev/v1alpha1\nkind: Agent\nmetadata:\n  name: worker\n  namespace: acb-acme\nspec:\n{spec}")
}

fn refusal(text: &str) -> String {
    let loaded = load(text, "file.yaml").ours;
    assert_eq!(loaded.len(), 1, "{text}");
    loaded.into_iter().next().unwrap().expect_err(text).to_string()
}

#[test]
fn samples_load() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let mut files = Vec::new();
    for name in ["acme.yaml", "globex.yaml"] {
        files.push((name.to_owned(), fs::read_to_string(folder.join(name)).unwrap()));
    }
    let loaded = collect(&files);
    assert_eq!(loaded.errors, []);
    let count = |kind| loaded.resources.iter().filter(|(_, resource)| resource.object().kind == kind).count();
    assert_eq!((count(Kind::Tenant), count(Kind::Agent), count(Kind::Quota)), (2, 4, 2));
    for (_, resource) in &loaded.resources {
        let again = schema::check(&resource.to_value().unwrap(), Some(&resource.to_value().unwrap())).unwrap();
        assert_eq!(again, *resource, "reads back what it writes");
    }
}

#[test]
fn refusals_say_where_and_what_to_do() {
    for (text, expected) in [
        (
            tenant("  tier: Gold\n"),
            r#"file.yaml: Tenant acme: spec.tier: "Gold" is none of Free, Starter, Professional, Enterprise: use one of these"#,
        ),
        (tenant("  tier: Free\n  teir: Free\n"), r#"spec: unknown field "teir": remove it; known here are admins, agentLimits"#),
        (tenant("  hub: {}\n"), r#"spec: field "tier" is missing: set it"#),
        (tenant("  tier: Free\n  hub: {replicas: 0}\n"), "spec.hub.replicas: 0 is less than 1"),
        (tenant("  tier: Free\n  hub: {replicas: 2, autoscaling: {maxReplicas: 2}}\n"), "spec.hub: set either replicas"),
        (tenant("  tier: Free\n  contextTypes: [{name: a.b}]\n"), r#"spec.contextTypes[0].name: "a.b" does not match"#),
        (tenant("  tier: Free\n  contextTypes: [{name: sys}]\n"), "spec.contextTypes[0].name: sys, system, default"),
        (
            tenant("  tier: Free\n  contextTypes: [{name: a}, {name: a}]\n"),
            r#"spec.contextTypes[1]: "a" is already at spec.contextTypes[0]"#,
        ),
        (
            tenant("  tier: Free\n  contextTypes: [{name: a, retention: 0d}]\n"),
            r#"spec.contextTypes[0].retention: "0d" does not match"#,
        ),
        (
            tenant("  tier: Free\n  contextTypes: [{name: a, retention: 9999999d}]\n"),
            r#"spec.contextTypes[0].retention: "9999999d" does not match"#,
        ),
        (tenant("  tier: Free\n  audit: {retentionDays: 30}\n"), "spec.audit.retentionDays: 30 is less than 90"),
        (tenant("  tier: Free\n  agentNamespace: kube-system\n"), "spec.agentNamespace: this namespace belongs to Kubernetes"),
        (
            tenant("  tier: Free\n  admins: [{kind: User, name: x, namespace: y}]\n"),
            "spec.admins[0]: namespace goes with kind ServiceAccount",
        ),
        (tenant("  tier: Free\n  limits: {maxAgents: -1}\n"), "spec.limits.maxAgents: -1 is less than 0"),
        (tenant("  tier: Free\n  limits: {storageBytes: 99999999999999999999}\n"), "file.yaml: Tenant acme"),
        (tenant("  tier: Free\n").replace("acme", "kube-x"), "reserved"),
        (tenant("  tier: Free\n").replace("acme", "ac.me"), "a tenant's name starts with a letter"),
        (tenant("  tier: Free\n").replace("acme", &"a".repeat(41)), "at most 40 characters"),
        (tenant("  tier: Free\n").replace("kind: Tenant", "kind: Tenan"), r#"kind: unknown kind "Tenan""#),
        (tenant("  tier: Free\n").replace("v1alpha1", "v9"), "unknown kind"),
        (tenant("  tier: Free\n").replace("  name: acme", "  nam: acme"), r#"metadata: unknown field "nam""#),
        (agent("  role: king\n"), r#"Agent acb-acme/worker: spec.role: "king" is none of Admin"#),
        (agent("  role: Admin\n  publishes: [kube-x]\n"), "spec.publishes: sys, system"),
        (agent("  role: Admin\n  groups: [a, a]\n"), "spec.groups[1]: "),
        (agent("  role: Admin\n  credentials: {}\n"), "spec.credentials: set at least one of"),
        (agent("  role: Admin\n").replace("  namespace: acb-acme\n", ""), "metadata.namespace: missing"),
        (agent("  selector: {}\n  limits: {}\n").replace("Agent", "Quota"), "spec: a quota sets at least one limit"),
        ("a: [".into(), "file.yaml: not YAML"),
        ("just text".into(), "not an object"),
        ("a: 1\na: 2".into(), "file.yaml: not YAML"),
    ] {
        let message = refusal(&text);
        assert!(message.contains(expected), "{text}\nsaid: {message}\nnot:  {expected}");
    }
}

#[test]
fn null_is_absent_and_a_nul_is_refused() {
    let empty = agent("  role: Admin\n  groups:\n  capabilities: ~\n  publishes: null\n  subscribes:\n  attributes:\n");
    let bare = agent("  role: Admin\n");
    assert_eq!(load(&empty, "f").ours, load(&bare, "f").ours);
    assert!(load(&tenant("  tier: Free\n  contextTypes:\n"), "f").ours[0].is_ok());
    for (text, path) in [
        (agent("  role: Admin\n  type: \"a\\0b\"\n"), "spec.type"),
        (agent("  role: Admin\n  capabilities: [a, \"a\\0b\"]\n"), "spec.capabilities[1]"),
        (agent("  role: Admin\n  attributes: {\"a\\0b\": x}\n"), "spec.attributes"),
    ] {
        let message = refusal(&text);
        assert!(message.contains(path) && message.contains("NUL"), "{message}");
    }
}

#[test]
fn one_bad_document_leaves_the_others() {
    let text = format!(
        "{}---\n{}\n---\na: [\n---\n# nothing\n---\n{}",
        tenant("  tier: Free\n"),
        agent("  role: king\n"),
        agent("  role: Admin\n")
    );
    let loaded = load(&text, "f").ours;
    assert_eq!(loaded.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
    assert!(loaded[2].as_ref().unwrap_err().to_string().contains("line 1"), "{:?}", loaded[2]);
}

#[test]
fn duplicates_are_refused() {
    let text = tenant("  tier: Free\n");
    let loaded = collect(&[("a.yaml".into(), text.clone()), ("b.yaml".into(), text)]);
    assert_eq!(loaded.resources.len(), 1);
    assert_eq!(
        loaded.errors[0].to_string(),
        "b.yaml: Tenant acme: metadata.name: duplicate name: a.yaml holds this object already; rename or remove one of them"
    );
}

#[test]
fn changes_are_checked_against_what_was() {
    let value = |text: &str| match load(text, "f").ours.remove(0).unwrap() {
        Resource::Tenant(tenant) => serde_json::to_value(*tenant).unwrap(),
        other => panic!("{other:?}"),
    };
    let old = value(&tenant(
        "  tier: Free\n  agentNamespace: team\n  contextTypes: [{name: a, partitions: 4}, {name: b, partitions: 2}]\n",
    ));
    for (spec, expected) in [
        ("  tier: Free\n", "spec: agentNamespace is immutable"),
        ("  tier: Free\n  agentNamespace: other\n", "spec: agentNamespace is immutable"),
        (
            "  tier: Free\n  agentNamespace: team\n  contextTypes: [{name: b, partitions: 1}]\n",
            "spec.contextTypes[0].partitions: partitions can only grow",
        ),
    ] {
        let violations = schema::check(&value(&tenant(spec)), Some(&old)).unwrap_err();
        assert!(violations[0].to_string().starts_with(expected), "{violations:?}");
    }
    let grown = value(&tenant(
        "  tier: Free\n  agentNamespace: team\n  contextTypes: [{name: b, partitions: 2}, {name: a, partitions: 8}]\n",
    ));
    assert!(schema::check(&grown, Some(&old)).is_ok());
}

#[test]
fn data_goes_with_its_tenant_only_where_that_is_confirmed() {
    let value = |policy: &str, annotations: &str| {
        let text = tenant(&format!("  tier: Free\n{policy}")).replace("  name: acme\n", &format!("  name: acme\n{annotations}"));
        load(&text, "f").ours.remove(0).unwrap().to_value().unwrap()
    };
    let confirmed = "  annotations: {acb.dev/confirm-delete: acme}\n";
    let (silent, retained) = (value("", ""), value("  deletionPolicy: Retain\n", ""));
    let deleted = value("  deletionPolicy: Delete\n", "");
    for old in [&silent, &retained] {
        let violations = schema::check(&deleted, Some(old)).unwrap_err();
        assert_eq!(violations.len(), 1);
        let violation = violations[0].to_string();
        assert!(violation.contains("spec.deletionPolicy") && violation.contains("acb.dev/confirm-delete=acme"), "{violation}");
        assert!(schema::check(&value("  deletionPolicy: Delete\n", confirmed), Some(old)).is_ok());
        let another = value("  deletionPolicy: Delete\n", "  annotations: {acb.dev/confirm-delete: globex}\n");
        assert!(schema::check(&another, Some(old)).is_err(), "another name confirms nothing");
        assert!(schema::check(old, Some(&deleted)).is_ok(), "the way back needs no confirmation");
    }
    assert!(schema::check(&deleted, None).is_ok() && schema::check(&deleted, Some(&deleted)).is_ok());
    assert!(schema::check(&deleted, Some(&value("", confirmed))).is_ok(), "an apply leaves what others annotated");
}

#[test]
fn quantities_are_those_of_kubernetes() {
    let of = |memory: &str| tenant(&format!("  tier: Free\n  hub: {{resources: {{limits: {{memory: {memory}}}}}}}\n"));
    for good in ["1073741824", "128Mi", "0.1Ki", "'1e3'", "'+1'", "500m"] {
        assert!(load(&of(good), "f").ours[0].is_ok(), "{good}: {:?}", load(&of(good), "f").ours[0]);
    }
    for bad in ["128K", "5ki", "1 Gi", "''", "0.5", "true", "{}"] {
        assert!(refusal(&of(bad)).contains("spec.hub.resources.limits.memory"), "{bad}: {}", refusal(&of(bad)));
    }
    let other = "  tier: Free\n  hub: {resources: {requests: {nvidia.com/gpu: 1}}}\n";
    assert!(refusal(&tenant(other)).contains("a hub requests cpu, memory"), "{}", refusal(&tenant(other)));
}

#[test]
fn what_the_pods_of_a_hub_carry_is_not_what_acb_finds_them_by() {
    for (template, expected) in [
        ("labels: {acb.dev/tenant: globex}", "labels of acb.dev"),
        ("labels: {app.kubernetes.io/name: x}", "labels of acb.dev"),
        ("annotations: {acb.dev/config: x}", "annotations of acb.dev"),
        ("priorityClassName: Not_One", "does not match"),
    ] {
        let message = refusal(&tenant(&format!("  tier: Free\n  hub: {{podTemplate: {{{template}}}}}\n")));
        assert!(message.contains("spec.hub.podTemplate") && message.contains(expected), "{message}");
    }
    for hub in ["{gatewayRef: {name: a, namespace: b}}", "{hostnames: [a.example]}"] {
        assert!(refusal(&tenant(&format!("  tier: Free\n  hub: {hub}\n"))).contains("set gatewayRef and hostnames together"));
    }
    for peer in ["{}", "{podSelector: {}}", "{namespaceSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}"] {
        let message = refusal(&tenant(&format!("  tier: Free\n  hub: {{ingressPeers: [{peer}]}}\n")));
        assert!(message.contains("set either namespaceSelector"), "{message}");
    }
}

#[test]
fn deep_and_large_input_is_refused() {
    assert!(refusal(&"[".repeat(100_000)).contains("too deeply nested"));
    assert!(refusal(&format!("a: {}", "x".repeat(document::MAX_FILE_BYTES))).contains("split it"));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(refusal(bomb).contains("file.yaml"));
}

#[test]
fn only_so_much_is_told_of_one_document() {
    let many = |item: &str| vec![item; 2_000].join(", ");
    let fields: Vec<String> = (0..2_000).map(|number| format!("f{number}: 1")).collect();
    for text in [
        agent(&format!("  {{role: Observer, capabilities: [{}]}}", many("1"))),
        agent(&format!("  {{role: Observer, {}}}", fields.join(", "))),
        agent("  role: Observer\n").replace("  name: worker\n", &format!("  name: worker\n  {}\n", fields.join("\n  "))),
        tenant(&format!("  {{tier: Free, contextTypes: [{}]}}", many("{name: a}"))),
    ] {
        let loaded = load(&text, "f.yaml").ours;
        let violations = &loaded[0].as_ref().unwrap_err().violations;
        assert_eq!(violations.len(), schema::MAX_VIOLATIONS + 1, "{}", &text[..200]);
        assert!(violations.last().unwrap().message.contains("more than these 100"), "{:?}", violations.last());
    }
}

/// Text that is near to a resource.
fn near() -> impl Strategy<Value = String> {
    let parts = [
        "apiVersion: acb.dev/v1alpha1\n",
        "kind: Tenant\n",
        "kind: Agent\n",
        "kind: Quota\n",
        "metadata:\n  name: acme\n",
        "metadata: ",
        "  namespace: acb-acme\n",
        "spec:\n",
        "  tier: Free\n",
        "  tier: ~\n",
        "  contextTypes:\n",
        "    - name: a\n",
        "    - 1\n",
        "  hub: {replicas: 1e9}\n",
        "---\n",
        "- ",
        "{",
        "}",
        "\"",
        "&a ",
        "*a",
        "!!binary x",
        "\t",
        "\u{0}",
        "  limits: {maxAgents: 0x1}\n",
        "  role: Admin\n",
        "  groups: [a, 1, {}]\n",
        "null",
        "\u{feff}",
        "|\n  x\n",
        "? ",
        ": ",
        "<<: *a\n",
        "  messagesPerMinute: .inf\n",
    ];
    prop::collection::vec(prop::sample::select(parts.to_vec()), 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_input_panics(text in prop_oneof![near(), ".{0,200}"]) {
        for document in load(&text, "f").ours {
            if let Err(error) = document {
                prop_assert!(!error.violations.is_empty());
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
