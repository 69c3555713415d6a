//! Who came first.

use std::cmp::Ordering;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The older first; of the same age by namespace and name.
#[must_use]
pub fn by_age(left: &ObjectMeta, right: &ObjectMeta) -> Ordering {
    let newness = left.creation_timestamp.is_none().cmp(&right.creation_timestamp.is_none());
    let newness = newness.then_with(|| left.creation_timestamp.cmp(&right.creation_timestamp));
    newness.then_with(|| left.namespace.cmp(&right.namespace)).then_with(|| left.name.cmp(&right.name))
}
