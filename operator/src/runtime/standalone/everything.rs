//! Every resource of the state folder, typed.

use std::collections::BTreeSet;

use acb_crds::{Agent, Quota, Tenant, names::TenantName, schema::Kind};
use serde::de::DeserializeOwned;

use super::{objects::ObjectStore, state::StateError};
use crate::tenancy::{self, Tenancy};

/// Every resource; what was never good is not among them.
#[derive(Clone, Debug, Default)]
pub(super) struct Everything {
    tenants: Vec<Tenant>,
    agents: Vec<Agent>,
    quotas: Vec<Quota>,
}

fn typed<T: DeserializeOwned>(store: &ObjectStore, kind: Kind) -> Result<Vec<T>, StateError> {
    let objects = store.of_kind(kind.as_str())?;
    // Whatever has a spec was checked before it was written.
    Ok(objects.into_iter().filter_map(|object| serde_json::from_value(object).ok()).collect())
}

impl Everything {
    pub(super) fn read(store: &ObjectStore) -> Result<Self, StateError> {
        Ok(Self { tenants: typed(store, Kind::Tenant)?, agents: typed(store, Kind::Agent)?, quotas: typed(store, Kind::Quota)? })
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
        Tenancy {
            unreadable: Vec::new(),
            tenants: self.tenants,
            agents: self.agents.into_iter().filter(|agent| here(&agent.metadata.namespace)).collect(),
            quotas: self.quotas.into_iter().filter(|quota| here(&quota.metadata.namespace)).collect(),
        }
    }
}
