//! A node that is only said to be there: pods that are bound to it are said to be ready. So an operator sees converged tenants without
//! the memory of their hubs.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::cluster::Cluster;
use crate::Failure;

/// Its name, its label, and what keeps others away from it.
const NODE: &str = "acb-bench-nowhere";
pub(super) const LABEL: &str = "acb.dev/bench";
/// The controller manager takes a node for lost after some forty seconds.
const HEARTBEAT: Duration = Duration::from_secs(10);

pub(super) struct Nowhere {
    told: Option<Instant>,
}

fn now() -> Result<String, Failure> {
    let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output()?;
    Ok(String::from_utf8_lossy(&date.stdout).trim().to_owned())
}

impl Nowhere {
    pub(super) fn start(cluster: &Cluster) -> Result<Self, Failure> {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": NODE, "labels": {LABEL: NODE}},
            "spec": {"taints": [{"key": LABEL, "value": NODE, "effect": "NoSchedule"}]},
        });
        cluster.send(&["create"], &[node])?;
        let mut nowhere = Self { told: None };
        nowhere.tell(cluster)?;
        Ok(nowhere)
    }

    /// Tells that the node is there, where that was not said for a while.
    pub(super) fn tell(&mut self, cluster: &Cluster) -> Result<(), Failure> {
        if self.told.is_some_and(|told| told.elapsed() < HEARTBEAT) {
            return Ok(());
        }
        let room = json!({"cpu": "1000", "memory": "4Ti", "pods": "2000", "ephemeral-storage": "4Ti"});
        let status = json!({"status": {
            "allocatable": room, "capacity": room,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Said", "message": "it is said to be there",
                            "lastHeartbeatTime": now()?, "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        }});
        cluster.run(&["patch", "node", NODE, "--subresource=status", "--type=merge", "--patch", &status.to_string()])?;
        self.told = Some(Instant::now());
        Ok(())
    }

    /// Says that the pods which are bound to it run. Answers with how many were said to for the first time.
    pub(super) fn run_pods(&mut self, cluster: &Cluster) -> Result<usize, Failure> {
        self.tell(cluster)?;
        let now = now()?;
        let selector = format!("--field-selector=spec.nodeName={NODE},status.phase!=Running");
        let list = cluster.get(&["pods", "--all-namespaces", &selector])?;
        let pods: Vec<Value> = list["items"].as_array().into_iter().flatten().map(|pod| ready(pod, &now)).collect();
        if !pods.is_empty() {
            cluster.send(&["replace", "--subresource=status"], &pods)?;
        }
        Ok(pods.len())
    }

    /// Takes away pods that were told to end: nobody else would.
    pub(super) fn end_pods(&self, cluster: &Cluster) -> Result<(), Failure> {
        let selector = format!("--field-selector=spec.nodeName={NODE}");
        cluster.run(&["delete", "pods", "--all-namespaces", &selector, "--force", "--grace-period=0"]).map(drop)
    }

    pub(super) fn end(&self, cluster: &Cluster) -> Result<(), Failure> {
        self.end_pods(cluster)?;
        cluster.run(&["delete", "node", NODE]).map(drop)
    }
}

fn ready(pod: &Value, now: &str) -> Value {
    let mut pod = pod.clone();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    pod["status"] = json!({
        "phase": "Running", "startTime": now, "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}],
        "conditions": conditions,
        "containerStatuses": [{"name": "hub", "image": pod["spec"]["containers"][0]["image"], "imageID": "none", "ready": true,
                               "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}}}],
    });
    pod
}
