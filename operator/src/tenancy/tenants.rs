//! Every Tenant, shared: each tenancy is decided with all of them beside it, and there are many. What follows from one alone is worked out
//! once.

use std::{
    collections::BTreeSet,
    ops::{Index, IndexMut},
    sync::{Arc, OnceLock},
};

use acb_crds::{
    Tenant,
    names::{TenantId, TenantName},
};

/// What two tenants may not share.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    /// Every namespace.
    pub(crate) spaces: BTreeSet<String>,
    /// By its UID.
    pub(crate) id: TenantId,
}

/// One of them.
#[derive(Debug)]
pub struct Listed {
    tenant: Tenant,
    claims: OnceLock<Option<Claims>>,
    space: OnceLock<Option<String>>,
}

/// The namespace of a tenant's Agents and Quotas.
#[must_use]
pub fn namespace(tenant: &Tenant) -> Option<String> {
    let name = TenantName::parse(tenant.metadata.name.as_deref().unwrap_or_default()).ok()?;
    Some(tenant.spec.agent_namespace.clone().unwrap_or_else(|| name.namespace()))
}

fn claims(tenant: &Tenant) -> Option<Claims> {
    let name = TenantName::parse(tenant.metadata.name.as_deref()?).ok()?;
    let spaces = [namespace(tenant)?, name.namespace(), name.hub_namespace()];
    Some(Claims { spaces: spaces.into(), id: TenantId::from_uid(tenant.metadata.uid.as_deref().unwrap_or_default()) })
}

impl Listed {
    /// The Tenant.
    #[must_use]
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The namespace of its Agents and Quotas.
    #[must_use]
    pub fn space(&self) -> Option<&str> {
        self.space.get_or_init(|| namespace(&self.tenant)).as_deref()
    }

    pub(crate) fn claims(&self) -> Option<&Claims> {
        self.claims.get_or_init(|| claims(&self.tenant)).as_ref()
    }
}

impl From<Tenant> for Listed {
    fn from(tenant: Tenant) -> Self {
        Self { tenant, claims: OnceLock::new(), space: OnceLock::new() }
    }
}

/// What follows from it is worked out again: whoever clones one is about to change it.
impl Clone for Listed {
    fn clone(&self) -> Self {
        self.tenant.clone().into()
    }
}

impl PartialEq for Listed {
    fn eq(&self, other: &Self) -> bool {
        self.tenant == other.tenant
    }
}

/// All of them. A clone costs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tenants(Arc<Vec<Arc<Listed>>>);

impl Tenants {
    /// Whether it is the very same list, and not only an equal one.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Each.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Tenant> {
        self.0.iter().map(|listed| &listed.tenant)
    }

    /// Each, with what follows from it.
    pub fn listed(&self) -> impl Iterator<Item = &Listed> {
        self.0.iter().map(AsRef::as_ref)
    }

    /// Those whose Agents and Quotas are in a namespace.
    pub fn of_space<'a, 's>(&'a self, space: &'s str) -> impl Iterator<Item = &'a Tenant> + use<'a, 's> {
        self.listed().filter(move |listed| listed.space() == Some(space)).map(Listed::tenant)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<&Tenant> {
        self.iter().next_back()
    }

    /// One more.
    pub fn push(&mut self, tenant: Tenant) {
        Arc::make_mut(&mut self.0).push(Arc::new(tenant.into()));
    }

    /// Without the one at a place.
    ///
    /// # Panics
    /// Where there is none.
    pub fn remove(&mut self, index: usize) -> Tenant {
        Arc::unwrap_or_clone(Arc::make_mut(&mut self.0).remove(index)).tenant
    }

    /// Only those.
    pub fn retain(&mut self, keep: impl Fn(&Tenant) -> bool) {
        if !self.iter().all(&keep) {
            Arc::make_mut(&mut self.0).retain(|listed| keep(&listed.tenant));
        }
    }
}

impl FromIterator<Arc<Listed>> for Tenants {
    fn from_iter<I: IntoIterator<Item = Arc<Listed>>>(all: I) -> Self {
        Self(Arc::new(all.into_iter().collect()))
    }
}

impl FromIterator<Tenant> for Tenants {
    fn from_iter<I: IntoIterator<Item = Tenant>>(all: I) -> Self {
        all.into_iter().map(|tenant| Arc::new(Listed::from(tenant))).collect()
    }
}

impl From<Vec<Tenant>> for Tenants {
    fn from(all: Vec<Tenant>) -> Self {
        all.into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Tenants {
    type Item = &'a Tenant;
    type IntoIter = std::iter::Map<std::slice::Iter<'a, Arc<Listed>>, fn(&'a Arc<Listed>) -> &'a Tenant>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|listed| &listed.tenant)
    }
}

impl Index<usize> for Tenants {
    type Output = Tenant;

    fn index(&self, index: usize) -> &Tenant {
        &self.0[index].tenant
    }
}

impl IndexMut<usize> for Tenants {
    fn index_mut(&mut self, index: usize) -> &mut Tenant {
        let listed = Arc::make_mut(&mut Arc::make_mut(&mut self.0)[index]);
        (listed.claims, listed.space) = (OnceLock::new(), OnceLock::new());
        &mut listed.tenant
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::*;

    #[test]
    fn what_follows_from_a_tenant_follows_from_what_it_is_now() {
        let tenant = json!({"apiVersion": acb_crds::API_VERSION, "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {"tier": "Free"}});
        let mut all = Tenants::from(vec![serde_json::from_value(tenant).unwrap()]);
        assert_eq!(all.of_space("acb-acme").count(), 1);
        let before = all.clone();
        assert!(before.is_same(&all));
        all[0].spec.agent_namespace = Some("team".to_owned());
        assert!(!before.is_same(&all) && before != all);
        assert_eq!((all.of_space("acb-acme").count(), all.of_space("team").count()), (0, 1));
        assert_eq!((before.of_space("acb-acme").count(), before.of_space("team").count()), (1, 0), "who shared it has what was");
        assert!(all.listed().next().unwrap().claims().unwrap().spaces.contains("team"));
    }
}
