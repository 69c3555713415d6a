//! Who may connect to whom in a tenant's two namespaces.

use std::{collections::BTreeSet, net::IpAddr};

use acb_crds::names::objects;
use acb_oidc::{address::NOT_PUBLIC, url::Url};
use serde_json::{Value, json};

use super::{
    hub::{self, GRPC_PORT},
    isolation,
    space::labels,
    validate::ValidatedTenant,
};
use crate::{
    effect::kubernetes::ObjectKey,
    platform::{Platform, PlatformBus},
};

/// The label of namespaces whose pods may scrape the hubs. Only the platform may set it.
pub const MONITORING_LABEL: &str = "acb.dev/monitoring";

/// The policy that lets a hub reach the platform's stores.
pub(super) const TO_PLATFORM: &str = "hub-to-platform";

const TO_ISSUERS: &str = "hub-to-issuers";

/// The policies of both namespaces. The hub is reached by agents and scrapers only, and reaches DNS, PostgreSQL, Kafka the collector of traces and the witness only (and its tenant's issuers: [`to_issuers`]). In the
/// tenant's own namespace nobody else's pods get in; where its agents connect to is theirs: they call models and tools that ACB does not
/// know of. A namespace that the platform gave is left as it is.
#[must_use]
pub fn policies(tenant: &ValidatedTenant, platform: &Platform) -> Vec<Value> {
    let space = tenant.name.hub_namespace();
    let hub = |name: &str, spec: Value| policy(tenant, name, &space, "hub", spec);
    let to_hub = json!({"matchLabels": hub::selector(tenant)});
    let mut policies = vec![
        hub("default-deny", json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
        hub(
            "agents-to-hub",
            json!({
                "podSelector": to_hub,
                "policyTypes": ["Ingress"],
                "ingress": [{"from": agents(tenant), "ports": [{"port": "grpc", "protocol": "TCP"}]}],
            }),
        ),
        hub(
            "monitoring-to-hub",
            json!({
                "podSelector": to_hub,
                "policyTypes": ["Ingress"],
                "ingress": [{
                    "from": [{"namespaceSelector": {"matchLabels": {MONITORING_LABEL: "true"}}}],
                    "ports": [{"port": "ops", "protocol": "TCP"}],
                }],
            }),
        ),
        hub(TO_PLATFORM, json!({"podSelector": to_hub, "policyTypes": ["Egress"], "egress": platform_egress(platform)})),
    ];
    if tenant.own_namespace {
        let inner = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]});
        policies.push(policy(tenant, "own-pods-only", &tenant.namespace, "tenant", inner));
    }
    policies
}

/// What attacks the walls reaches what the hub reaches, and the hub. Whether it reaches others' hubs too is one of the things that it tries.
pub(super) fn of_isolation(tenant: &ValidatedTenant, platform: &Platform) -> [Value; 2] {
    let space = tenant.name.hub_namespace();
    let attackers = json!({"matchLabels": isolation::selector(tenant.name.as_str())});
    let hub = json!({"matchLabels": hub::selector(tenant)});
    let ports = json!([{"port": "grpc", "protocol": "TCP"}]);
    let mut egress = platform_egress(platform);
    egress.push(json!({"to": [{"podSelector": hub}], "ports": ports}));
    let out = json!({"podSelector": attackers, "policyTypes": ["Egress"], "egress": egress});
    let into = json!({"podSelector": hub, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": attackers}], "ports": ports}]});
    [(isolation::OUT, out), (isolation::INTO_HUB, into)].map(|(name, spec)| policy(tenant, name, &space, "isolation", spec))
}

fn policy(tenant: &ValidatedTenant, name: &str, namespace: &str, component: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace, "labels": labels(tenant, component)},
        "spec": spec,
    })
}

/// Pods of the tenant's namespace, the gateway's, and those that the spec names.
fn agents(tenant: &ValidatedTenant) -> Vec<Value> {
    let pods_of = |namespace: &str| json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}});
    let mut peers = vec![pods_of(&tenant.namespace)];
    peers.extend(tenant.hub.gateway_ref.iter().map(|gateway| pods_of(&gateway.namespace)));
    peers.extend(tenant.hub.ingress_peers.iter().map(|peer| json!(peer)));
    peers
}

/// DNS, PostgreSQL, Kafka, the collector of traces, and the witness of audit trails. A policy knows no names: only what is given as an address is held to it; of brokers only the port, since
/// they tell clients other addresses than those that they were first found at.
fn platform_egress(platform: &Platform) -> Vec<Value> {
    let tcp = |port: u16| json!({"port": port, "protocol": "TCP"});
    let server = |host: &str, port: u16| {
        let mut rule = json!({"ports": [tcp(port)]});
        if let Ok(address) = host.parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            rule["to"] = json!([{"ipBlock": {"cidr": format!("{address}/{bits}")}}]);
        }
        rule
    };
    let postgres = server(&platform.postgres.host, platform.postgres.port);
    let dns = platform.dns_ports.iter().flat_map(|port| [json!({"port": port, "protocol": "UDP"}), tcp(*port)]);
    let mut egress = vec![json!({"ports": dns.collect::<Vec<_>>()}), postgres];
    if let PlatformBus::Kafka { bootstrap_servers, .. } = &platform.bus {
        let ports: BTreeSet<u16> =
            bootstrap_servers.split(',').filter_map(|broker| broker.trim().rsplit_once(':')?.1.parse().ok()).collect();
        egress.push(json!({"ports": ports.into_iter().map(tcp).collect::<Vec<_>>()}));
    }
    egress.extend(platform.tracing.as_ref().and_then(|tracing| tracing.address()).map(|(host, port)| server(host, port)));
    egress.extend(platform.witness.as_ref().and_then(|witness| outside(&witness.url, &witness.cidrs)));
    egress
}

/// The port of this URL in the networks that the platform lists for it, or at public addresses where it lists none. A policy knows no names: the certificate
/// says who is there.
fn outside(url: &str, networks: &[String]) -> Option<Value> {
    let of_family = |is_v4: bool| NOT_PUBLIC.iter().copied().filter(|network| network.contains('.') == is_v4).collect::<Vec<_>>();
    let port = Url::issuer(url).ok()?.port();
    let to = if networks.is_empty() {
        vec![
            json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": of_family(true)}}),
            json!({"ipBlock": {"cidr": "2000::/3", "except": of_family(false)}}),
        ]
    } else {
        networks.iter().map(|network| json!({"ipBlock": {"cidr": network}})).collect()
    };
    Some(json!({"to": to, "ports": [{"port": port, "protocol": "TCP"}]}))
}

/// The policy that lets a hub reach the OpenID Connect issuers of its tenant, where it has any.
#[must_use]
pub fn to_issuers(tenant: &ValidatedTenant) -> Option<Value> {
    let spec = json!({"podSelector": {"matchLabels": hub::selector(tenant)}, "policyTypes": ["Egress"], "egress": issuer_egress(tenant)});
    let policy = policy(tenant, TO_ISSUERS, &tenant.name.hub_namespace(), "hub", spec);
    (!tenant.oidc_issuers.is_empty()).then_some(policy)
}

/// Where that policy is.
#[must_use]
pub fn to_issuers_key(tenant: &ValidatedTenant) -> ObjectKey {
    ObjectKey::new("networking.k8s.io/v1", "NetworkPolicy", &tenant.name.hub_namespace(), TO_ISSUERS)
}

/// Where each issuer is; two may be in one place.
fn issuer_egress(tenant: &ValidatedTenant) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    for rule in tenant.oidc_issuers.iter().filter_map(|row| outside(&row.issuer, &row.networks)) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// A route of the Gateway API that hands TLS connections for the hub's name through to it, where the spec asks for one.
#[must_use]
pub fn tls_route(tenant: &ValidatedTenant) -> Option<Value> {
    tenant.hub.gateway_ref.as_ref().map(|gateway| {
        let mut parent = json!({"name": gateway.name, "namespace": gateway.namespace});
        if let Some(listener) = &gateway.section_name {
            parent["sectionName"] = json!(listener);
        }
        json!({
            "apiVersion": TLS_ROUTE.0, "kind": TLS_ROUTE.1,
            "metadata": {"name": objects::HUB, "namespace": tenant.name.hub_namespace(), "labels": labels(tenant, "hub")},
            "spec": {
                "parentRefs": [parent],
                "hostnames": tenant.hub.hostnames,
                "rules": [{"backendRefs": [{"name": objects::HUB, "port": GRPC_PORT}]}],
            },
        })
    })
}

/// What a route to a hub is.
pub const TLS_ROUTE: (&str, &str) = ("gateway.networking.k8s.io/v1alpha2", "TLSRoute");
