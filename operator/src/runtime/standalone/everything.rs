//! Every resource of the state folder, typed.

use std::collections::BTreeSet;

use acb_crds::{Agent, Quota, Tenant, names::TenantName, schema::Kind};
use serde::de::DeserializeOwned;

use super::{objects::ObjectStore, state::StateError};
use crate::tenancy::{self, Tenancy, Unreadable};

/// Every resource; what was never good is not among them.
#[derive(Clone, Debug, Default)]
pub(super) struct Everything {
    tenants: Vec<Tenant>,
    agents: Vec<Agent>,
    quotas: Vec<Quota>,
    unreadable: Vec<Unreadable>,
}

fn typed<T: DeserializeOwned>(store: &ObjectStore, kind: Kind, unreadable: &mut Vec<Unreadable>) -> Result<Vec<T>, StateError> {
    let mut typed = Vec::new();
    for object in store.of_kind(kind.as_str())? {
        match T::deserialize(&object) {
            Ok(object) => typed.push(object),
            // Whatever has a spec was checked before it was written, by this version or by a newer one.
            Err(_) if object.get("spec").is_some() => unreadable.extend(Unreadable::of(kind, &object)),
            Err(_) => {}
        }
    }
    Ok(typed)
}

impl Everything {
    pub(super) fn read(store: &ObjectStore) -> Result<Self, StateError> {
        let mut unreadable = Vec::new();
        Ok(Self {
            tenants: typed(store, Kind::Tenant, &mut unreadable)?,
            agents: typed(store, Kind::Agent, &mut unreadable)?,
            quotas: typed(store, Kind::Quota, &mut unreadable)?,
            unreadable,
        })
    }

    /// The namespaces that there is something to do for.
    pub(super) fn namespaces(&self) -> BTreeSet<String> {
        let of_tenants = self.tenants.iter().filter_map(tenancy::namespace);
        let of_agents = self.agents.iter().filter_map(|agent| agent.metadata.namespace.clone());
        let of_quotas = self.quotas.iter().filter_map(|quota| quota.metadata.namespace.clone());
        of_tenants.chain(of_agents).chain(of_quotas).collect()
    }

    /// The namespace of the tenant whose hub is in `hub_namespace`.
    pub(super) fn namespace_of_hub(&self, hub_namespace: &str) -> Option<String> {
        let name = |tenant: &Tenant| TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).ok();
        let owner = self.tenants.iter().find(|tenant| name(tenant).is_some_and(|name| name.hub_namespace() == hub_namespace));
        owner.and_then(tenancy::namespace)
    }

    /// Every Tenant, and what is in one namespace.
    pub(super) fn tenancy(self, namespace: &str) -> Tenancy {
        let here = |found: &Option<String>| found.as_deref() == Some(namespace);
        let is_seen = |other: &Unreadable| other.kind == Kind::Tenant || here(&other.metadata.namespace);
        Tenancy {
            unreadable: self.unreadable.into_iter().filter(is_seen).collect(),
            tenants: self.tenants.into(),
            agents: self.agents.into_iter().filter(|agent| here(&agent.metadata.namespace)).collect(),
            quotas: self.quotas.into_iter().filter(|quota| here(&quota.metadata.namespace)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::{Value, json};

    use super::{super::state::StateDir, *};
    use crate::effect::kubernetes::ObjectKey;

    #[test]
    fn what_a_newer_version_wrote_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let store = ObjectStore::open(&state).unwrap();
        let put = |kind: &str, namespace: &str, name: &str, spec: Option<Value>| {
            let mut object = json!({
                "apiVersion": acb_crds::API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace, "uid": name},
            });
            if let Some(spec) = spec {
                object["spec"] = spec;
            }
            crate::runtime::standalone::state::write_json(&store.path(&ObjectKey::of(&object).unwrap()), &object).unwrap();
        };
        put("Tenant", "", "acme", Some(json!({"tier": "Free"})));
        put("Tenant", "", "newer", Some(json!({"tier": "of a newer version"})));
        put("Agent", "acb-acme", "newer", Some(json!({"role": "of a newer version"})));
        put("Agent", "acb-other", "newer", Some(json!({"role": "of a newer version"})));
        // Refused when it was first seen: it was never there.
        put("Agent", "acb-acme", "refused", None);
        let tenancy = Everything::read(&store).unwrap().tenancy("acb-acme");
        assert_eq!((tenancy.tenants.len(), tenancy.agents.len()), (1, 0));
        let found: Vec<(Kind, Option<&str>)> =
            tenancy.unreadable.iter().map(|unreadable| (unreadable.kind, unreadable.space.as_deref())).collect();
        assert_eq!(found, [(Kind::Tenant, Some("acb-newer")), (Kind::Agent, None)]);
    }
}
