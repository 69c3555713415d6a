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

/// SplitMix64: the same names each time.
struct Random(u64);

impl Random {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % u64::try_from(below).unwrap()).unwrap()
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

/// What might be taken for a part of a path, of a statement, of a pattern, of another name, or for nothing at all.
const HOSTILE: [&str; 48] = [
    ".",
    "..",
    "/",
    "../",
    "\\",
    "\0",
    "\n",
    "\r",
    "\t",
    " ",
    "'",
    "\"",
    "`",
    ";",
    "--",
    "/*",
    "%",
    "%2e",
    "%00",
    "_",
    "*",
    "?",
    "[a-z]",
    ".*",
    "$",
    "^",
    "(",
    "|",
    "{",
    "${x}",
    "$(x)",
    ":",
    "@",
    "#",
    "&",
    "=",
    ",",
    "~",
    "\u{200b}",
    "\u{202e}",
    "\u{feff}",
    "а",
    "ａ",
    "ı",
    "ſ",
    "ﬁ",
    "é",
    "\u{1f980}",
];
/// What a name may be made of, chosen so that many are nearly another one, or begin with one.
const PLAIN: [&str; 24] = [
    "a", "ac", "acme", "acb", "acbhub", "hub", "sys", "system", "default", "kube", "messages", "control", "audit", "dlq", "-",
    "-", "--", "0", "2", "x", "eu", "t", "acb-", "intruder",
];

/// 10,000 of them: most are plain, so that they are let in, and meet.
fn ten_thousand() -> Vec<String> {
    let mut random = Random(7);
    let mut names = std::collections::BTreeSet::new();
    while names.len() < 10_000 {
        let mut name = String::new();
        for _ in 0..=random.below(5) {
            name.push_str(random.pick(&PLAIN));
        }
        match random.below(8) {
            0..=2 => {
                let boundaries: Vec<usize> = (0..=name.len()).filter(|at| name.is_char_boundary(*at)).collect();
                name.insert_str(boundaries[random.below(boundaries.len())], random.pick(&HOSTILE));
            }
            3 if random.below(4) == 0 => name = name.to_uppercase(),
            4 if random.below(8) == 0 => name = name.repeat(1 + random.below(200)),
            _ => {}
        }
        names.insert(name);
    }
    names.into_iter().collect()
}

/// A parser takes a name as it is, and then it is one that every system takes for itself; or it refuses it.
fn is_taken<T: std::str::FromStr + std::fmt::Display>(name: &str, most: usize) -> Option<T> {
    let taken: T = name.parse().ok()?;
    assert_eq!(taken.to_string(), name, "it is not what was given");
    assert!(taken.to_string().parse::<T>().is_ok(), "{name:?} is taken once only");
    let bytes = name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    assert!(!bytes.is_empty() && bytes.len() <= most && bytes.iter().all(plain), "{name:?}");
    assert!(!name.starts_with('-') && !name.ends_with('-'), "{name:?}");
    assert_eq!((name.to_lowercase().as_str(), name.trim()), (name, name));
    Some(taken)
}

#[test]
fn of_ten_thousand_hostile_names_none_is_taken_for_another() {
    let names = ten_thousand();
    let tenants: Vec<TenantName> = names.iter().filter_map(|name| is_taken(name, 40)).collect();
    let types: Vec<ContextTypeName> = names.iter().filter_map(|name| is_taken(name, 63)).collect();
    let agents: Vec<AgentName> = names.iter().filter_map(|name| is_taken(name, 63)).collect();
    assert!(tenants.len() > 2000 && tenants.len() < 9000, "{}", tenants.len());
    assert!(types.len() >= tenants.len() && agents.len() > tenants.len());

    // What each tenant is called in each system, and whose it is. Names that a system compares without regard to case, or to dots and
    // underscores, are compared so.
    let mut all: BTreeMap<(&str, String), &TenantName> = BTreeMap::new();
    let mut take = |system: &'static str, name: String, tenant| {
        let before = all.insert((system, name.to_lowercase().replace('_', ".")), tenant);
        assert_eq!(before, None, "{system}: {name} of {tenant} is another's, too");
    };
    for tenant in &tenants {
        let id = TenantId::from_uid(&format!("uid of {tenant}"));
        take("PostgreSQL", id.login(), tenant);
        take("Kubernetes", tenant.namespace(), tenant);
        take("Kubernetes", tenant.hub_namespace(), tenant);
        take("Kubernetes", id.authority_secret(), tenant);
        for name in SYSTEM_TOPICS {
            take("Kafka", tenant.system_topic(name), tenant);
        }
        for name in types.iter().step_by(97) {
            take("Kafka", tenant.context_topic(name), tenant);
        }
        assert!(id.login().len() <= 63 && tenant.hub_namespace().len() <= 63 && tenant.topic_prefix().len() <= 80);
        assert_eq!(TenantId::from_hex(&id.hex()), Some(id));
    }

    // A right on a prefix is a right on all that begins with it. Where one begins with another, it comes right after it, or after others that do.
    let mut prefixes: Vec<String> = tenants.iter().map(TenantName::topic_prefix).collect();
    prefixes.sort();
    for pair in prefixes.windows(2) {
        assert!(!pair[1].starts_with(&pair[0]), "{} may read {}", pair[0], pair[1]);
    }
}
