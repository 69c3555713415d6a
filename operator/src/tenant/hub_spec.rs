//! What of `spec.hub` an API server would refuse in the middle of a plan: what it refuses there holds up everything behind it. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use acb_crds::{
    affinity::{Affinity, NodeSelectorOperator, NodeSelectorRequirement, NodeSelectorTerm, PodAffinity, PodAffinityTerm},
    common::Toleration,
    hub::Hub,
    network::{IpBlock, NetworkPolicyPeer},
    quantity::Quantity,
    resources::ResourceRequirements,
    selector::LabelSelector,
};

use super::label;
use crate::{
    condition::{Problem, Reason},
    platform::Platform,
};

/// What is wrong, with the fields that it is at.
#[derive(Default)]
struct Wrong(Vec<Problem>);

impl Wrong {
    fn push(&mut self, field: String, message: String) {
        self.0.push(Problem::new(Reason::InvalidSpec, field, message));
    }
}

/// Adds what is wrong.
pub(super) fn check(hub: &Hub, platform: &Platform, problems: &mut Vec<Problem>) {
    let mut wrong = Wrong::default();
    if let Some(image) = hub.image.as_ref().filter(|image| !platform.allows_hub_image(image)) {
        let message = format!(
            "{image} is of no repository that hubs may come from on this platform: use the platform's, or ask the platform team for hubImageRepositories"
        );
        wrong.push("spec.hub.image".to_owned(), message);
    }
    if let Some(template) = &hub.pod_template {
        check_labels(&template.labels, "spec.hub.podTemplate.labels", &mut wrong);
        template.annotations.keys().for_each(|key| check_key(key, "spec.hub.podTemplate.annotations", &mut wrong));
    }
    for (index, peer) in hub.ingress_peers.iter().enumerate() {
        check_peer(peer, &format!("spec.hub.ingressPeers[{index}]"), &mut wrong);
    }
    check_labels(&hub.node_selector, "spec.hub.nodeSelector", &mut wrong);
    for (index, toleration) in hub.tolerations.iter().enumerate() {
        check_toleration(toleration, &format!("spec.hub.tolerations[{index}]"), &mut wrong);
    }
    if let Some(affinity) = &hub.affinity {
        check_affinity(affinity, &mut wrong);
    }
    if let Some(resources) = &hub.resources {
        check_resources(resources, &mut wrong);
    }
    problems.append(&mut wrong.0);
}

fn check_peer(peer: &NetworkPolicyPeer, at: &str, wrong: &mut Wrong) {
    if let Some(selector) = &peer.namespace_selector {
        check_selector(selector, &format!("{at}.namespaceSelector"), wrong);
    }
    if let Some(selector) = &peer.pod_selector {
        check_selector(selector, &format!("{at}.podSelector"), wrong);
    }
    if let Some(block) = &peer.ip_block {
        check_block(block, &format!("{at}.ipBlock"), wrong);
    }
}

fn check_block(block: &IpBlock, at: &str, wrong: &mut Wrong) {
    let Some(whole) = Cidr::read(&block.cidr) else {
        let message = format!("{:?} is no block of addresses: write one such as 10.1.0.0/16 or fd00::/8", block.cidr);
        wrong.push(format!("{at}.cidr"), message);
        return;
    };
    for (index, except) in block.except.iter().enumerate() {
        if !Cidr::read(except).is_some_and(|except| except.is_within(&whole)) {
            let message = format!("{except:?} is no smaller block within {}: correct or remove it", block.cidr);
            wrong.push(format!("{at}.except[{index}]"), message);
        }
    }
}

/// A block of addresses as an API server reads it.
struct Cidr {
    is_v4: bool,
    address: u128,
    bits: u8,
}

impl Cidr {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let bits: u8 = bits.parse().ok()?;
        match address.parse().ok()? {
            IpAddr::V4(address) if bits <= 32 => Some(Self { is_v4: true, address: u128::from(u32::from(address)) << 96, bits }),
            IpAddr::V6(address) if bits <= 128 => Some(Self { is_v4: false, address: u128::from(address), bits }),
            _ => None,
        }
    }

    /// Whether it is a part of the other, and not all of it.
    fn is_within(&self, other: &Self) -> bool {
        let shift = 128 - u32::from(other.bits);
        let network = |address: u128| address.checked_shr(shift).unwrap_or_default();
        self.is_v4 == other.is_v4 && self.bits > other.bits && network(self.address) == network(other.address)
    }
}

fn check_selector(selector: &LabelSelector, at: &str, wrong: &mut Wrong) {
    check_labels(&selector.match_labels, &format!("{at}.matchLabels"), wrong);
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let at = format!("{at}.matchExpressions[{index}]");
        check_key(&requirement.key, &format!("{at}.key"), wrong);
        for value in requirement.values.iter().filter(|value| !label::is_value(value)) {
            wrong.push(format!("{at}.values"), no_value(value));
        }
    }
}

fn check_labels(labels: &BTreeMap<String, String>, at: &str, wrong: &mut Wrong) {
    for (key, value) in labels {
        check_key(key, at, wrong);
        if !label::is_value(value) {
            wrong.push(format!("{at}.{key}"), no_value(value));
        }
    }
}

fn check_key(key: &str, at: &str, wrong: &mut Wrong) {
    if !label::is_key(key) {
        wrong.push(at.to_owned(), format!("{key:?} is no key of a label: write one such as team or example.org/team"));
    }
}

fn no_value(value: &str) -> String {
    format!("{value:?} is no value of a label: use letters, digits and inner dashes, dots and underscores, at most 63")
}

fn check_toleration(toleration: &Toleration, at: &str, wrong: &mut Wrong) {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, value) = (text(&toleration.key), text(&toleration.value));
    let exists = toleration.operator.as_deref() == Some("Exists");
    if !key.is_empty() {
        check_key(&key, &format!("{at}.key"), wrong);
    } else if !exists {
        wrong.push(format!("{at}.operator"), "without a key only Exists means something: set it, or name a key".to_owned());
    }
    if exists && !value.is_empty() {
        wrong.push(format!("{at}.value"), "Exists takes no value: remove it".to_owned());
    } else if !label::is_value(&value) {
        wrong.push(format!("{at}.value"), no_value(&value));
    }
    if toleration.toleration_seconds.is_some() && toleration.effect.as_deref() != Some("NoExecute") {
        wrong.push(
            format!("{at}.tolerationSeconds"),
            "they are for the effect NoExecute alone: set it, or remove them".to_owned(),
        );
    }
}

fn check_affinity(affinity: &Affinity, wrong: &mut Wrong) {
    const AT: &str = "spec.hub.affinity";
    if let Some(nodes) = &affinity.node_affinity {
        let at = format!("{AT}.nodeAffinity");
        let required = nodes.required_during_scheduling_ignored_during_execution.iter();
        let required = required.flat_map(|selector| &selector.node_selector_terms);
        let preferred = nodes.preferred_during_scheduling_ignored_during_execution.iter().map(|term| &term.preference);
        required.chain(preferred).for_each(|term| check_node_term(term, &at, wrong));
    }
    for (name, pods) in [("podAffinity", &affinity.pod_affinity), ("podAntiAffinity", &affinity.pod_anti_affinity)] {
        if let Some(PodAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: preferred,
        }) = pods
        {
            let terms = required.iter().chain(preferred.iter().map(|weighted| &weighted.pod_affinity_term));
            terms.for_each(|term| check_pod_term(term, &format!("{AT}.{name}"), wrong));
        }
    }
}

fn check_node_term(term: &NodeSelectorTerm, at: &str, wrong: &mut Wrong) {
    for NodeSelectorRequirement { key, operator, values } in term.match_expressions.iter().chain(&term.match_fields) {
        check_key(key, at, wrong);
        let (fits, takes) = match operator {
            NodeSelectorOperator::In | NodeSelectorOperator::NotIn => (!values.is_empty(), "values"),
            NodeSelectorOperator::Exists | NodeSelectorOperator::DoesNotExist => (values.is_empty(), "no values"),
            NodeSelectorOperator::Gt | NodeSelectorOperator::Lt => {
                (matches!(values.as_slice(), [number] if number.parse::<i64>().is_ok()), "one whole number")
            }
        };
        if !fits {
            wrong.push(at.to_owned(), format!("{operator:?} of {key:?} takes {takes}: correct its values"));
        }
    }
    // A field of a node is its name, and nothing else.
    let is_name = |field: &&NodeSelectorRequirement| {
        field.key != "metadata.name"
            || field.values.len() != 1
            || !matches!(field.operator, NodeSelectorOperator::In | NodeSelectorOperator::NotIn)
    };
    for field in term.match_fields.iter().filter(is_name) {
        wrong.push(
            at.to_owned(),
            format!("matchFields knows metadata.name In or NotIn one value, and not {:?} {:?}", field.key, field.operator),
        );
    }
}

fn check_pod_term(term: &PodAffinityTerm, at: &str, wrong: &mut Wrong) {
    check_key(&term.topology_key, &format!("{at}.topologyKey"), wrong);
    for (name, selector) in [("labelSelector", &term.label_selector), ("namespaceSelector", &term.namespace_selector)] {
        if let Some(selector) = selector {
            check_selector(selector, &format!("{at}.{name}"), wrong);
        }
    }
    let keys = || term.match_label_keys.iter().chain(&term.mismatch_label_keys);
    keys().for_each(|key| check_key(key, at, wrong));
    if keys().next().is_some() && term.label_selector.is_none() {
        wrong.push(at.to_owned(), "matchLabelKeys and mismatchLabelKeys go with a labelSelector: set one".to_owned());
    }
    if let Some(key) = term.match_label_keys.iter().find(|key| term.mismatch_label_keys.contains(key)) {
        wrong.push(at.to_owned(), format!("{key:?} is in matchLabelKeys and in mismatchLabelKeys: remove it from one"));
    }
}

fn check_resources(resources: &ResourceRequirements, wrong: &mut Wrong) {
    for (list, quantities) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        for (name, quantity) in quantities.iter().filter(|(_, quantity)| quantity.milli().is_none()) {
            let message = format!("{} is no quantity that a cluster takes: write one such as 500m or 256Mi", shown(quantity));
            wrong.push(format!("spec.hub.resources.{list}.{name}"), message);
        }
    }
    for (name, request) in &resources.requests {
        let Some(limit) = resources.limits.get(name) else { continue };
        if request.milli() > limit.milli() && limit.milli().is_some() {
            let (request, limit) = (shown(request), shown(limit));
            let message = format!("{request} is above the limit {limit}: lower it, or raise spec.hub.resources.limits.{name}");
            wrong.push(format!("spec.hub.resources.requests.{name}"), message);
        }
    }
}

fn shown(quantity: &Quantity) -> String {
    match quantity {
        Quantity::Number(number) => number.to_string(),
        Quantity::Text(text) => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::{Value, json};

    use super::*;
    use crate::platform::PlatformPostgres;

    fn wrong(hub: Value) -> Vec<String> {
        let postgres = PlatformPostgres { host: "db".into(), port: 5432, database: "acb".into(), ssl_mode: "prefer".into() };
        let mut platform = Platform::new(postgres);
        platform.hub_image_repositories = Some(Vec::new());
        let mut problems = Vec::new();
        check(&serde_json::from_value(hub).unwrap(), &platform, &mut problems);
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn blocks_of_addresses_are_read_as_an_api_server_does() {
        let of = |cidr: &str, except: &[&str]| wrong(json!({"ingressPeers": [{"ipBlock": {"cidr": cidr, "except": except}}]}));
        for (good, except) in
            [("10.0.0.0/8", "10.1.0.0/16"), ("0.0.0.0/0", "10.1.2.3/32"), ("fd00::/8", "fd00:1::/32"), ("::/0", "::1/128")]
        {
            assert!(of(good, &[except]).is_empty(), "{good}");
        }
        for bad in ["10.0.0.0/99", "10.0.0/8", "10.0.0.0.0/8", "fd00::/129", "a/8", "1:2:3/8"] {
            assert_eq!(of(bad, &[]), ["spec.hub.ingressPeers[0].ipBlock.cidr"], "{bad}");
        }
        for except in ["10.0.0.0/8", "11.0.0.0/16", "0.0.0.0/0", "fd00::/16", "x"] {
            assert_eq!(of("10.0.0.0/8", &["10.1.0.0/16", except]), ["spec.hub.ingressPeers[0].ipBlock.except[1]"], "{except}");
        }
    }

    #[test]
    fn a_selector_that_an_api_server_would_refuse_is_refused_here() {
        let of = |selector: Value| wrong(json!({"ingressPeers": [{"namespaceSelector": selector}]}));
        assert!(of(json!({})).is_empty());
        assert!(
            of(json!({"matchLabels": {"example.org/team": "a"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]}))
                .is_empty()
        );
        let at = "spec.hub.ingressPeers[0].namespaceSelector";
        assert_eq!(of(json!({"matchLabels": {"a b": "c"}})), [format!("{at}.matchLabels")]);
        assert_eq!(of(json!({"matchLabels": {"a": "b/c"}})), [format!("{at}.matchLabels.a")]);
        let expression = json!({"key": "-", "operator": "In", "values": ["a", "b c"]});
        let found = of(json!({"matchExpressions": [expression]}));
        assert_eq!(found, [format!("{at}.matchExpressions[0].key"), format!("{at}.matchExpressions[0].values")]);
        assert_eq!(wrong(json!({"nodeSelector": {"pool": "a b"}})), ["spec.hub.nodeSelector.pool"]);
    }

    #[test]
    fn an_affinity_that_an_api_server_would_refuse_is_refused_here() {
        let nodes = |requirement: Value| {
            wrong(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}}}}))
        };
        assert!(nodes(json!({"key": "cores", "operator": "Gt", "values": ["4"]})).is_empty());
        assert!(nodes(json!({"key": "zone", "operator": "NotIn", "values": ["a", "b"]})).is_empty());
        for bad in [
            json!({"key": "cores", "operator": "Gt", "values": ["four"]}),
            json!({"key": "zone", "operator": "In"}),
            json!({"key": "zone", "operator": "Exists", "values": ["a"]}),
            json!({"key": "a b", "operator": "Exists"}),
        ] {
            assert_eq!(nodes(bad.clone()), ["spec.hub.affinity.nodeAffinity"], "{bad}");
        }
        let pods = |term: Value| {
            wrong(json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}))
        };
        let selector = json!({"matchLabels": {"a": "b"}});
        assert!(
            pods(json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector, "matchLabelKeys": ["c"]})).is_empty()
        );
        for bad in [
            json!({"topologyKey": "a b", "labelSelector": selector}),
            json!({"topologyKey": "zone", "matchLabelKeys": ["c"]}),
            json!({"topologyKey": "zone", "labelSelector": selector, "matchLabelKeys": ["c"], "mismatchLabelKeys": ["c"]}),
        ] {
            assert_eq!(pods(bad.clone()).len(), 1, "{bad}");
        }
    }

    #[test]
    fn a_toleration_that_an_api_server_would_refuse_is_refused_here() {
        let of = |toleration: Value| wrong(json!({"tolerations": [toleration]}));
        for good in [
            json!({"operator": "Exists"}),
            json!({"key": "dedicated", "value": "hubs", "effect": "NoSchedule"}),
            json!({"key": "example.org/dedicated", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}),
        ] {
            assert!(of(good.clone()).is_empty(), "{good}");
        }
        for (bad, field) in [
            (json!({"value": "hubs"}), "operator"),
            (json!({"key": "a b", "operator": "Exists"}), "key"),
            (json!({"key": "a", "operator": "Exists", "value": "b"}), "value"),
            (json!({"key": "a", "value": "b c"}), "value"),
            (json!({"key": "a", "value": "b", "effect": "NoSchedule", "tolerationSeconds": 60}), "tolerationSeconds"),
        ] {
            assert_eq!(of(bad.clone()), [format!("spec.hub.tolerations[0].{field}")], "{bad}");
        }
    }

    #[test]
    fn what_the_pods_carry_is_what_an_api_server_takes() {
        assert!(
            wrong(json!({"image": "acb-hub:next", "podTemplate": {"labels": {"a.b/c": "d"}, "annotations": {"a.b/c": "d e"}}}))
                .is_empty()
        );
        assert_eq!(wrong(json!({"image": "evil:1"})), ["spec.hub.image"]);
        assert_eq!(wrong(json!({"podTemplate": {"labels": {"a": "b c"}}})), ["spec.hub.podTemplate.labels.a"]);
        assert_eq!(wrong(json!({"podTemplate": {"annotations": {"a b": "c"}}})), ["spec.hub.podTemplate.annotations"]);
    }

    #[test]
    fn a_request_is_not_above_its_limit() {
        let of = |requests: Value, limits: Value| wrong(json!({"resources": {"requests": requests, "limits": limits}}));
        assert!(of(json!({"cpu": "500m", "memory": "1Gi"}), json!({"cpu": 0.5.to_string(), "memory": "1024Mi"})).is_empty());
        assert!(of(json!({"cpu": 1, "memory": 1_073_741_824}), json!({"cpu": "1", "memory": "1Gi"})).is_empty());
        assert!(of(json!({"memory": "4Gi"}), json!({"cpu": "1"})).is_empty());
        assert!(of(json!({"memory": "0.1Ki"}), json!({"memory": "1e3"})).is_empty());
        assert_eq!(of(json!({"cpu": "2"}), json!({"cpu": "1500m"})), ["spec.hub.resources.requests.cpu"]);
        assert_eq!(of(json!({"memory": "1G"}), json!({"memory": "953Mi"})), ["spec.hub.resources.requests.memory"]);
        assert_eq!(
            of(json!({"memory": "128K"}), json!({"memory": -1})),
            ["spec.hub.resources.requests.memory", "spec.hub.resources.limits.memory"]
        );
    }
}
