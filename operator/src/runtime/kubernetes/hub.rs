//! How a tenant's hub is doing, and how it is reached, from its Deployment and its Service. Pure.

use serde_json::Value;

use crate::observed::ObservedHub;

fn number(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// A condition of the Deployment that is against it.
fn complaint(deployment: &Value) -> Option<String> {
    let conditions = deployment.pointer("/status/conditions")?.as_array()?;
    let text = |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let bad = |condition: &&Value| {
        matches!(
            (text(condition, "type").as_str(), text(condition, "status").as_str()),
            ("ReplicaFailure", "True") | ("Progressing", "False")
        )
    };
    conditions.iter().find(bad).map(|condition| text(condition, "message"))
}

/// What a Deployment says of its replicas.
pub(super) fn observed(deployment: Option<&Value>) -> ObservedHub {
    let Some(deployment) = deployment else {
        return ObservedHub { rolling: true, lacks: "the hub is about to start".to_owned(), ..ObservedHub::default() };
    };
    let wanted = deployment.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let seen = number(deployment, "/status/observedGeneration") >= number(deployment, "/metadata/generation");
    let of = |field: &str| if seen { number(deployment, &format!("/status/{field}")) } else { 0 };
    let (updated, replicas) = (of("updatedReplicas"), of("replicas"));
    let newest = of("readyReplicas").min(updated);
    let rolled_out = seen && newest >= wanted && replicas <= updated;
    let complaint = complaint(deployment);
    let rolling = !rolled_out && complaint.is_none() && (!seen || updated < wanted || replicas > updated);
    let why = complaint.map(|why| format!("; {why}")).unwrap_or_default();
    let lacks = format!("the hub has {} of {wanted} replicas ready{why}", newest.min(wanted));
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let image = deployment.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str).unwrap_or_default();
    ObservedHub {
        replicas: small(wanted),
        // Also while the controller has not seen the newest revision: who takes traffic goes on to.
        ready: small(number(deployment, "/status/readyReplicas")),
        rolled_out,
        rolling,
        image: image.to_owned(),
        lacks: if rolled_out { String::new() } else { lacks },
        fault: None,
    }
}

/// The Service's name, and its addresses outside where it has some.
pub(super) fn endpoints(service: Option<&Value>) -> Vec<String> {
    let Some(service) = service else { return Vec::new() };
    let text = |pointer: &str| service.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let port = ports.filter(|port| port["name"] == "grpc").find_map(|port| port["port"].as_u64()).unwrap_or_default();
    let mut endpoints = vec![format!("{}.{}.svc:{port}", text("/metadata/name"), text("/metadata/namespace"))];
    let outside = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array).into_iter().flatten();
    endpoints.extend(outside.filter_map(|ingress| {
        let host = ingress.get("hostname").or_else(|| ingress.get("ip"))?.as_str()?;
        Some(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
    }));
    endpoints
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    fn deployment(status: Value) -> Value {
        json!({"metadata": {"generation": 2}, "spec": {"replicas": 2}, "status": status})
    }

    #[test]
    fn a_hub_is_rolled_out_when_its_newest_revision_is_ready_and_no_other_is_left() {
        let ready = json!({"observedGeneration": 2, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2});
        let all = observed(Some(&deployment(ready.clone())));
        assert!(all.rolled_out && !all.rolling && all.lacks.is_empty(), "{all:?}");
        for (field, value, rolling) in
            [("observedGeneration", 1, true), ("replicas", 3, true), ("updatedReplicas", 1, true), ("readyReplicas", 1, false)]
        {
            let mut status = ready.clone();
            status[field] = json!(value);
            let hub = observed(Some(&deployment(status)));
            assert!(!hub.rolled_out && hub.rolling == rolling && hub.ready >= 1, "{field}: {hub:?}");
        }
        let none = observed(None);
        assert!(!none.rolled_out && none.rolling && none.ready == 0, "{none:?}");
    }

    #[test]
    fn what_kubernetes_complains_of_is_said() {
        let status = json!({"observedGeneration": 2, "conditions": [
            {"type": "Progressing", "status": "False", "message": "ReplicaSet has timed out progressing."}]});
        let hub = observed(Some(&deployment(status)));
        assert_eq!(hub.lacks, "the hub has 0 of 2 replicas ready; ReplicaSet has timed out progressing.");
        assert!(!hub.rolling, "it is held up");
    }

    #[test]
    fn a_service_is_reached_by_name_and_by_its_addresses_outside() {
        let service = json!({
            "metadata": {"name": "hub", "namespace": "acbhub-acme"},
            "spec": {"ports": [{"name": "grpc", "port": 8443}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"ip": "2001:db8::7"}, {"hostname": "lb.example"}]}},
        });
        let expected = ["hub.acbhub-acme.svc:8443", "203.0.113.7:8443", "[2001:db8::7]:8443", "lb.example:8443"];
        assert_eq!(endpoints(Some(&service)), expected);
        assert!(endpoints(None).is_empty());
    }
}
