//! How a tenant's hub is doing, and how it is reached, from its Deployment and its Service. Pure.

use acb_crds::{
    hub::Hub,
    tenant::{Endpoint, EndpointType},
};
use serde_json::Value;

use crate::{observed::ObservedHub, tenant::hub_names::balanced};

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

/// Whether its newest revision has not been there as a whole yet: pods that start are no trouble.
fn is_progressing(deployment: &Value) -> bool {
    let conditions = deployment.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let mut progressing = conditions.filter(|condition| condition["type"] == "Progressing");
    progressing.next().is_some_and(|condition| condition["status"] == "True" && condition["reason"] != "NewReplicaSetAvailable")
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
    let rolling =
        !rolled_out && complaint.is_none() && (!seen || updated < wanted || replicas > updated || is_progressing(deployment));
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

/// Where a Gateway's listener for TLS is, unless the spec says otherwise: the operator does not read Gateways.
const GATEWAY_PORT: u16 = 443;

/// The Service's name, and its addresses outside where it has some; `nodes` are names by which nodes are reached.
pub(super) fn endpoints(service: Option<&Value>, hub: &Hub, nodes: &[String]) -> Vec<Endpoint> {
    let Some(service) = service else { return Vec::new() };
    let text = |pointer: &str| service.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let grpc = ports.into_iter().find(|port| port["name"] == "grpc");
    let port = |field: &str| grpc.and_then(|port| port[field].as_u64());
    let inside = port("port").unwrap_or_default();
    let of = |r#type: EndpointType, host: &str, port: u64| Endpoint {
        r#type,
        address: if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
    };
    let name = format!("{}.{}.svc", text("/metadata/name"), text("/metadata/namespace"));
    let mut endpoints = vec![of(EndpointType::ClusterIP, &name, inside)];
    let listener = hub.gateway_ref.as_ref().and_then(|gateway| gateway.port).unwrap_or(GATEWAY_PORT);
    endpoints.extend(hub.hostnames.iter().map(|host| of(EndpointType::Gateway, host, listener.into())));
    let outside = balanced(service).filter_map(|[hostname, ip]| hostname.or(ip));
    endpoints.extend(outside.map(|host| of(EndpointType::LoadBalancer, host, inside)));
    if let (true, Some(port)) = (text("/spec/type") == "NodePort", port("nodePort")) {
        let any = ["*".to_owned()];
        let nodes = if nodes.is_empty() { &any } else { nodes };
        endpoints.extend(nodes.iter().map(|node| of(EndpointType::NodePort, node, port)));
    }
    endpoints
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use acb_crds::hub::GatewayRef;
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

    fn addresses(service: &Value, hub: &Hub, nodes: &[&str]) -> Vec<String> {
        let nodes: Vec<String> = nodes.iter().map(|name| (*name).to_owned()).collect();
        let endpoints = endpoints(Some(service), hub, &nodes);
        endpoints.into_iter().map(|endpoint| format!("{:?} {}", endpoint.r#type, endpoint.address)).collect()
    }

    #[test]
    fn a_service_is_reached_by_name_and_by_its_addresses_outside() {
        let mut service = json!({
            "metadata": {"name": "hub", "namespace": "acbhub-acme"},
            "spec": {"type": "LoadBalancer", "ports": [{"name": "grpc", "port": 8443, "nodePort": 31234}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"ip": "2001:db8::7"}, {"hostname": "lb.example"}]}},
        });
        let inside = "ClusterIP hub.acbhub-acme.svc:8443";
        let balanced = ["LoadBalancer 203.0.113.7:8443", "LoadBalancer [2001:db8::7]:8443", "LoadBalancer lb.example:8443"];
        let none = Hub::default();
        assert_eq!(addresses(&service, &none, &[]), [&[inside][..], &balanced].concat());
        service["status"] = json!({});
        let gateway = GatewayRef { name: "edge".into(), namespace: "gateways".into(), section_name: None, port: None };
        let mut named = Hub { gateway_ref: Some(gateway), hostnames: vec!["acme.example".into()], ..Hub::default() };
        assert_eq!(addresses(&service, &named, &[]), [inside, "Gateway acme.example:443"]);
        named.gateway_ref.as_mut().unwrap().port = Some(8443);
        assert_eq!(addresses(&service, &named, &[]), [inside, "Gateway acme.example:8443"]);
        service["spec"]["type"] = json!("NodePort");
        assert_eq!(addresses(&service, &none, &[]), [inside, "NodePort *:31234"]);
        assert_eq!(addresses(&service, &none, &["nodes.example"]), [inside, "NodePort nodes.example:31234"]);
        assert!(endpoints(None, &named, &[]).is_empty());
    }
}
