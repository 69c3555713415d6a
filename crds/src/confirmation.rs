//! What has to be confirmed, because a slip can't be undone: data that was to be retained is to be deleted with its Tenant. No rule of a
//! schema can say so, since it sees no annotation: on a cluster the admission policy `acb-tenant-confirm-delete` of the chart does.

use serde_json::Value;

use crate::{names::annotations::CONFIRM_DELETE, violation::Violation};

/// What is wrong with a change of `deletionPolicy` from `Retain`, which is the default, to `Delete`.
pub(crate) fn check(value: &Value, old: &Value) -> Option<Violation> {
    let text = |object: &Value, pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let deletes = |object: &Value| text(object, "/kind") == "Tenant" && text(object, "/spec/deletionPolicy") == "Delete";
    if !deletes(value) || deletes(old) {
        return None;
    }
    let name = text(value, "/metadata/name");
    // An apply leaves the annotations that others wrote.
    let is_confirmed = [value, old].iter().any(|object| {
        let annotations = object.pointer("/metadata/annotations");
        annotations.and_then(|annotations| annotations.get(CONFIRM_DELETE)?.as_str()) == Some(name.as_str())
    });
    let message = format!(
        "Delete removes the tenant's rows and topics for good, once the Tenant is deleted: confirm it with the annotation {CONFIRM_DELETE}={name}"
    );
    (!is_confirmed).then(|| Violation::new("spec.deletionPolicy", message))
}
