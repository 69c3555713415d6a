//! ACLs of `User:*` on tenants' topics: what everybody is allowed, each tenant is allowed on the others' logs. They are the platform's own, so
//! that they are said and not removed.

use super::{
    kafka_acls::{ALLOW, Acl, PATTERN_PREFIXED},
    kafka_configs::RESOURCE_TOPIC,
};

/// Whoever has logged in.
pub(super) const EVERYBODY: &str = "User:*";

/// Whether an ACL lets everybody do something with topics under a prefix.
fn opens(acl: &Acl, prefix: &str) -> bool {
    let meets = match acl.pattern_type {
        PATTERN_PREFIXED => prefix.starts_with(&acl.resource_name) || acl.resource_name.starts_with(prefix),
        _ => acl.resource_name == "*" || acl.resource_name.starts_with(prefix),
    };
    acl.principal == EVERYBODY && acl.permission == ALLOW && acl.resource_type == RESOURCE_TOPIC && meets
}

/// By its number, as `kafka-acls.sh` calls it.
fn operation(number: i8) -> &'static str {
    match number {
        2 => "All",
        3 => "Read",
        4 => "Write",
        5 => "Create",
        6 => "Delete",
        7 => "Alter",
        8 => "Describe",
        10 => "DescribeConfigs",
        11 => "AlterConfigs",
        _ => "something",
    }
}

/// What puts the topics under a prefix at risk, each with what to do.
pub(super) fn risks<'a>(acls: impl IntoIterator<Item = &'a Acl>, prefix: &str) -> Vec<String> {
    let opening = acls.into_iter().filter(|acl| opens(acl, prefix));
    let risk = |acl: &Acl| {
        let (of, pattern) = match acl.pattern_type {
            PATTERN_PREFIXED => ("that begin with", "prefixed"),
            _ => ("called", "literal"),
        };
        let (name, operation) = (&acl.resource_name, operation(acl.operation));
        format!(
            "an ACL of {EVERYBODY} allows {operation} on topics {of} {name:?} to every tenant: remove it (kafka-acls.sh --remove \
             --allow-principal '{EVERYBODY}' --operation {operation} --topic '{name}' --resource-pattern-type {pattern})"
        )
    };
    opening.map(risk).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITERAL: i8 = 3;
    const DENY: i8 = 2;

    fn acl(resource_name: &str, pattern_type: i8) -> Acl {
        Acl {
            principal: EVERYBODY.to_owned(),
            host: "*".to_owned(),
            resource_type: RESOURCE_TOPIC,
            resource_name: resource_name.to_owned(),
            pattern_type,
            operation: 3,
            permission: ALLOW,
        }
    }

    #[test]
    fn only_what_lets_everybody_at_the_topics_of_a_tenant_is_said() {
        let is_said = |acl: Acl| !risks([&acl], "acb.acme.").is_empty();
        for (name, pattern) in [("acb.", PATTERN_PREFIXED), ("a", PATTERN_PREFIXED), ("", PATTERN_PREFIXED), ("*", LITERAL)] {
            assert!(is_said(acl(name, pattern)), "{name:?} reaches all tenants");
        }
        assert!(is_said(acl("acb.acme.sys.", PATTERN_PREFIXED)) && is_said(acl("acb.acme.notes", LITERAL)), "a part of it");
        for (name, pattern) in [("acb.acme2.", PATTERN_PREFIXED), ("orders", PATTERN_PREFIXED), ("acb.acme2.notes", LITERAL)] {
            assert!(!is_said(acl(name, pattern)), "{name:?} is another's");
        }
        assert!(!is_said(Acl { permission: DENY, ..acl("acb.", PATTERN_PREFIXED) }));
        assert!(!is_said(Acl { principal: "User:backup".to_owned(), ..acl("acb.", PATTERN_PREFIXED) }), "the platform knows it");
        assert!(!is_said(Acl { resource_type: 3, ..acl("acb.", PATTERN_PREFIXED) }), "a group is no log");
        let said = risks([&acl("acb.", PATTERN_PREFIXED)], "acb.acme.").concat();
        assert!(said.contains("allows Read") && said.contains("--topic 'acb.' --resource-pattern-type prefixed"), "{said}");
    }
}
