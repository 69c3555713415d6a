//! What is written on a namespace of the tenant that it serves.

use acb_crds::names::TenantId;
use serde_json::Value;

/// The label of a namespace that serves a tenant. Only the platform may set it.
pub const TENANT_LABEL: &str = "acb.dev/tenant";
/// The UID of the Tenant that a namespace serves.
pub const TENANT_UID_LABEL: &str = "acb.dev/tenant-uid";
/// The annotation of a namespace with the id whose data its tenant adopted.
pub const ADOPTED_ANNOTATION: &str = "acb.dev/tenant-id";

/// What a label of an object says.
pub(crate) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get("metadata")?.get("labels")?.get(key)?.as_str()
}

/// The id of the tenant that a namespace serves.
pub(crate) fn served_id(namespace: &Value) -> Option<TenantId> {
    let uid = label(namespace, TENANT_UID_LABEL).filter(|uid| !uid.is_empty())?;
    Some(adopted_id(namespace).unwrap_or_else(|| TenantId::from_uid(uid)))
}

/// The id whose data its tenant adopted, where it did.
pub(crate) fn adopted_id(namespace: &Value) -> Option<TenantId> {
    TenantId::from_hex(namespace.get("metadata")?.get("annotations")?.get(ADOPTED_ANNOTATION)?.as_str()?)
}
