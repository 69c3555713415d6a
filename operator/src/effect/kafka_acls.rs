//! ACLs: what a tenant's user is granted, and nothing else.

use std::collections::BTreeSet;

use super::kafka_configs::RESOURCE_TOPIC;

const RESOURCE_GROUP: i8 = 3;
/// Kafka's numbers: a client with others makes ACLs that look right in its own listing, and grant nothing.
pub(super) const PATTERN_PREFIXED: i8 = 4;
pub(super) const ALLOW: i8 = 3;
const READ: i8 = 3;
const WRITE: i8 = 4;
const DESCRIBE: i8 = 8;
/// Everything that a tenant may do, on its own prefix.
const GRANTS: [(i8, i8); 4] =
    [(RESOURCE_TOPIC, READ), (RESOURCE_TOPIC, WRITE), (RESOURCE_TOPIC, DESCRIBE), (RESOURCE_GROUP, DESCRIBE)];

/// An ACL, whole: its fields decide whether two are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Acl {
    /// `User:<name>`.
    pub(super) principal: String,
    /// `*` is any.
    pub(super) host: String,
    /// Kafka's number: 2 for topics, 3 for groups.
    pub(super) resource_type: i8,
    /// The name, or its beginning.
    pub(super) resource_name: String,
    /// Kafka's number: 3 for literal, 4 for prefixed.
    pub(super) pattern_type: i8,
    /// Kafka's number.
    pub(super) operation: i8,
    /// Kafka's number: 2 denies, 3 allows.
    pub(super) permission: i8,
}

/// What a tenant's user is granted on its prefix.
#[must_use]
pub(super) fn acls_of(username: &str, prefix: &str) -> BTreeSet<Acl> {
    let acl = |(resource_type, operation)| Acl {
        principal: format!("User:{username}"),
        host: "*".to_owned(),
        resource_type,
        resource_name: prefix.to_owned(),
        pattern_type: PATTERN_PREFIXED,
        operation,
        permission: ALLOW,
    };
    GRANTS.map(acl).into()
}
