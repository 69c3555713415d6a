//! Which tenants claim which namespaces, by name: an event is about few of them, and there are many.

use std::collections::{BTreeMap, BTreeSet};

use acb_crds::{Tenant, names::TenantName};

use crate::tenancy;

/// The claims of all Tenants.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The tenants that claim a namespace.
    tenants: BTreeMap<String, BTreeSet<String>>,
    /// What a tenant claims.
    spaces: BTreeMap<String, Vec<String>>,
    /// Where a tenant's Agents and Quotas are.
    namespaces: BTreeMap<String, String>,
}

/// Every namespace that a tenant claims.
pub(super) fn spaces(tenant: &Tenant) -> Vec<String> {
    let name = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).ok();
    let derived = name.iter().flat_map(|name| [name.namespace(), name.hub_namespace()]);
    derived.chain(tenancy::namespace(tenant)).collect()
}

impl Claims {
    /// A Tenant is as it says, or gone.
    pub(super) fn set(&mut self, name: &str, tenant: Option<&Tenant>) {
        for space in self.spaces.remove(name).unwrap_or_default() {
            if let Some(tenants) = self.tenants.get_mut(&space) {
                tenants.remove(name);
                if tenants.is_empty() {
                    self.tenants.remove(&space);
                }
            }
        }
        self.namespaces.remove(name);
        let Some(tenant) = tenant else { return };
        let spaces = spaces(tenant);
        for space in &spaces {
            self.tenants.entry(space.clone()).or_default().insert(name.to_owned());
        }
        self.namespaces.extend(tenancy::namespace(tenant).map(|namespace| (name.to_owned(), namespace)));
        self.spaces.insert(name.to_owned(), spaces);
    }

    /// Where the Agents of the tenants are that claim a namespace.
    pub(super) fn of_space<'a>(&'a self, space: &str) -> impl Iterator<Item = &'a String> {
        self.tenants.get(space).into_iter().flatten().filter_map(|name| self.namespaces.get(name))
    }

    /// Where a tenant's Agents are.
    pub(super) fn of_tenant(&self, name: &str) -> Option<&String> {
        self.namespaces.get(name)
    }

    /// Whether it is where some tenant's Agents are.
    pub(super) fn has(&self, namespace: &str) -> bool {
        self.of_space(namespace).any(|of| of == namespace)
    }
}
