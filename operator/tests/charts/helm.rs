//! What needs helm: `make charts` runs these. The binary is `$HELM`, the one that `e2e/build` made, or `helm`.

use std::{fs, path::PathBuf, process::Command};

use crate::path;

fn helm(arguments: &[&str]) -> Result<String, String> {
    let built = path("target/e2e/bin/helm");
    let found = if built.exists() { built } else { "helm".into() };
    let program = std::env::var_os("HELM").map_or(found, PathBuf::from);
    let run = Command::new(&program).args(arguments).current_dir(path("")).output();
    let output = run.unwrap_or_else(|error| panic!("{}: {error}: install helm 3, or name it in $HELM", program.display()));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn template(values: &[&str]) -> Result<String, String> {
    let version = ["template", "acb", "charts/acb", "--namespace=acb-system", "--kube-version=1.34.0"];
    helm(&[&version, values].concat())
}

fn holds(golden: &str, values: &str) {
    let text = template(&["--values", values]).unwrap();
    if std::env::var_os("UPDATE_CHARTS").is_some() {
        fs::write(path(golden), &text).unwrap();
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
    holds("config/operator/operator.yaml", "config/operator/values.yaml");
    holds("operator/tests/charts/golden/everything.yaml", "operator/tests/charts/golden/everything-values.yaml");
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
