//! `autoscaled`: a HorizontalPodAutoscaler scales a hub under load, up for its use of CPU and down for a smaller range.
//!
//! There is no metrics-server. What stands in for it is its kind PodMetrics, as a CustomResourceDefinition, with objects that hold what the
//! kubelet measured; the autoscaler asks for them as it asks metrics-server.

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    World,
    load::{self, Load, TENANT},
    operator, tenant,
};
use crate::{
    error::{Result, wrong},
    process::eventually,
    say,
};

const NAMESPACE: &str = "acbhub-hooli";
const FEWEST: i64 = 2;
const MOST: i64 = 4;
/// A time in which the kubelet has looked at least once, and the use of CPU is a rate and no accident.
const LOOK: Duration = Duration::from_secs(5);
const METRICS: &str = "pods.metrics.k8s.io";

pub(super) fn run(world: &mut World) -> Result<()> {
    load::ready(world)?;
    let hub = world.kubectl.get(&["tenant", TENANT])?["spec"]["hub"].take();
    world.kubectl.apply(&definition().to_string())?;
    world.kubectl.wait_for("Established", &[&format!("customresourcedefinition/{METRICS}")], 30)?;
    let scaled = scales(world);
    // Whatever came of it: other scenarios go on with two replicas, and without the stand-in.
    set_hub(world, &hub)?;
    world.kubectl.run(&["delete", "customresourcedefinition", METRICS, "--timeout=60s"])?;
    scaled?;
    world.kubectl.wait_gone(&["--namespace", NAMESPACE, "horizontalpodautoscaler", "hub"], 60)?;
    replicas_become(world, &mut Measured::default(), 60, "as they were", |replicas| replicas == FEWEST)
}

fn scales(world: &World) -> Result<()> {
    set_range(world, MOST)?;
    let mut measured = Measured::default();
    eventually(120, "the hub is rolled and its autoscaler there", || {
        let hub = world.kubectl.get(&["--namespace", NAMESPACE, "deployment", "hub"]).map_err(|error| error.to_string())?;
        let autoscaler = ["--namespace", NAMESPACE, "horizontalpodautoscaler", "hub"];
        world.kubectl.get(&autoscaler).map_err(|error| error.to_string())?;
        let (spec, status) = (&hub["spec"], &hub["status"]);
        let rolled =
            status["observedGeneration"] == hub["metadata"]["generation"] && status["updatedReplicas"] == status["replicas"];
        let asks = spec["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "60m";
        if rolled && asks && status["readyReplicas"] == FEWEST { Ok(()) } else { Err(status.to_string()) }
    })?;
    let load = Load::begin(world)?;
    replicas_become(world, &mut measured, 180, "more under load", |replicas| replicas > FEWEST)?;
    load.flows(world)?;
    // The operator looks at the hub while an autoscaler decides, and leaves its replicas to it.
    let before = autoscaled(world)?;
    operator::resynced(world)?;
    if before > FEWEST && replicas(world)? < before {
        return wrong(format!("the operator made {} of {before} replicas", replicas(world)?));
    }
    // For want of load it would wait for 5 minutes.
    set_range(world, FEWEST)?;
    replicas_become(world, &mut measured, 120, "fewer by a smaller range", |replicas| replicas == FEWEST)?;
    load.flows(world)?;
    let told = load.finish(world)?;
    if told.refused > 0 {
        return wrong(format!("{} messages were refused while the hub was scaled", told.refused));
    }
    Ok(())
}

fn set_range(world: &World, most: i64) -> Result<()> {
    let autoscaling = json!({"minReplicas": FEWEST, "maxReplicas": most, "targetCPUUtilizationPercentage": 60});
    set_hub(world, &json!({"autoscaling": autoscaling, "resources": {"requests": {"cpu": "60m"}}}))
}

fn set_hub(world: &World, hub: &Value) -> Result<()> {
    let patch = json!([{"op": "add", "path": "/spec/hub", "value": hub}]).to_string();
    world.kubectl.run(&["patch", &format!("tenant/{TENANT}"), "--type=json", "--patch", &patch]).map(drop)
}

fn replicas(world: &World) -> Result<i64> {
    let hub = world.kubectl.get(&["--namespace", NAMESPACE, "deployment", "hub"])?;
    Ok(hub["status"]["readyReplicas"].as_i64().unwrap_or_default())
}

/// How many the autoscaler wants.
fn autoscaled(world: &World) -> Result<i64> {
    let autoscaler = world.kubectl.get(&["--namespace", NAMESPACE, "horizontalpodautoscaler", "hub"])?;
    Ok(autoscaler["status"]["desiredReplicas"].as_i64().unwrap_or_default())
}

/// Says what was measured until there are as many ready replicas as are wanted.
fn replicas_become(world: &World, measured: &mut Measured, seconds: u64, what: &str, wanted: impl Fn(i64) -> bool) -> Result<()> {
    let start = Instant::now();
    loop {
        let (there, used) = (replicas(world)?, measured.tell(world));
        if wanted(there) {
            say(&format!("         {there} replicas, {what}, after {:.0} s", start.elapsed().as_secs_f64()));
            return Ok(());
        }
        if start.elapsed() > Duration::from_secs(seconds) {
            let autoscaler = world.kubectl.run(&["--namespace", NAMESPACE, "describe", "horizontalpodautoscaler"]);
            return wrong(format!("{there} replicas are not {what}: {used:?}\n{}", autoscaler.unwrap_or_default()));
        }
        sleep(LOOK);
    }
}

/// What metrics-server brings along, but for the server.
fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": METRICS,
            "annotations": {"api-approved.kubernetes.io": "unapproved, it stands in for metrics-server in a test"},
        },
        "spec": {
            "group": "metrics.k8s.io",
            "scope": "Namespaced",
            "names": {"plural": "pods", "kind": "PodMetrics", "listKind": "PodMetricsList"},
            "versions": [{
                "name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    })
}

/// What a pod's hub has used of CPU.
#[derive(Clone, Copy, Debug)]
struct Used {
    /// Seconds, since it started.
    seconds: f64,
    /// When that was read, in seconds since 1970.
    at: f64,
}

/// What the kubelet said last, by pod.
#[derive(Debug, Default)]
struct Measured {
    before: BTreeMap<String, Used>,
}

impl Measured {
    /// Asks the kubelet, and tells the autoscaler how much CPU each hub uses, in nanocores. Answers with the same.
    fn tell(&mut self, world: &World) -> Result<BTreeMap<String, u64>> {
        let said = world.kubectl.run(&["get", "--raw", "/api/v1/nodes/acb-e2e/proxy/metrics/resource"])?;
        let now = used(&said, NAMESPACE);
        let rates: BTreeMap<String, u64> =
            now.iter().filter_map(|(pod, now)| Some((pod.clone(), self.rate(pod, *now)?))).collect();
        for (pod, used) in now {
            self.before.insert(pod, used);
        }
        let list = world.kubectl.get(&["--namespace", NAMESPACE, "pods", "--selector", tenant::HUB_PODS])?;
        let pods = list["items"].as_array().into_iter().flatten();
        let metrics: Vec<Value> = pods.filter_map(|pod| metrics(pod, &rates)).collect();
        if !metrics.is_empty() {
            world.kubectl.apply(&json!({"apiVersion": "v1", "kind": "List", "items": metrics}).to_string())?;
        }
        Ok(rates)
    }

    /// Since the last look; none where the kubelet has not looked since, or has just begun.
    fn rate(&self, pod: &str, now: Used) -> Option<u64> {
        let before = self.before.get(pod).filter(|before| now.at > before.at && now.seconds >= before.seconds)?;
        Some(((now.seconds - before.seconds) / (now.at - before.at) * 1e9) as u64)
    }
}

fn metrics(pod: &Value, rates: &BTreeMap<String, u64>) -> Option<Value> {
    let name = pod["metadata"]["name"].as_str()?;
    let rate = rates.get(name)?;
    Some(json!({
        "apiVersion": "metrics.k8s.io/v1beta1",
        "kind": "PodMetrics",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": pod["metadata"]["labels"]},
        "timestamp": OffsetDateTime::now_utc().format(&Rfc3339).ok()?,
        "window": format!("{}s", LOOK.as_secs()),
        "containers": [{"name": "hub", "usage": {"cpu": format!("{rate}n"), "memory": "64Mi"}}],
    }))
}

/// Reads lines as `container_cpu_usage_seconds_total{container="hub",namespace="acbhub-hooli",pod="hub-1"} 1.5 1700000000000`.
fn used(said: &str, namespace: &str) -> BTreeMap<String, Used> {
    let line = |line: &str| {
        let (labels, values) = line.strip_prefix("container_cpu_usage_seconds_total{")?.split_once("} ")?;
        let label = |name: &str| labels.split(',').find_map(|label| label.strip_prefix(&format!("{name}=\""))?.strip_suffix('"'));
        if label("container") != Some("hub") || label("namespace") != Some(namespace) {
            return None;
        }
        let (seconds, at) = values.split_once(' ')?;
        let used = Used { seconds: seconds.parse().ok()?, at: at.trim().parse::<f64>().ok()? / 1000.0 };
        Some((label("pod")?.to_owned(), used))
    };
    said.lines().filter_map(line).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubelet_says_becomes_a_rate() {
        let said = |seconds: &str, at: &str| {
            format!(
                "# TYPE container_cpu_usage_seconds_total counter\n\
                 container_cpu_usage_seconds_total{{container=\"hub\",namespace=\"acbhub-hooli\",pod=\"hub-1\"}} {seconds} {at}\n\
                 container_cpu_usage_seconds_total{{container=\"hub\",namespace=\"acbhub-acme\",pod=\"hub-2\"}} 9 {at}\n"
            )
        };
        let mut measured = Measured { before: used(&said("1.5", "1700000000000"), "acbhub-hooli") };
        assert_eq!(measured.before.keys().collect::<Vec<_>>(), ["hub-1"]);
        let now = used(&said("1.75", "1700000005000"), "acbhub-hooli")["hub-1"];
        assert_eq!(measured.rate("hub-1", now), Some(50_000_000));
        assert_eq!(measured.rate("hub-9", now), None, "a pod that was not there before");
        measured.before.insert("hub-1".to_owned(), now);
        assert_eq!(measured.rate("hub-1", now), None, "the kubelet has not looked since");
    }
}
