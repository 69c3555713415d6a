//! What has to hold for every history.

use std::collections::BTreeSet;

use acb_operator::effect::kubernetes::ObjectKey;
use serde_json::{Value, json};

use crate::{
    documents::{ACCOUNT, name},
    history::{self, Act, Troubles, history, play},
    operator::Operator,
    promises,
    systems::{Crash, System, Systems},
    trial::{as_fresh, campaign, changes, keeps_promises, recover, same, settled, shut, unbroken},
};

fn ends_as_fresh(acts: &[Act], with_kafka: bool) -> Result<(), String> {
    let mut operator = Operator::new(with_kafka);
    keeps_promises(&mut operator, acts)?;
    as_fresh(&operator)
}

#[test]
fn any_history_ends_where_a_fresh_cluster_does() {
    campaign("converges", |random, length| history(random, length, Troubles::default()), ends_as_fresh);
}

#[test]
fn crashes_and_absences_and_the_changes_of_others_leave_nothing() {
    const ALL: Troubles = Troubles { crashes: true, away: true, drift: true, crowds: false };
    campaign("troubled", |random, length| history(random, length, ALL), ends_as_fresh);
}

fn ends_within_bounds(acts: &[Act], with_kafka: bool) -> Result<(), String> {
    let mut operator = Operator::new(with_kafka);
    keeps_promises(&mut operator, acts)
}

#[test]
fn no_tenant_has_more_agents_than_it_may() {
    const CROWDS: Troubles = Troubles { crowds: true, crashes: true, away: true, drift: false };
    campaign("crowded", |random, length| history(random, length, CROWDS), ends_within_bounds);
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
                for crash in [Crash::Before(at), Crash::After(at), Crash::Unanswered(at)] {
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
        after_each_change(&away, |systems| systems.away.clone_from(&away));
    }
}

/// It comes and goes: when it is asked it is away, and when it is told to do something it is there.
#[test]
fn what_can_not_be_read_is_not_taken_for_gone() {
    for system in System::ALL {
        let unread = BTreeSet::from([system]);
        after_each_change(&unread, |systems| systems.unread.clone_from(&unread));
    }
}

/// An account that is gone lets nobody in, whatever else is away.
fn no_account_lets_in(operator: &Operator, away: &BTreeSet<System>) -> Result<(), String> {
    if away.contains(&System::Postgres) || away.contains(&System::Kubernetes) {
        return Ok(());
    }
    let rows = operator.systems.postgres.tenants.values().flat_map(|rows| rows.observed.agents.values());
    promises::accounts_are_there(&operator.documents, rows)
}

fn after_each_change(away: &BTreeSet<System>, goes: impl Fn(&mut Systems)) {
    for (what, acts) in changes() {
        for rounds in 0..4 {
            let mut operator = settled(true, "Delete");
            play(&mut operator, &acts);
            for _ in 0..rounds {
                operator.round();
            }
            goes(&mut operator.systems);
            // What is not known to be done is done again at each look.
            for _ in 0..5 {
                operator.round();
            }
            if matches!(what, "delete an account" | "make an account again") {
                no_account_lets_in(&operator, away)
                    .unwrap_or_else(|why| panic!("{what}, {away:?} away after {rounds} rounds: {why}"));
            }
            if what == "delete a tenant" {
                shut(&operator, away).unwrap_or_else(|why| panic!("{what}, {away:?} away after {rounds} rounds: {why}"));
            }
            recover(&mut operator);
            operator.settle_late();
            let held = unbroken(&operator).and_then(|()| as_fresh(&operator));
            held.unwrap_or_else(|why| panic!("{what}, {away:?} were away after {rounds} rounds: {why}"));
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
    let account = name(ACCOUNT, "acb-acme", "own");
    let edits = edits.chain(history::quotas().into_iter().map(|spec| Act::Put(quota.clone(), spec)));
    let asked = [Act::Rotate(agent.clone(), "now".into()), Act::Rotate(acme.clone(), "now".into())];
    for edit in edits.chain(asked) {
        for with_kafka in [false, true] {
            let mut operator = settled(with_kafka, "Delete");
            play(&mut operator, &[Act::Put(account.clone(), Value::Null), edit.clone()]);
            operator.settle_late();
            unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap_or_else(|why| panic!("{edit:?}: {why}"));
        }
    }
}

/// Each edit to what there was before, and back: nothing of what was between is left.
#[test]
fn what_an_edit_brought_goes_with_the_next() {
    let (acme, agent) = (name("Tenant", "", "acme"), name("Agent", "acb-acme", "a"));
    for with_kafka in [false, true] {
        for (at, specs) in [(&acme, history::tenants()), (&agent, history::agents())] {
            for first in &specs {
                let mut begin = settled(with_kafka, "Delete");
                play(&mut begin, &[Act::Put(at.clone(), first.clone())]);
                begin.settle_late();
                let before = begin.snapshot();
                for second in specs.iter().filter(|second| *second != first) {
                    let mut operator = begin.clone();
                    play(&mut operator, &[Act::Put(at.clone(), second.clone())]);
                    operator.settle();
                    let mut back = operator.clone();
                    operator.settle_late();
                    let held = unbroken(&operator).and_then(|()| promises::kept(&operator)).and_then(|()| as_fresh(&operator));
                    held.unwrap_or_else(|why| panic!("{first}, then {second} (Kafka: {with_kafka}): {why}"));
                    play(&mut back, &[Act::Put(at.clone(), first.clone())]);
                    back.settle_late();
                    let held = unbroken(&back).and_then(|()| same(&back.snapshot(), &before));
                    held.unwrap_or_else(|why| panic!("{first}, then {second}, and back (Kafka: {with_kafka}): {why}"));
                }
            }
        }
    }
}

#[test]
fn what_others_change_is_set_right() {
    let start = settled(true, "Delete");
    let before = start.snapshot();
    for kind in 0..13 {
        // Of objects there are many.
        for which in 0..if matches!(kind, 1 | 2) { start.systems.kubernetes.objects.len() } else { 2 } {
            let mut operator = start.clone();
            // The kind is the remainder by 13, and which one it is the quotient by 16, over and over.
            let drift = (which * 16..).find(|number| number % 13 == kind).unwrap();
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
fn an_account_that_is_gone_lets_nobody_in() {
    let (account, agent) = (name(ACCOUNT, "acb-acme", "c"), name("Agent", "acb-acme", "c"));
    // It goes, it is another one now, or its Agent went by force.
    for acts in [vec![], vec![Act::Put(account.clone(), Value::Null)]] {
        let mut operator = settled(true, "Delete");
        play(&mut operator, &[Act::Delete(account.clone())]);
        play(&mut operator, &acts);
        operator.settle_late();
        unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
    }
    let mut operator = settled(true, "Delete");
    operator.documents.let_go(&agent);
    operator.settle_late();
    unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
}

#[test]
fn an_account_proves_the_older_of_two_that_name_it() {
    let mut operator = settled(true, "Delete");
    let shared = json!({"role": "Observer", "credentials": {"apiKey": {}, "serviceAccount": {"name": "c"}}});
    assert!(operator.documents.put(&name("Agent", "acb-acme", "d"), &shared));
    operator.settle_late();
    unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
    // The older names another, and the younger has it then.
    let other = json!({"role": "AgentFull", "credentials": {"serviceAccount": {"name": "other"}}});
    assert!(operator.documents.put(&name("Agent", "acb-acme", "c"), &other));
    operator.settle_late();
    unbroken(&operator).and_then(|()| promises::kept(&operator)).unwrap();
}

#[test]
fn keys_of_the_cluster_come_before_others_go() {
    let (mut operator, id) = (settled(true, "Delete"), name("Tenant", "", "acme"));
    let id = operator.documents.id(operator.documents.get(&id).unwrap()).hex();
    let known = |operator: &Operator| {
        let issuer = operator.systems.postgres.observe(&id).tenant.unwrap().issuer.unwrap();
        let keys = issuer.jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
        (issuer.issuer, issuer.previous, keys.collect::<Vec<_>>())
    };
    let one = "https://one".to_owned();
    for (act, issuer, previous, keys) in [
        (Act::Issuer(2, false), "https://one", None, vec!["a", "b"]),
        (Act::Issuer(2, true), "https://one", None, vec!["b"]),
        (Act::Issuer(3, true), "https://two", Some(one.clone()), vec!["b"]),
        // A replica that is behind changes nothing.
        (Act::Issuer(2, false), "https://two", Some(one), vec!["b"]),
    ] {
        play(&mut operator, std::slice::from_ref(&act));
        operator.settle();
        let keys = keys.into_iter().map(str::to_owned).collect();
        assert_eq!(known(&operator), (issuer.to_owned(), previous, keys), "{act:?}");
    }
    operator.settle_late();
    unbroken(&operator).unwrap();
    assert_eq!(known(&operator).1, None, "its time is over");
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

#[test]
fn what_is_converged_is_left_alone() {
    for with_kafka in [false, true] {
        let mut operator = settled(with_kafka, "Retain");
        let before = operator.systems.steps;
        for _ in 0..1_000 {
            operator.round();
        }
        assert_eq!(operator.systems.steps, before, "{:?}", operator.systems.log.last());
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
