//! Plays a Service with a list: the addresses of the ready pods that it selects, by port name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fields::{Fields, Unsupported};

/// A planned Service, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Labels that a pod must have.
    pub selector: BTreeMap<String, String>,
    /// Name of each port, and the name of the pods' port behind it.
    pub ports: Vec<(String, String)>,
}

/// Addresses by port name.
pub type Addresses = BTreeMap<String, Vec<String>>;

/// What is behind each Service, by `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Endpoints {
    /// By `namespace/name`.
    pub services: BTreeMap<String, Addresses>,
}

impl Endpoints {
    /// The addresses behind a port of a Service.
    #[must_use]
    pub fn of(&self, namespace: &str, name: &str, port: &str) -> &[String] {
        let addresses = self.services.get(&format!("{namespace}/{name}")).and_then(|service| service.get(port));
        addresses.map_or(&[], Vec::as_slice)
    }
}

/// A ready pod, as far as a Service cares.
#[derive(Clone, Debug)]
pub struct Backend<'a> {
    /// Where it is.
    pub namespace: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its ports by name.
    pub ports: &'a BTreeMap<String, u16>,
}

impl Service {
    /// Reads a Service.
    pub fn from_object(object: &Value) -> Result<Self, Unsupported> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let mut root = Fields::new(format!("Service {namespace}/{name}: "), object.clone())?;
        root.ignore(&["apiVersion", "kind", "metadata", "status"]);
        let mut spec = root.required_object("spec")?;
        root.finish()?;
        // How the cluster routes to it: here there is one loopback, and clients get the whole list.
        spec.ignore(&[
            "type",
            "clusterIP",
            "sessionAffinity",
            "internalTrafficPolicy",
            "externalTrafficPolicy",
            "ipFamilyPolicy",
            "trafficDistribution",
        ]);
        let selector = match spec.take("selector") {
            Some(selector) => serde_json::from_value(selector).map_err(|error| spec.wrong("selector", error.to_string()))?,
            None => return Err(spec.wrong("selector", "is missing")),
        };
        let mut ports = Vec::new();
        for mut port in spec.objects("ports")? {
            port.ignore(&["port", "protocol", "appProtocol", "nodePort"]);
            let name = port.required_text("name")?;
            let target = match port.take("targetPort") {
                None => name.clone(),
                Some(Value::String(target)) => target,
                Some(_) => return Err(port.wrong("targetPort", "only names: numbers differ between processes here")),
            };
            port.finish()?;
            ports.push((name, target));
        }
        spec.finish()?;
        Ok(Self { namespace, name, selector, ports })
    }

    /// The addresses of the pods that it selects.
    #[must_use]
    pub fn addresses(&self, backends: &[Backend<'_>]) -> Addresses {
        let selected: Vec<_> = backends
            .iter()
            .filter(|pod| pod.namespace == self.namespace)
            .filter(|pod| self.selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value)))
            .collect();
        let address = |target: &String, pod: &&&Backend<'_>| pod.ports.get(target).map(|port| format!("127.0.0.1:{port}"));
        self.ports
            .iter()
            .map(|(name, target)| (name.clone(), selected.iter().filter_map(|pod| address(target, &pod)).collect()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_lists_the_pods_that_it_selects() {
        let service = Service::from_object(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hub", "namespace": "acbhub-acme"},
            "spec": {"type": "ClusterIP", "selector": {"app": "hub"},
                     "ports": [{"name": "grpc", "port": 8443, "targetPort": "grpc"}]},
        }))
        .unwrap();
        let labels = BTreeMap::from([("app".to_owned(), "hub".to_owned()), ("more".to_owned(), "x".to_owned())]);
        let other = BTreeMap::new();
        let ports = BTreeMap::from([("grpc".to_owned(), 40001), ("ops".to_owned(), 40002)]);
        let backends = [
            Backend { namespace: "acbhub-acme", labels: &labels, ports: &ports },
            Backend { namespace: "acbhub-acme", labels: &other, ports: &ports },
            Backend { namespace: "acbhub-globex", labels: &labels, ports: &ports },
        ];
        let endpoints = Endpoints { services: BTreeMap::from([("acbhub-acme/hub".into(), service.addresses(&backends))]) };
        assert_eq!(endpoints.of("acbhub-acme", "hub", "grpc"), ["127.0.0.1:40001"]);
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let error = Service::from_object(&json!({
            "metadata": {"name": "hub", "namespace": "n"}, "spec": {"selector": {}, "externalName": "x"},
        }))
        .unwrap_err();
        assert_eq!(error.path, "Service n/hub: spec.externalName");
    }
}
