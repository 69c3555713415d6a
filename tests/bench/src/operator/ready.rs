//! From a Tenant to its hub that takes traffic on a real node. On the cluster of `KUBECONFIG`, where the operator is installed.

use std::time::Instant;

use serde_json::json;

use super::cluster::Cluster;
use crate::{Effort, Failure, report::Report, samples::median, tell};

const TENANTS: u32 = 20;

pub(crate) fn run(_: Effort, report: &mut Report) -> Result<(), Failure> {
    if std::env::var_os("KUBECONFIG").is_none() {
        return Err(Failure(
            "KUBECONFIG names no cluster: `make cluster-up`, install the operator (docs/install.md), and export it".to_owned(),
        ));
    }
    let cluster = Cluster::find()?;
    cluster.run(&["get", "crd", "tenants.acb.dev"])?;
    tell(format!("making {TENANTS} tenants, one after another"));
    let mut seconds = Vec::new();
    for n in 0..TENANTS {
        let name = format!("bench-ready-{n}");
        let tenant = json!({
            "apiVersion": "acb.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name},
            "spec": {"tier": "Free", "deletionPolicy": "Delete", "hub": {"replicas": 1}},
        });
        let begun = Instant::now();
        cluster.send(&["create"], &[tenant])?;
        let object = format!("tenant/{name}");
        let waited = cluster.run(&["wait", "--for=condition=Ready", "--timeout=120s", &object]);
        let took = begun.elapsed().as_secs_f64();
        cluster.run(&["delete", &object, "--timeout=180s"])?;
        waited?;
        tell(format!("  {name} Ready after {took:.1} s"));
        seconds.push(took);
    }
    report.value("Tenant created to hub Ready on the node, p50 of 20", median(seconds), "s", 10.0);
    Ok(())
}
