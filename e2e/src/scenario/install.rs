//! The charts, installed as the guide says.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::World;
use crate::{
    backends::Backends,
    error::{Result, wrong},
    kubectl::Kubectl,
    place::{Place, write_private},
    process::eventually,
};

/// Where the operator is.
pub(super) const SYSTEM: &str = "acb-system";
/// Short, so that drift is found while somebody waits for it.
const RESYNC_SECONDS: u32 = 10;

pub(super) fn run(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    prepare(&world.place, kubectl)?;
    helm(world, &[])?;
    kubectl.wait_for("Available", &["--namespace", SYSTEM, "deployment/acb-operator"], 120)?;
    eventually(30, "a leader holds the lease", || {
        let lease = kubectl.get(&["--namespace", SYSTEM, "lease", "acb-operator"]).map_err(|error| error.to_string())?;
        match lease["spec"]["holderIdentity"].as_str() {
            Some(holder) if !holder.is_empty() => Ok(()),
            _ => Err(lease["spec"].to_string()),
        }
    })
}

/// What comes before the charts: the operator's namespace, its Secrets, and the values, whose file it answers with.
pub(crate) fn prepare(place: &Place, kubectl: &Kubectl) -> Result<PathBuf> {
    let backends = Backends::read(place)?;
    kubectl.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}).to_string())?;
    kubectl.apply(&secrets(&backends).to_string())?;
    let file = place.run().join("values.yaml");
    write_private(&file, &serde_json::to_string_pretty(&values(&backends))?)?;
    Ok(file)
}

/// `helm upgrade --install` of both charts, with further values as `key=value`.
pub(super) fn helm(world: &World, further: &[&str]) -> Result<()> {
    let values = world.place.run().join("values.yaml").display().to_string();
    let chart = |name: &str| world.place.root.join("charts").join(name).display().to_string();
    world.kubectl.helm(&[
        "upgrade",
        "--install",
        "acb-crds",
        &chart("acb-crds"),
        "--namespace",
        SYSTEM,
        "--wait",
        "--timeout",
        "60s",
    ])?;
    let chart = chart("acb");
    let mut arguments =
        vec!["upgrade", "--install", "acb", &chart, "--namespace", SYSTEM, "--values", &values, "--wait", "--timeout", "180s"];
    arguments.extend(further.iter().flat_map(|value| ["--set", value]));
    match world.kubectl.helm(&arguments) {
        Ok(_) => Ok(()),
        Err(error) => {
            let pods = world.kubectl.run(&["--namespace", SYSTEM, "describe", "pods"]).unwrap_or_default();
            let logs = ["--namespace", SYSTEM, "logs", "--selector", "app.kubernetes.io/name=acb", "--tail", "20"];
            let logs = world.kubectl.run(&logs).unwrap_or_default();
            wrong(format!("{error}\n{pods}\n{logs}"))
        }
    }
}

/// What the platform team gives the chart.
fn values(backends: &Backends) -> Value {
    json!({
        "bus": {"kind": "kafka", "bootstrapServers": backends.kafka_bootstrap, "tls": true},
        "kafka": {"replicationFactor": 1},
        "postgres": {"host": backends.host.to_string(), "port": backends.postgres_port, "sslMode": "verify-full"},
        "resyncSeconds": RESYNC_SECONDS,
        // Only in the scenario that is about it: elsewhere it would take the machine from what is tried.
        "isolation": {"enabled": false},
    })
}

/// What the platform team keeps for the operator.
fn secrets(backends: &Backends) -> Value {
    let secret = |name: &str, username: &str, password: &str, ca: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": SYSTEM},
            "stringData": {"username": username, "password": password, "ca.crt": ca},
        })
    };
    json!({"apiVersion": "v1", "kind": "List", "items": [
        secret("acb-operator-postgres", "acb_operator", &backends.postgres_password, &backends.postgres_ca),
        secret("acb-operator-kafka", &backends.kafka_user, &backends.kafka_password, &backends.kafka_ca),
    ]})
}
