//! The operator, seen from outside: who leads, and what it has counted.

use acb_operator::metrics_text::{Sample, samples};
use serde_json::{Value, json};

use super::{World, install::SYSTEM};
use crate::{
    error::{Error, Result},
    process::eventually,
};

/// The identity of the leader: its pod's name and a random tail.
pub(super) fn leader(world: &World) -> Result<String> {
    let lease = world.kubectl.get(&["--namespace", SYSTEM, "lease", "acb-operator"])?;
    Ok(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned())
}

/// The pod that leads.
pub(super) fn leader_pod(world: &World) -> Result<String> {
    Ok(pod_of(&leader(world)?).to_owned())
}

fn pod_of(leader: &str) -> &str {
    leader.split('_').next().unwrap_or_default()
}

/// Waits until every tenant was looked at again, with nothing left to be done.
pub(super) fn resynced(world: &World) -> Result<()> {
    let tenants = world.kubectl.get(&["tenants"])?["items"].as_array().map_or(0, Vec::len);
    // Twice as many: one may come twice before another comes once.
    let more = 2 * u64::try_from(tenants).unwrap_or_default();
    let mut begun: Option<(String, u64)> = None;
    eventually(150, "every tenant is looked at again", || {
        let leader = leader(world).map_err(|error| error.to_string())?;
        let now = settled(world, pod_of(&leader)).map_err(|error| error.to_string())?;
        match &begun {
            Some((known, before)) if *known == leader && now >= before + more => Ok(()),
            Some((known, before)) if *known == leader => Err(format!("{now} reconciles of {}", before + more)),
            // Another has just taken over, and counts for itself.
            _ => {
                let waits = format!("{leader} leads");
                begun = Some((leader, now));
                Err(waits)
            }
        }
    })
}

/// How many reconciles of the leader found nothing left to be done.
fn settled(world: &World, pod: &str) -> Result<u64> {
    let path = format!("/api/v1/namespaces/{SYSTEM}/pods/{pod}:8080/proxy/metrics");
    let metrics = world.kubectl.run(&["get", "--raw", &path])?;
    let name = "controller_runtime_reconcile_total";
    let is_it = |sample: &Sample<'_>| {
        sample.name == name && sample.label("controller") == Some("tenancy") && sample.label("result") == Some("success")
    };
    let found = samples(&metrics).find(is_it);
    found
        .map(|sample| sample.value as u64)
        .ok_or_else(|| Error::Wrong(format!("{pod} counts no {name} of a tenancy's successes")))
}

/// Waits until a condition of an object has this reason, and a message with this text in it.
pub(super) fn says(world: &World, object: &[&str], reason: &str, text: &str, seconds: u64) -> Result<()> {
    eventually(seconds, &format!("{} says {reason}, and {text:?}", object.join(" ")), || {
        let found = world.kubectl.get(object).map_err(|error| error.to_string())?;
        let conditions = found["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let is_it = |condition: &Value| {
            let message = condition["message"].as_str().unwrap_or_default();
            condition["reason"] == reason && message.contains(text)
        };
        if conditions.iter().any(is_it) { Ok(()) } else { Err(json!(conditions).to_string()) }
    })
}
