use std::collections::BTreeMap;

use acb_crds::names::{AgentName, ContextTypeName, NameError, SYSTEM_TOPICS, TenantId, TenantName};
use proptest::prelude::*;

#[test]
fn longest_names_fit_every_system() {
    let tenant = TenantName::parse(&"t".repeat(40)).unwrap();
    let context = ContextTypeName::parse(&"c".repeat(63)).unwrap();
    assert!(tenant.context_topic(&context).len() <= 249, "Kafka");
    assert!(SYSTEM_TOPICS.iter().all(|name| tenant.system_topic(name).len() <= 249), "Kafka");
    assert!(TenantId::from_uid("x").login().len() <= 63, "PostgreSQL");
    assert!(tenant.namespace().len() <= 63 && tenant.hub_namespace().len() <= 63, "Kubernetes");
    assert!(
        AgentName::parse(&"a".repeat(63)).unwrap().api_key_secret().len() + "-18446744073709551615".len() <= 253,
        "Kubernetes"
    );
}

#[test]
fn refuses() {
    for name in ["", "-", "a-", "-a", "A", "a.b", "a_b", "1a", "ä", "a b", "a\n", "a\0"] {
        assert!(matches!(TenantName::parse(name), Err(NameError::Pattern { .. })), "{name:?}");
        assert!(matches!(ContextTypeName::parse(name), Err(NameError::Pattern { .. })), "{name:?}");
    }
    for name in ["sys", "system", "default", "kube", "kube-system", "kubernetes"] {
        assert!(matches!(TenantName::parse(name), Err(NameError::Reserved { .. })), "{name:?}");
        assert!(matches!(ContextTypeName::parse(name), Err(NameError::Reserved { .. })), "{name:?}");
    }
    assert!(matches!(TenantName::parse(&"a".repeat(41)), Err(NameError::TooLong { length: 41, max: 40, .. })));
    assert!(AgentName::parse("1-worker").is_ok());
}

#[test]
fn id_is_the_first_80_bits_of_sha256() {
    let id = TenantId::from_uid("5f0c7f6e-7d1c-4a53-9d33-2f3c1f3b8a10");
    assert_eq!(id.hex().len(), 20);
    assert_eq!(TenantId::from_hex(&id.hex()), Some(id));
    assert_eq!(TenantId::from_uid("").hex(), "e3b0c44298fc1c149afb");
    assert_eq!(TenantId::from_hex("E3B0C44298FC1C149AFB"), None, "one spelling only");
}

/// Names that were chosen to be mistaken for each other.
fn hostile() -> impl Strategy<Value = String> {
    let parts = [
        "a", "ac", "acme", "acb", "acbhub", "hub", "sys", "messages", "control", "-", ".", "_", "2", "x", "eu", "A", "t", "kube",
    ];
    prop::collection::vec(prop::sample::select(parts.to_vec()), 1..6).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_two_tenants_share_a_name(tenants in prop::collection::btree_set(hostile(), 1..12), types in prop::collection::btree_set(hostile(), 1..8)) {
        let tenants: Vec<TenantName> = tenants.iter().filter_map(|name| TenantName::parse(name).ok()).collect();
        let types: Vec<ContextTypeName> = types.iter().filter_map(|name| ContextTypeName::parse(name).ok()).collect();
        // Kafka takes a dot and an underscore for each other in names of metrics.
        let mut topics = BTreeMap::new();
        let mut namespaces = BTreeMap::new();
        namespaces.insert("acb-system".to_owned(), "the operator".to_owned());
        for tenant in &tenants {
            let system = SYSTEM_TOPICS.iter().map(|name| tenant.system_topic(name));
            for topic in types.iter().map(|name| tenant.context_topic(name)).chain(system) {
                prop_assert!(topic.starts_with(&tenant.topic_prefix()));
                for other in tenants.iter().filter(|other| *other != tenant) {
                    prop_assert!(!topic.starts_with(&other.topic_prefix()), "{} may read {}", other, topic);
                }
                prop_assert_eq!(topics.insert(topic.replace('_', "."), tenant.to_string()), None);
            }
            for namespace in [tenant.namespace(), tenant.hub_namespace()] {
                prop_assert_eq!(namespaces.insert(namespace, tenant.to_string()), None);
            }
        }
    }

    #[test]
    fn parsing_never_panics(name in ".*") {
        let _ = TenantName::parse(&name);
        let _ = ContextTypeName::parse(&name);
        let _ = AgentName::parse(&name);
        let _ = TenantId::from_hex(&name);
    }
}
