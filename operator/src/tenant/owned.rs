//! What of the names of a Tenant is its own, each from its own evidence: the UID on a namespace, its own row in PostgreSQL. What is not
//! there is nobody's: there is nothing in it to protect. Pure.

use acb_crds::names::TenantName;
use serde_json::Value;

use super::{
    World,
    adoption::Identity,
    namespace::{TENANT_LABEL, TENANT_UID_LABEL, label, served_id},
};
use crate::effect::kubernetes::ObjectKey;

/// What is a Tenant's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// The namespace of its hub, and what is in it.
    pub hub: bool,
    /// The namespace of its Agents and Quotas.
    pub namespace: bool,
    /// The row of its id in PostgreSQL.
    pub row: bool,
    /// The topics under its prefix.
    pub topics: bool,
}

/// Finds out what is its own. `space` is the namespace of its Agents.
pub(super) fn owned(name: &TenantName, uid: &str, identity: &Identity, space: &str, world: &World) -> Owned {
    let row = world.row().is_some_and(|row| row.name == name.as_str());
    let found = |space: &str| world.objects.get(&ObjectKey::new("v1", "Namespace", "", space));
    // One that lost its UID is told by the row: only one Tenant at a time has the name.
    let serves = |found: &Value, without_uid: bool| match serves(found) {
        Some(serves) => serves == uid || (identity.adopted && served_id(found) == Some(identity.id)),
        None => row && without_uid,
    };
    let hub = found(&name.hub_namespace()).is_some_and(|found| serves(found, true));
    let is_named = |found: &Value| label(found, TENANT_LABEL) == Some(name.as_str());
    let namespace = found(space).is_some_and(|found| serves(found, is_named(found)));
    Owned { hub, namespace, row, topics: row || (identity.adopted && hub) }
}

/// The UID of the Tenant that a namespace serves.
fn serves(namespace: &Value) -> Option<&str> {
    label(namespace, TENANT_UID_LABEL).filter(|uid| !uid.is_empty())
}

/// Whether a namespace says that it serves another Tenant.
pub(super) fn is_anothers(namespace: &Value, uid: &str) -> bool {
    serves(namespace).is_some_and(|serves| serves != uid)
}
