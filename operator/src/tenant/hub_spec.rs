//! What of `spec.hub` an API server would refuse in the middle of a plan: what it refuses there holds up everything behind it. Pure.

use std::net::IpAddr;

use acb_crds::{
    common::{ResourceList, Resources},
    tenant::Hub,
};

use super::quantity;
use crate::condition::{Problem, Reason};

/// Adds what is wrong.
pub(super) fn check(hub: &Hub, problems: &mut Vec<Problem>) {
    let mut wrong = |field: String, message: String| problems.push(Problem::new(Reason::InvalidSpec, field, message));
    for (index, peer) in hub.ingress_peers.iter().enumerate() {
        if let Some(cidr) = peer.cidr.as_deref().filter(|cidr| !is_cidr(cidr)) {
            let message = format!("{cidr:?} is no block of addresses: write one such as 10.1.0.0/16 or fd00::/8");
            wrong(format!("spec.hub.ingressPeers[{index}].cidr"), message);
        }
    }
    let Some(resources) = &hub.resources else { return };
    for (list, quantities) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        for (name, quantity) in named(quantities.as_ref()) {
            if quantity::amount(quantity).is_none() {
                let message = format!("{quantity:?} is no quantity that a cluster takes: write one such as 500m or 256Mi");
                wrong(format!("spec.hub.resources.{list}.{name}"), message);
            }
        }
    }
    for (name, request, limit) in above(resources) {
        let message = format!("{request} is above the limit {limit}: lower it, or raise spec.hub.resources.limits.{name}");
        wrong(format!("spec.hub.resources.requests.{name}"), message);
    }
}

fn named(list: Option<&ResourceList>) -> impl Iterator<Item = (&'static str, &str)> {
    list.into_iter()
        .flat_map(|list| [("cpu", list.cpu.as_deref()), ("memory", list.memory.as_deref())])
        .filter_map(|(name, quantity)| Some((name, quantity?)))
}

/// The requests that are above their limits.
fn above(resources: &Resources) -> Vec<(&'static str, &str, &str)> {
    let limit = |wanted: &str| named(resources.limits.as_ref()).find(|(name, _)| *name == wanted).map(|(_, limit)| limit);
    let both = named(resources.requests.as_ref()).filter_map(|(name, request)| Some((name, request, limit(name)?)));
    both.filter(|(_, request, limit)| quantity::amount(request) > quantity::amount(limit) && quantity::amount(limit).is_some())
        .collect()
}

/// Whether an API server takes it as a block of addresses.
fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), bits.parse::<u8>()) else { return false };
    bits <= if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::{Value, json};

    use super::*;

    fn wrong(hub: Value) -> Vec<String> {
        let mut problems = Vec::new();
        check(&serde_json::from_value(hub).unwrap(), &mut problems);
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn blocks_of_addresses_are_read_as_an_api_server_does() {
        let of = |cidr: &str| wrong(json!({"ingressPeers": [{"cidr": cidr}]}));
        for good in ["10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32", "fd00::/8", "::/0"] {
            assert!(of(good).is_empty(), "{good}");
        }
        for bad in ["10.0.0.0/99", "10.0.0/8", "10.0.0.0.0/8", "fd00::/129", "a/8", "1:2:3/8"] {
            assert_eq!(of(bad), ["spec.hub.ingressPeers[0].cidr"], "{bad}");
        }
    }

    #[test]
    fn a_request_is_not_above_its_limit() {
        let of = |requests: Value, limits: Value| wrong(json!({"resources": {"requests": requests, "limits": limits}}));
        assert!(of(json!({"cpu": "500m", "memory": "1Gi"}), json!({"cpu": "0.5", "memory": "1024Mi"})).is_empty());
        assert!(of(json!({"memory": "4Gi"}), json!({"cpu": "1"})).is_empty());
        assert_eq!(of(json!({"cpu": "2"}), json!({"cpu": "1500m"})), ["spec.hub.resources.requests.cpu"]);
        assert_eq!(of(json!({"memory": "1G"}), json!({"memory": "953Mi"})), ["spec.hub.resources.requests.memory"]);
        assert_eq!(
            of(json!({"memory": "0.1Ki"}), json!({"memory": "5ki"})),
            ["spec.hub.resources.requests.memory", "spec.hub.resources.limits.memory"]
        );
    }
}
