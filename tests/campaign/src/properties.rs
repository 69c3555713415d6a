//! What has to hold for every history.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env, panic,
    time::Instant,
};

use acb_crds::names::annotations::ADOPT;
use acb_operator::effect::kubernetes::ObjectKey;
use serde_json::{Value, json};

use crate::{
    documents::name,
    history::{self, Act, Troubles, history, play},
    kubernetes,
    operator::Operator,
    promises,
    random::Random,
    systems::{Crash, System},
};

/// Of a small run, for each property that is drawn at random.
const SEQUENCES: u64 = 150;

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: not a number: {text}")))
}

/// Tries histories. A failure is made as short as it gets, and said with its seed.
fn campaign(what: &str, troubles: Troubles, holds: fn(&[Act], bool) -> Result<(), String>) {
    let (first, count) = (number("SEED", 1), number("SEQUENCES", SEQUENCES));
    let (is_large, began) = (env::var_os("SEQUENCES").is_some(), Instant::now());
    for (done, seed) in (first..first + count).enumerate() {
        let mut random = Random::new(seed);
        let with_kafka = random.one_in(2);
        let length = 4 + random.below(24);
        let acts = history(&mut random, length, troubles);
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

fn tried(acts: &[Act], with_kafka: bool, holds: fn(&[Act], bool) -> Result<(), String>) -> Result<(), String> {
    panic::catch_unwind(|| holds(acts, with_kafka)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!(
            "panic: {}",
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        ))
    })
}

/// Leaves out one act after the other, as long as it fails without it.
fn shortest(
    mut acts: Vec<Act>,
    with_kafka: bool,
    holds: fn(&[Act], bool) -> Result<(), String>,
    mut why: String,
) -> (Vec<Act>, String) {
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

fn unbroken(operator: &Operator) -> Result<(), String> {
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
    let key = format!("{} {:?}", operator.systems.kafka.is_some(), fresh.documents);
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
fn as_fresh(operator: &Operator) -> Result<(), String> {
    same(&operator.snapshot(), &fresh(operator)?)?;
    let orphans = operator.orphans();
    if orphans.is_empty() { Ok(()) } else { Err(format!("orphans: {}", orphans.join(", "))) }
}

type Snapshot = BTreeMap<String, String>;

fn same(found: &Snapshot, wanted: &Snapshot) -> Result<(), String> {
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
fn recover(operator: &mut Operator) {
    operator.systems.away.clear();
    operator.systems.crash = None;
    operator.systems.kubernetes.is_stuck = false;
}

fn ends_as_fresh(acts: &[Act], with_kafka: bool) -> Result<(), String> {
    let mut operator = Operator::new(with_kafka);
    play(&mut operator, acts);
    recover(&mut operator);
    operator.settle_late();
    unbroken(&operator)?;
    promises::kept(&operator)?;
    as_fresh(&operator)
}

#[test]
fn any_history_ends_where_a_fresh_cluster_does() {
    campaign("converges", Troubles::default(), ends_as_fresh);
}

#[test]
fn crashes_and_absences_and_the_changes_of_others_leave_nothing() {
    campaign("troubled", Troubles { crashes: true, away: true, drift: true, crowds: false }, ends_as_fresh);
}

fn ends_within_bounds(acts: &[Act], with_kafka: bool) -> Result<(), String> {
    let mut operator = Operator::new(with_kafka);
    play(&mut operator, acts);
    recover(&mut operator);
    operator.settle_late();
    unbroken(&operator)?;
    promises::kept(&operator)
}

#[test]
fn no_tenant_has_more_agents_than_it_may() {
    campaign("crowded", Troubles { crowds: true, crashes: true, away: true, drift: false }, ends_within_bounds);
}

/// Two tenants with agents, as most of what follows begins.
fn settled(with_kafka: bool, policy: &str) -> Operator {
    let mut operator = Operator::new(with_kafka);
    for tenant in ["acme", "globex"] {
        let spec = json!({"tier": "Professional", "deletionPolicy": policy, "contextTypes": [{"name": "documents"}]});
        assert!(operator.documents.put(&name("Tenant", "", tenant), &spec));
        for agent in ["a", "b"] {
            let spec = json!({"role": "AgentFull", "publishes": ["extra"]});
            assert!(operator.documents.put(&name("Agent", &format!("acb-{tenant}"), agent), &spec));
        }
    }
    operator.settle();
    unbroken(&operator).unwrap();
    operator
}

/// What people do next, by name.
fn changes() -> Vec<(&'static str, Vec<Act>)> {
    let acme = || name("Tenant", "", "acme");
    let mut changes: Vec<(&str, Vec<Act>)> = vec![
        ("rotate the tenant's", vec![Act::Rotate(acme(), "now".into())]),
        ("rotate an agent's", vec![Act::Rotate(name("Agent", "acb-acme", "a"), "now".into())]),
        ("delete an agent", vec![Act::Delete(name("Agent", "acb-acme", "a"))]),
        ("delete a tenant", vec![Act::Delete(acme())]),
        ("delete and make again", vec![Act::Delete(acme()), Act::Round, Act::Put(acme(), history::tenants()[1].clone())]),
    ];
    changes.extend(history::tenants().into_iter().map(|spec| ("edit", vec![Act::Put(acme(), spec)])));
    changes
}

#[test]
fn a_crash_at_any_step_changes_nothing_in_the_end() {
    for with_kafka in [false, true] {
        let begin = Operator::new(with_kafka);
        let made = |mut operator: Operator| {
            operator.documents = settled(with_kafka, "Delete").documents.fresh();
            operator
        };
        let mut cases: Vec<(&str, Operator, Vec<Act>)> = vec![("make", made(begin), Vec::new())];
        cases.extend(changes().into_iter().map(|(what, acts)| (what, settled(with_kafka, "Delete"), acts)));
        for (what, start, acts) in cases {
            let mut straight = start.clone();
            play(&mut straight, &acts);
            straight.settle_late();
            unbroken(&straight).unwrap();
            let (first, last) = (start.systems.steps, straight.systems.steps);
            assert!(last > first || acts.is_empty() || what == "edit", "{what}: nothing was done");
            for at in first..last {
                for crash in [Crash::Before(at), Crash::After(at)] {
                    let mut operator = start.clone();
                    operator.systems.crash = Some(crash);
                    play(&mut operator, &acts);
                    operator.settle_late();
                    let held = unbroken(&operator).and_then(|()| as_fresh(&operator));
                    held.unwrap_or_else(|why| panic!("{what} (Kafka: {with_kafka}), {crash:?} of {first}..{last}: {why}"));
                }
            }
        }
    }
}

#[test]
fn a_system_that_is_away_holds_up_only_what_needs_it() {
    let all: Vec<BTreeSet<System>> = (1..8_usize)
        .map(|mask| {
            System::ALL.into_iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, system)| system).collect()
        })
        .collect();
    for away in all {
        for (what, acts) in changes() {
            for rounds in 0..4 {
                let mut operator = settled(true, "Delete");
                play(&mut operator, &acts);
                for _ in 0..rounds {
                    operator.round();
                }
                operator.systems.away.clone_from(&away);
                // What is not known to be done is done again at each look.
                for _ in 0..5 {
                    operator.round();
                }
                if what == "delete a tenant" {
                    shut(&operator, &away).unwrap_or_else(|why| panic!("{what}, {away:?} away after {rounds} rounds: {why}"));
                }
                operator.systems.away.clear();
                operator.settle_late();
                let held = unbroken(&operator).and_then(|()| as_fresh(&operator));
                held.unwrap_or_else(|why| panic!("{what}, {away:?} were away after {rounds} rounds: {why}"));
            }
        }
    }
}

#[test]
fn a_removal_is_let_go_when_all_is_shut() {
    for (with_kafka, policy) in [(false, "Retain"), (false, "Delete"), (true, "Retain"), (true, "Delete")] {
        for system in System::ALL.into_iter().filter(|system| with_kafka || *system != System::Kafka) {
            let (mut operator, acme) = (settled(with_kafka, policy), name("Tenant", "", "acme"));
            operator.systems.away.insert(system);
            play(&mut operator, &[Act::Delete(acme.clone()), Act::Round, Act::Round, Act::Round]);
            assert!(operator.documents.get(&acme).is_some(), "{system:?} was away, and it is let go");
            recover(&mut operator);
            operator.settle_late();
            unbroken(&operator).and_then(|()| shut(&operator, &BTreeSet::new())).unwrap();
            assert!(operator.documents.get(&acme).is_none(), "{system:?} is back");
        }
    }
}

#[test]
fn every_edit_is_kept() {
    let (acme, agent, quota) = (name("Tenant", "", "acme"), name("Agent", "acb-acme", "a"), name("Quota", "acb-acme", "q"));
    let edits = history::tenants().into_iter().chain(history::bounded()).map(|spec| Act::Put(acme.clone(), spec));
    let edits = edits.chain(history::agents().into_iter().map(|spec| Act::Put(agent.clone(), spec)));
    let edits = edits.chain(history::quotas().into_iter().map(|spec| Act::Put(quota.clone(), spec)));
    let asked = [Act::Rotate(agent.clone(), "now".into()), Act::Rotate(acme.clone(), "now".into())];
    for edit in edits.chain(asked) {
        for with_kafka in [false, true] {
            let mut operator = settled(with_kafka, "Delete");
            play(&mut operator, std::slice::from_ref(&edit));
            operator.settle_late();
            unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap_or_else(|why| panic!("{edit:?}: {why}"));
        }
    }
}

#[test]
fn what_others_change_is_set_right() {
    let start = settled(true, "Delete");
    let before = start.snapshot();
    for kind in 0..12 {
        // Of objects there are many.
        for which in 0..if matches!(kind, 1 | 2) { start.systems.kubernetes.objects.len() } else { 2 } {
            let mut operator = start.clone();
            // The kind is the remainder by 12, and which one it is the quotient by 16, over and over.
            let drift = (which * 16..).find(|number| number % 12 == kind).unwrap();
            play(&mut operator, &[Act::Drift(drift)]);
            operator.settle_late();
            let held = unbroken(&operator).and_then(|()| same(&operator.snapshot(), &before));
            held.unwrap_or_else(|why| panic!("{kind}, {which}: {why}"));
        }
    }
}

#[test]
fn an_agent_that_went_by_force_is_shut_out() {
    for is_suspended in [false, true] {
        let (mut operator, agent) = (settled(true, "Delete"), name("Agent", "acb-acme", "a"));
        assert!(operator.documents.put(&agent, &json!({"role": "AgentFull", "suspend": is_suspended})));
        operator.settle_late();
        operator.documents.let_go(&agent);
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
    }
}

#[test]
fn partitions_that_are_there_stay() {
    let (mut operator, acme) = (settled(true, "Delete"), name("Tenant", "", "acme"));
    for listed in [json!({"name": "documents", "partitions": 8}), json!({"name": "documents", "retention": "3d"})] {
        let spec = json!({"tier": "Professional", "deletionPolicy": "Delete", "contextTypes": [listed]});
        assert!(operator.documents.put(&acme, &spec));
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
    }
}

/// Of a tenant that is on its way out, what each system that is there lets in.
fn shut(operator: &Operator, away: &BTreeSet<System>) -> Result<(), String> {
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

#[test]
fn what_is_converged_is_left_alone() {
    for with_kafka in [false, true] {
        let mut operator = settled(with_kafka, "Retain");
        let before = operator.systems.steps;
        for _ in 0..200 {
            operator.round();
        }
        assert_eq!(operator.systems.steps, before, "{:?}", operator.systems.log.last());
    }
}

#[test]
fn data_that_is_retained_is_shut_and_nobody_elses() {
    for with_kafka in [false, true] {
        let mut operator = settled(with_kafka, "Retain");
        let rows = |operator: &Operator| operator.systems.postgres.tenants.len();
        play(&mut operator, &[Act::Delete(name("Tenant", "", "acme"))]);
        operator.settle_late();
        unbroken(&operator).unwrap();
        assert_eq!(rows(&operator), 2, "rows are kept");
        shut(&operator, &BTreeSet::new()).unwrap();
        let kept = operator.snapshot();
        // Another of the name does not get them.
        play(&mut operator, &[Act::Put(name("Tenant", "", "acme"), history::tenants()[0].clone())]);
        operator.settle_late();
        unbroken(&operator).unwrap();
        same(&operator.snapshot(), &kept).unwrap();
    }
}

#[test]
fn a_rotation_waits_for_every_pod() {
    for with_kafka in [false, true] {
        let mut operator = settled(with_kafka, "Delete");
        let acme = name("Tenant", "", "acme");
        operator.systems.kubernetes.is_stuck = true;
        play(&mut operator, &[Act::Rotate(acme.clone(), "now".into())]);
        operator.settle_late();
        unbroken(&operator).unwrap();
        recover(&mut operator);
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
        // A Secret that is gone is another one from then on: what the pods have does not change under its name.
        let of = |operator: &Operator| operator.systems.kubernetes.mounted("acbhub-acme");
        let before = of(&operator);
        for secret in &before {
            operator.systems.kubernetes.remove(&ObjectKey::new("v1", "Secret", "acbhub-acme", secret));
        }
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
        let made = operator.systems.kubernetes.secrets.keys().filter(|secret| secret.namespace == "acbhub-acme");
        let made: Vec<String> = made.map(|secret| secret.object_name()).collect();
        assert!(before.iter().all(|secret| !made.contains(secret)), "{before:?}, {made:?}");
    }
}

#[test]
fn what_a_tenant_leaves_that_went_by_force_is_found() {
    let mut operator = settled(true, "Delete");
    let id = operator.documents.id(operator.documents.get(&name("Tenant", "", "acme")).unwrap()).login();
    assert_eq!(operator.orphans(), Vec::<String>::new());
    let of_acme = |at: &crate::documents::Name| at.2 == "acme" || at.1 == "acb-acme";
    let gone: Vec<_> = operator.documents.names().into_iter().filter(of_acme).collect();
    gone.iter().for_each(|at| operator.documents.let_go(at));
    let found = operator.orphans().join("; ");
    for left in ["the hub in namespace acbhub-acme", &format!("login {id}"), &format!("user {id}")] {
        assert!(found.contains(left), "{left}: {found}");
    }
}

/// A namespace as the platform team makes it for a tenant.
fn give(operator: &mut Operator, space: &str, tenant: &str) {
    let labels = json!({"acb.dev/tenant": tenant});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space, "labels": labels}});
    operator.systems.kubernetes.objects.insert(kubernetes::namespace(space), object);
}

#[test]
fn a_given_namespace_is_left_as_it_was() {
    for with_kafka in [false, true] {
        let mut operator = Operator::new(with_kafka);
        give(&mut operator, "given", "acme");
        let begin = operator.snapshot();
        let (acme, agent) = (name("Tenant", "", "acme"), name("Agent", "given", "a"));
        let spec = json!({"tier": "Starter", "deletionPolicy": "Delete", "agentNamespace": "given",
                          "admins": [{"kind": "Group", "name": "team"}]});
        assert!(operator.documents.put(&acme, &spec));
        assert!(operator.documents.put(&agent, &json!({"role": "AgentFull"})));
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
        assert!(operator.snapshot().contains_key("RoleBinding given/acb-tenant-admins"));
        play(&mut operator, &[Act::Delete(agent), Act::Delete(acme)]);
        operator.settle_late();
        unbroken(&operator).unwrap();
        assert_eq!(operator.documents.names(), [], "all are let go");
        let left: Vec<String> = operator.snapshot().into_keys().filter(|key| key.starts_with("RoleBinding")).collect();
        assert_eq!(left, Vec::<String>::new(), "nobody has a right in it any more");
        let labels = |snapshot: &Snapshot| {
            serde_json::from_str::<Value>(&snapshot["Namespace given"]).unwrap()["metadata"]["labels"].clone()
        };
        assert_eq!(labels(&operator.snapshot()), labels(&begin));
    }
}

#[test]
fn of_two_that_claim_a_namespace_the_older_has_it() {
    for order in [["acme", "globex"], ["globex", "acme"]] {
        let mut operator = Operator::new(true);
        // The second one asks for the namespace of the first.
        assert!(operator.documents.put(&name("Tenant", "", order[0]), &json!({"tier": "Starter"})));
        let space = format!("acb-{}", order[0]);
        assert!(operator.documents.put(&name("Agent", &space, "a"), &json!({"role": "AgentFull"})));
        let thief = json!({"tier": "Starter", "agentNamespace": space});
        assert!(operator.documents.put(&name("Tenant", "", order[1]), &thief));
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
        let snapshot = operator.snapshot();
        assert!(snapshot.contains_key(&format!("row <id of {}>", order[0])), "{:?}", snapshot.keys());
        assert!(!snapshot.contains_key(&format!("row <id of {}>", order[1])), "{:?}", snapshot.keys());
    }
}

#[test]
fn topics_of_an_earlier_tenant_are_nobodys() {
    let mut operator = Operator::new(true);
    let earlier = acb_operator::plan::TopicSpec {
        name: "acb.acme.documents".into(),
        partitions: 4,
        retention_seconds: 60,
        cleanup: "delete".into(),
        max_message_bytes: 1,
    };
    operator.systems.kafka.as_mut().unwrap().topics.insert(earlier.name.clone(), earlier);
    let kept = operator.snapshot();
    operator.systems.away.insert(System::Kafka);
    let acme = name("Tenant", "", "acme");
    assert!(operator.documents.put(&acme, &json!({"tier": "Starter", "deletionPolicy": "Delete"})));
    operator.round();
    operator.systems.away.clear();
    operator.settle_late();
    play(&mut operator, &[Act::Delete(acme)]);
    operator.settle_late();
    unbroken(&operator).unwrap();
    assert_eq!(operator.snapshot().get("topic acb.acme.documents"), kept.get("topic acb.acme.documents"));
}

#[test]
fn retained_data_is_adopted_under_its_own_name_alone() {
    for with_kafka in [false, true] {
        let mut operator = settled(with_kafka, "Retain");
        let acme = name("Tenant", "", "acme");
        let id = operator.documents.id(operator.documents.get(&acme).unwrap()).hex();
        let there = operator.documents.get(&name("Tenant", "", "globex")).unwrap();
        let globex = operator.documents.id(there).hex();
        play(&mut operator, &[Act::Delete(acme.clone())]);
        operator.settle_late();
        // Neither the data of one that is there, nor that of another name.
        for (tenant, adopted) in [("acme", &globex), ("initech", &id)] {
            let mut thief = operator.clone();
            let at = name("Tenant", "", tenant);
            assert!(thief.documents.put(&at, &history::tenants()[0]));
            thief.documents.annotate(&at, ADOPT, adopted);
            let rows = |operator: &Operator| -> Vec<String> {
                let all = operator.systems.postgres.tenants.iter();
                all.map(|(id, rows)| format!("{id} {:?} {:?}", rows.observed.tenant, rows.observed.login)).collect()
            };
            let before = rows(&thief);
            thief.settle_late();
            unbroken(&thief).unwrap();
            assert_eq!(rows(&thief), before, "{tenant} asks for {adopted}");
        }
        assert!(operator.documents.put(&acme, &history::tenants()[1]));
        operator.documents.annotate(&acme, ADOPT, &id);
        assert!(operator.documents.put(&name("Agent", "acb-acme", "a"), &json!({"role": "AgentFull"})));
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
        assert!(operator.systems.postgres.observe(&id).login.is_some_and(|login| login.enabled));
    }
}

#[test]
fn what_is_stalled_is_restrained_and_never_loosened() {
    for with_kafka in [false, true] {
        let mut operator = settled(with_kafka, "Delete");
        let acme = name("Tenant", "", "acme");
        // The tier allows none of this.
        let bad = |suspend: bool, most: u64| {
            json!({"tier": "Professional", "deletionPolicy": "Delete", "suspend": suspend, "hub": {"replicas": 40},
                   "limits": {"messagesPerMonth": most}})
        };
        let good = json!({"tier": "Professional", "deletionPolicy": "Delete", "limits": {"messagesPerMonth": 500}});
        assert!(operator.documents.put(&acme, &good));
        operator.settle_late();
        let row = |operator: &Operator| {
            let id = operator.documents.id(operator.documents.get(&acme).unwrap());
            operator.systems.postgres.observe(&id.hex()).tenant.unwrap()
        };
        for (suspend, most, wanted) in [(false, 900, 500), (false, 100, 100), (true, 900, 100)] {
            assert!(operator.documents.put(&acme, &bad(suspend, most)));
            operator.settle_late();
            unbroken(&operator).unwrap();
            assert_eq!(row(&operator).limits["messagesPerMonth"], wanted, "suspend: {suspend}, {most}");
            assert_eq!(row(&operator).suspended, suspend);
        }
        assert!(operator.documents.put(&acme, &good));
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
    }
}

/// Values that no field expects.
fn hostile() -> Vec<Value> {
    vec![
        Value::Null,
        json!(-1),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("x".repeat(70_000)),
        json!("../../etc/passwd"),
        json!("'; DROP TABLE acb.tenant; --"),
        json!("${jndi:ldap://x}"),
        json!("\u{202e}\u{0}\u{1b}[2J"),
        json!([]),
        json!(vec![json!({}); 2000]),
        json!({}),
        json!({"$ref": "#"}),
        json!(true),
        json!("9999999999999999999d"),
        json!("10.0.0.0/99"),
    ]
}

/// Every place in a document.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, value)| places(value, &format!("{at}/{field}"), all)),
        Value::Array(items) => items.iter().enumerate().for_each(|(index, value)| places(value, &format!("{at}/{index}"), all)),
        _ => {}
    }
    all.push(at.to_owned());
}

#[test]
fn no_value_of_any_field_does_harm() {
    let full = json!({
        "tier": "Enterprise", "deletionPolicy": "Delete", "suspend": false, "registration": "Declared",
        "contextTypes": [{"name": "documents", "partitions": 4, "retention": "7d", "cleanup": "Delete", "maxMessageBytes": 2000}],
        "limits": {"maxAgents": 5, "messagesPerMonth": 100, "storageBytes": 1000}, "agentLimits": {"messagesPerMinute": 5},
        "admins": [{"kind": "Group", "name": "team"}],
        "hub": {"replicas": 2, "resources": {"limits": {"memory": "1Gi"}, "requests": {"cpu": "100m"}}, "service": {"type": "ClusterIP"},
                "nodeSelector": {"a": "b"}, "ingressPeers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
    });
    let at = name("Tenant", "", "acme");
    let mut start = settled(true, "Delete");
    let document = json!({"apiVersion": acb_crds::API_VERSION, "kind": "Tenant", "metadata": {"name": "acme"}, "spec": full});
    acb_crds::schema::check(&document, None).unwrap();
    assert!(start.documents.put(&at, &full), "the document itself is good");
    start.settle_late();
    unbroken(&start).unwrap();
    let good = start.snapshot();
    let (mut all, mut taken) = (Vec::new(), 0);
    places(&full, "", &mut all);
    for place in all.iter().filter(|place| !place.is_empty()) {
        for value in hostile() {
            let mut bad = full.clone();
            *bad.pointer_mut(place).unwrap() = value.clone();
            let mut operator = start.clone();
            if !operator.documents.put(&at, &bad) {
                continue;
            }
            taken += 1;
            operator.settle();
            unbroken(&operator).unwrap_or_else(|why| panic!("{place}: {value}: {why}"));
            assert!(operator.documents.put(&at, &full));
            operator.settle_late();
            let held = unbroken(&operator).and_then(|()| same(&operator.snapshot(), &good));
            held.unwrap_or_else(|why| panic!("{place}: {value}, and back: {why}"));
        }
    }
    assert!(taken > 20, "{taken} were taken: the schema's rules are tried elsewhere");
}
