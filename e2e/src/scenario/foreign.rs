//! A Secret that somebody puts where the operator will look for one of its own.

use serde_json::json;

use super::World;
use crate::{
    error::{Result, wrong},
    process::eventually,
};

const NAMESPACE: &str = "acb-acme";

/// A key of one's own, under the name of an agent that is still to come: with the operator's label, and in no form that it makes.
pub(super) fn key(world: &mut World) -> Result<()> {
    let kubectl = &world.kubectl;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": "newcomer-api-key-1", "namespace": NAMESPACE, "labels": {"app.kubernetes.io/managed-by": "acb-operator"},
        },
        "stringData": {"api-key": "acb_abc_def"},
    });
    kubectl.apply(&secret.to_string())?;
    let agent = json!({
        "apiVersion": "acb.dev/v1alpha1", "kind": "Agent",
        "metadata": {"name": "newcomer", "namespace": NAMESPACE}, "spec": {"role": "Observer"},
    });
    kubectl.apply(&agent.to_string())?;
    eventually(60, "the Agent is refused, with the name of the Secret", || {
        let found = kubectl.get(&["--namespace", NAMESPACE, "agent", "newcomer"]).map_err(|error| error.to_string())?;
        let said = found.pointer("/status/conditions/0").cloned().unwrap_or_default();
        let message = said["message"].as_str().unwrap_or_default();
        let is_said = said["reason"] == "Refused" && message.contains("newcomer-api-key-1");
        if is_said { Ok(()) } else { Err(said.to_string()) }
    })?;
    kubectl.run(&["--namespace", NAMESPACE, "delete", "secret", "newcomer-api-key-1"])?;
    kubectl.wait_for("Ready", &["--namespace", NAMESPACE, "agent/newcomer"], 90)?;
    let made = kubectl.get(&["--namespace", NAMESPACE, "secret", "newcomer-api-key-1"])?;
    kubectl.run(&["--namespace", NAMESPACE, "delete", "agent", "newcomer"])?;
    if made["metadata"]["annotations"]["acb.dev/seal"].is_string() { Ok(()) } else { wrong(format!("{made} has no seal")) }
}
