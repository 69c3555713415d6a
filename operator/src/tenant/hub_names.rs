//! The names in a hub's certificate: those that follow from what is written, and the addresses that a load balancer gave it. Other names take
//! another certificate, and that rolls the hub. So an address that is gone stays in until the certificate is renewed, and one that comes and
//! goes costs one roll. Pure.

use std::{collections::BTreeSet, net::IpAddr};

use acb_crds::{hub::ServiceType, names::objects};
use serde_json::Value;

use super::{World, validate::ValidatedTenant};
use crate::{effect::kubernetes::ObjectKey, platform::Platform};

/// So many addresses are in a certificate, those that are gone included.
const MOST_ADDRESSES: usize = 8;

/// The names that follow from what is written.
#[must_use]
pub(super) fn written(tenant: &ValidatedTenant, platform: &Platform) -> Vec<String> {
    let service = format!("{}.{}", objects::HUB, tenant.name.hub_namespace());
    let mut names = vec![service.clone(), format!("{service}.svc"), format!("{service}.svc.cluster.local")];
    names.extend(tenant.hub.hostnames.iter().cloned());
    names.extend(platform.extra_tls_names.iter().cloned());
    names
}

/// The addresses that belong into the certificate. `made_for` are those of the one that is in use; `is_renewed`: another takes its place anyway.
#[must_use]
pub(super) fn addresses(
    tenant: &ValidatedTenant,
    world: &World,
    made_for: &BTreeSet<String>,
    is_renewed: bool,
) -> BTreeSet<String> {
    let current: BTreeSet<String> = given(tenant, world).into_iter().take(MOST_ADDRESSES).collect();
    if is_renewed {
        return current;
    }
    let all: BTreeSet<String> = made_for.union(&current).cloned().collect();
    if all.len() > MOST_ADDRESSES { current } else { all }
}

/// What the load balancer gave, in an order that does not change.
fn given(tenant: &ValidatedTenant, world: &World) -> BTreeSet<String> {
    if tenant.hub.service.as_ref().and_then(|service| service.r#type) != Some(ServiceType::LoadBalancer) {
        return BTreeSet::new();
    }
    let service = world.objects.get(&ObjectKey::new("v1", "Service", &tenant.name.hub_namespace(), objects::HUB));
    let hosts = service.into_iter().flat_map(balanced).flatten().flatten();
    hosts.filter(|host| is_name(host)).map(str::to_owned).collect()
}

/// What a load balancer gave a Service: each time a host name, an address, or both.
pub(crate) fn balanced(service: &Value) -> impl Iterator<Item = [Option<&str>; 2]> {
    let ingress = service.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    ingress.into_iter().flatten().map(|ingress| ["hostname", "ip"].map(|field| ingress.get(field).and_then(Value::as_str)))
}

/// Whether a certificate can hold it.
fn is_name(host: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    host.parse::<IpAddr>().is_ok() || (!host.is_empty() && host.len() <= 253 && host.bytes().all(letter))
}
