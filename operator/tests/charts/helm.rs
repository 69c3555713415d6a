//! What needs helm: `make charts` runs these. The binary is `$HELM`, the one that `e2e/build` made, or `helm`.

use std::{fs, path::PathBuf, process::Command};

use crate::path;

fn helm(arguments: &[&str]) -> Result<String, String> {
    run("helm", "HELM", arguments)
}

/// The program that `variable` names, or that `e2e/build` made, or that is on the PATH.
fn run(name: &str, variable: &str, arguments: &[&str]) -> Result<String, String> {
    let built = path("target/e2e/bin").join(name);
    let found = if built.exists() { built } else { name.into() };
    let program = std::env::var_os(variable).map_or(found, PathBuf::from);
    let run = Command::new(&program).args(arguments).current_dir(path("")).output();
    let output = run.unwrap_or_else(|error| panic!("{}: {error}: install {name}, or name it in ${variable}", program.display()));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn template(values: &[&str]) -> Result<String, String> {
    let version = ["template", "acb", "charts/acb", "--namespace=acb-system", "--kube-version=1.34.0"];
    helm(&[&version, values].concat())
}

/// Without the labels by which helm knows its own: it would take over what it did not install, or refuse to.
fn without_helm(text: &str) -> String {
    let kept = text
        .lines()
        .filter(|line| !line.trim().starts_with("helm.sh/chart:") && line.trim() != "app.kubernetes.io/managed-by: Helm");
    kept.map(|line| format!("{line}\n")).collect()
}

fn holds(golden: &str, text: &str) {
    if std::env::var_os("UPDATE_CHARTS").is_some() {
        fs::write(path(golden), text).unwrap();
    }
    let found = fs::read_to_string(path(golden)).unwrap_or_default();
    assert!(found == text, "{golden} is out of date: run UPDATE_CHARTS=1 make charts, and read the difference");
}

#[test]
#[ignore = "needs helm: make charts"]
fn charts_are_sound() {
    for chart in ["charts/acb-crds", "charts/acb"] {
        helm(&["lint", "--strict", chart]).unwrap();
    }
}

#[test]
#[ignore = "needs helm: make charts"]
fn what_the_chart_makes() {
    let of = |values: &str| template(&["--values", values]).unwrap();
    holds("config/operator/operator.yaml", &without_helm(&of("config/operator/values.yaml")));
    holds("operator/tests/charts/golden/everything.yaml", &of("operator/tests/charts/golden/everything-values.yaml"));
}

#[test]
#[ignore = "needs kubectl: make charts"]
fn another_namespace_by_kustomize_opens_no_wall() {
    let folder = tempfile::tempdir_in(path("target")).unwrap();
    let base = folder.path().join("operator");
    fs::create_dir(&base).unwrap();
    for file in ["kustomization.yaml", "namespace.yaml", "operator.yaml"] {
        fs::copy(path("config/operator").join(file), base.join(file)).unwrap();
    }
    fs::write(folder.path().join("kustomization.yaml"), "resources: [operator]\nnamespace: acb-prod\n").unwrap();
    let text = run("kubectl", "KUBECTL", &["kustomize", folder.path().to_str().unwrap()]).unwrap();
    let left: Vec<&str> = text.split("\n---\n").filter(|object| object.contains("acb-system")).collect();
    // The operator finds out by itself that a namespace is no tenant's: there it is only a better message.
    let names = |object: &&str| object.contains("name: acb-tenant-name");
    assert!(left.iter().all(names), "what still names the namespace of before:\n{}", left.join("\n---\n"));
    assert!(text.contains("namespace: acb-prod"));
}

#[test]
#[ignore = "needs helm: make charts"]
fn an_image_by_its_digest_and_a_user_of_the_clusters_choice() {
    let digest = format!("image.digest=sha256:{}", "0".repeat(64));
    let base = ["--set", "bus.kind=postgres,postgres.host=p", "--set", digest.as_str()];
    let text = template(&base).unwrap();
    assert!(text.contains(&format!("acb-operator@sha256:{}\"", "0".repeat(64))), "{text}");
    assert!(text.contains("runAsUser: 65532\n        runAsGroup: 65532"), "{text}");
    let text = template(&[base.as_slice(), &["--set", "runAsUser=null,networkPolicy.dnsPorts={5353}"]].concat()).unwrap();
    assert!(
        text.contains("runAsNonRoot: true") && !text.contains("runAsUser: 65532") && text.contains("runAsUser: null"),
        "{text}"
    );
    assert!(text.contains("port: 5353") && !text.contains("port: 53\n") && text.contains("dnsPorts: [5353]"), "{text}");
}

#[test]
#[ignore = "needs helm: make charts"]
fn what_must_be_given_is_asked_for() {
    for (values, wanted) in [
        ("", "bus.kind: kafka or postgres"),
        ("bus.kind=postgres", "postgres.host"),
        ("bus.kind=kafka,postgres.host=p", "bus.bootstrapServers"),
        ("bus.kind=redis", "bus/kind"),
        ("bus.kind=kafka,bus.bootstrapServers=kafka,postgres.host=p", "bootstrapServers"),
        ("bus.kind=postgres,postgres.host=p,replicaz=3", "replicaz"),
        ("bus.kind=postgres,postgres.host=p,tiers.Gold.replicas=3", "Gold"),
        ("bus.kind=postgres,postgres.host=p,runAsUser=0", "runAsUser"),
        ("bus.kind=postgres,postgres.host=p,image.digest=latest", "digest"),
        ("bus.kind=postgres,postgres.host=p,podLabels.app\\.kubernetes\\.io/name=mine", "use another key"),
        ("bus.kind=postgres,postgres.host=p,tiers.Free.tenant.maxAgnets=3", "maxAgnets"),
        ("bus.kind=postgres,postgres.host=p,tiers.Free.agentCeiling.maxAgents=3", "maxAgents"),
    ] {
        let error = template(&["--set", values]).unwrap_err();
        assert!(error.contains(wanted), "{values}: {error}");
    }
}

#[test]
#[ignore = "needs helm: make charts"]
fn monitoring_is_there_where_the_cluster_knows_it() {
    let base = ["--set", "bus.kind=postgres,postgres.host=p"];
    assert!(!template(&base).unwrap().contains("monitoring.coreos.com"));
    let known =
        ["--api-versions=monitoring.coreos.com/v1/ServiceMonitor", "--api-versions=monitoring.coreos.com/v1/PrometheusRule"];
    let text = template(&[base.as_slice(), &known].concat()).unwrap();
    assert!(text.contains("kind: ServiceMonitor") && text.contains("alert: AcbHubDown") && !text.contains("kind: PodMonitor"));
}

#[test]
#[ignore = "needs helm: make charts"]
fn the_right_to_start_jobs_is_there_while_isolation_is_tried() {
    let base = ["--set", "bus.kind=postgres,postgres.host=p"];
    assert!(template(&base).unwrap().contains("acb-operator-isolation"));
    let off = template(&[base.as_slice(), &["--set", "isolation.enabled=false"]].concat()).unwrap();
    assert!(!off.contains("acb-operator-isolation") && !off.contains("jobs"), "a role, or the right to bind it, remained");
}
