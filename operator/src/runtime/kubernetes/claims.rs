//! Which tenants claim which namespaces and ids, by name: an event is about few of them, and there are many.

use std::collections::{BTreeMap, BTreeSet};

use acb_crds::{Tenant, names::TenantName};

use crate::{tenancy, tenant::adoption};

/// The claims of all Tenants.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The tenants that claim a namespace.
    tenants: BTreeMap<String, BTreeSet<String>>,
    /// What a tenant claims.
    spaces: BTreeMap<String, Vec<String>>,
    /// Where a tenant's Agents and Quotas are.
    namespaces: BTreeMap<String, String>,
    /// The tenants whose id this is, or that ask for its data.
    of_ids: BTreeMap<String, BTreeSet<String>>,
    /// The ids that a tenant has or asks for.
    ids: BTreeMap<String, BTreeSet<String>>,
}

/// Every namespace that a tenant claims.
pub(super) fn spaces(tenant: &Tenant) -> Vec<String> {
    let name = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).ok();
    let derived = name.iter().flat_map(|name| [name.namespace(), name.hub_namespace()]);
    derived.chain(tenancy::namespace(tenant)).collect()
}

/// The id of a tenant, and the one that it asks for.
pub(super) fn ids(tenant: &Tenant) -> BTreeSet<String> {
    adoption::asked(tenant).map(str::to_owned).into_iter().chain([adoption::own(tenant).hex()]).collect()
}

/// Takes a name out of each of these sets.
fn remove(from: &mut BTreeMap<String, BTreeSet<String>>, keys: impl IntoIterator<Item = String>, name: &str) {
    for key in keys {
        if let Some(names) = from.get_mut(&key) {
            names.remove(name);
            if names.is_empty() {
                from.remove(&key);
            }
        }
    }
}

impl Claims {
    /// A Tenant is as it says, or gone.
    pub(super) fn set(&mut self, name: &str, tenant: Option<&Tenant>) {
        remove(&mut self.tenants, self.spaces.remove(name).unwrap_or_default(), name);
        remove(&mut self.of_ids, self.ids.remove(name).unwrap_or_default(), name);
        self.namespaces.remove(name);
        let Some(tenant) = tenant else { return };
        let spaces = spaces(tenant);
        for space in &spaces {
            self.tenants.entry(space.clone()).or_default().insert(name.to_owned());
        }
        self.namespaces.extend(tenancy::namespace(tenant).map(|namespace| (name.to_owned(), namespace)));
        self.spaces.insert(name.to_owned(), spaces);
        let ids = ids(tenant);
        for id in &ids {
            self.of_ids.entry(id.clone()).or_default().insert(name.to_owned());
        }
        self.ids.insert(name.to_owned(), ids);
    }

    /// Where the Agents of the tenants are that have an id, or ask for its data.
    pub(super) fn of_id<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a String> {
        self.of_ids.get(id).into_iter().flatten().filter_map(|name| self.namespaces.get(name))
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
