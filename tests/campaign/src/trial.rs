//! How a property is tried: histories by their seeds, cut down to what fails, and ends that are compared.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env, panic,
    time::Instant,
};

use serde_json::{Value, json};

use crate::{
    cache::Cache,
    documents::{ACCOUNT, name},
    history::{self, Act},
    operator::Operator,
    promises,
    random::Random,
    systems::System,
};

/// Of a small run, for each property that is drawn at random.
const SEQUENCES: u64 = 150;

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: not a number: {text}")))
}

/// What has to hold after these acts, with Kafka or without.
pub(crate) type Holds = fn(&[Act], bool) -> Result<(), String>;

/// Tries histories. A failure is made as short as it gets, and said with its seed.
pub(crate) fn campaign(what: &str, draw: fn(&mut Random, usize) -> Vec<Act>, holds: Holds) {
    let (first, count) = (number("SEED", 1), number("SEQUENCES", SEQUENCES));
    let (is_large, began) = (env::var_os("SEQUENCES").is_some(), Instant::now());
    for (done, seed) in (first..first + count).enumerate() {
        let mut random = Random::new(seed);
        let with_kafka = random.one_in(2);
        let length = 4 + random.below(24);
        let acts = draw(&mut random, length);
        if let Err(why) = tried(&acts, with_kafka, holds) {
            let (shortest, why) = shortest(acts, with_kafka, holds, why);
            let acts: Vec<String> = shortest.iter().map(|act| format!("  {act:?}")).collect();
            panic!("{what}: SEED={seed} SEQUENCES=1 (Kafka: {with_kafka}): {why}\nafter\n{}", acts.join("\n"));
        }
        if is_large && done % 500 == 499 {
            eprintln!("{what}: {} of {count} histories, {} s", done + 1, began.elapsed().as_secs());
        }
    }
}

fn tried(acts: &[Act], with_kafka: bool, holds: Holds) -> Result<(), String> {
    panic::catch_unwind(|| holds(acts, with_kafka)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "panic: {}",
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        ))
    })
}

/// Leaves out one act after the other, as long as it fails without it.
fn shortest(mut acts: Vec<Act>, with_kafka: bool, holds: Holds, mut why: String) -> (Vec<Act>, String) {
    let mut index = 0;
    while index < acts.len() {
        let mut fewer = acts.clone();
        fewer.remove(index);
        match tried(&fewer, with_kafka, holds) {
            Err(still) => (acts, why) = (fewer, still),
            Ok(()) => index += 1,
        }
    }
    (acts, why)
}

pub(crate) fn unbroken(operator: &Operator) -> Result<(), String> {
    operator.broken.first().map_or(Ok(()), |broken| Err(broken.clone()))
}

thread_local! {
    /// By the documents: most histories of a property end with the same ones.
    static FRESH: RefCell<BTreeMap<String, Snapshot>> = const { RefCell::new(BTreeMap::new()) };
}

/// What there is in a cluster where these documents are all that ever was.
fn fresh(operator: &Operator) -> Result<Snapshot, String> {
    let mut fresh = Operator::new(operator.systems.kafka.is_some());
    fresh.documents = operator.documents.fresh();
    fresh.issuer.clone_from(&operator.issuer);
    let key = format!("{} {:?} {:?}", operator.systems.kafka.is_some(), fresh.documents, fresh.issuer);
    if let Some(known) = FRESH.with_borrow(|all| all.get(&key).cloned()) {
        return Ok(known);
    }
    fresh.settle_late();
    unbroken(&fresh)?;
    let snapshot = fresh.snapshot();
    FRESH.with_borrow_mut(|all| {
        // Histories that are drawn at random end in many ways.
        if all.len() >= 100 {
            all.clear();
        }
        all.insert(key, snapshot.clone());
    });
    Ok(snapshot)
}

/// The same as in a cluster where these documents are all that ever was.
pub(crate) fn as_fresh(operator: &Operator) -> Result<(), String> {
    same(&operator.snapshot(), &fresh(operator)?)?;
    let orphans = operator.orphans();
    if orphans.is_empty() { Ok(()) } else { Err(format!("orphans: {}", orphans.join(", "))) }
}

/// Plays these acts, lets everything come back, and holds the end to what was promised.
pub(crate) fn keeps_promises(operator: &mut Operator, acts: &[Act]) -> Result<(), String> {
    history::play(operator, acts);
    recover(operator);
    operator.settle_late();
    unbroken(operator)?;
    promises::kept(operator)
}

pub(crate) type Snapshot = BTreeMap<String, String>;

pub(crate) fn same(found: &Snapshot, wanted: &Snapshot) -> Result<(), String> {
    let keys: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    for key in keys {
        let text = |all: &Snapshot| all.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
        let (found, wanted) = (text(found), text(wanted));
        if found != wanted {
            // From a little before the first difference.
            let at = found.bytes().zip(wanted.bytes()).take_while(|(found, wanted)| found == wanted).count().saturating_sub(60);
            let part = |text: &str| {
                String::from_utf8_lossy(text.as_bytes().iter().skip(at).take(400).copied().collect::<Vec<_>>().as_slice())
                    .into_owned()
            };
            return Err(format!("{key}:\n  found  … {}\n  wanted … {}", part(&found), part(&wanted)));
        }
    }
    Ok(())
}

/// All are back, and nobody dies any more.
pub(crate) fn recover(operator: &mut Operator) {
    operator.systems.away.clear();
    operator.systems.unread.clear();
    operator.systems.crash = None;
    operator.sleeps_at = None;
    operator.systems.kubernetes.is_stuck = false;
    operator.issuer.is_settled = true;
    operator.cache.iter_mut().for_each(Cache::catch_up);
}

/// Two tenants with agents, as most of what follows begins.
pub(crate) fn settled(with_kafka: bool, policy: &str) -> Operator {
    let mut operator = Operator::new(with_kafka);
    for tenant in ["acme", "globex"] {
        let spec = json!({"tier": "Professional", "deletionPolicy": policy, "contextTypes": [{"name": "documents"}]});
        assert!(operator.documents.put(&name("Tenant", "", tenant), &spec));
        for agent in ["a", "b"] {
            let spec = json!({"role": "AgentFull", "publishes": ["extra"]});
            assert!(operator.documents.put(&name("Agent", &format!("acb-{tenant}"), agent), &spec));
        }
        // And one that proves itself with an account of its namespace.
        let space = format!("acb-{tenant}");
        assert!(operator.documents.put(&name(ACCOUNT, &space, "c"), &Value::Null));
        let spec = json!({"role": "AgentFull", "credentials": {"serviceAccount": {"name": "c"}}});
        assert!(operator.documents.put(&name("Agent", &space, "c"), &spec));
    }
    operator.settle();
    unbroken(&operator).unwrap();
    operator
}

/// What people do next, by name.
pub(crate) fn changes() -> Vec<(&'static str, Vec<Act>)> {
    let acme = || name("Tenant", "", "acme");
    let mut changes: Vec<(&str, Vec<Act>)> = vec![
        ("rotate the tenant's", vec![Act::Rotate(acme(), "now".into())]),
        ("rotate an agent's", vec![Act::Rotate(name("Agent", "acb-acme", "a"), "now".into())]),
        ("delete an agent", vec![Act::Delete(name("Agent", "acb-acme", "a"))]),
        ("delete an account", vec![Act::Delete(name(ACCOUNT, "acb-acme", "c"))]),
        (
            "make an account again",
            vec![Act::Delete(name(ACCOUNT, "acb-acme", "c")), Act::Put(name(ACCOUNT, "acb-acme", "c"), Value::Null)],
        ),
        ("rotate the cluster's keys", vec![Act::Issuer(1, true)]),
        ("delete a tenant", vec![Act::Delete(acme())]),
        ("delete and make again", vec![Act::Delete(acme()), Act::Round, Act::Put(acme(), history::tenants()[1].clone())]),
    ];
    changes.extend(history::tenants().into_iter().map(|spec| ("edit", vec![Act::Put(acme(), spec)])));
    changes
}

/// Of a tenant that is on its way out, what each system that is there lets in.
pub(crate) fn shut(operator: &Operator, away: &BTreeSet<System>) -> Result<(), String> {
    let snapshot = operator.snapshot();
    let is_there = |system: System| !away.contains(&system);
    if is_there(System::Kubernetes) && snapshot.contains_key("Deployment acbhub-acme/hub") {
        return Err("its hub runs".into());
    }
    if is_there(System::Postgres) && snapshot.get("login <id of acme>").is_some_and(|login| login.starts_with("[true")) {
        return Err("its login works".into());
    }
    if is_there(System::Kafka) && snapshot.contains_key("user acb_t_<id of acme>") {
        return Err("its user works".into());
    }
    Ok(())
}
