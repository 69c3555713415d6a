//! An operator that decides from old looks at Kubernetes: what is gone is still seen, what is new is not yet, and what has a name may be another one
//! by now. Each kind is told in its order; which of them is behind, and for how long, is drawn.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    cache::Cache,
    documents::{ACCOUNT, name},
    history::{self, Act, quotas, tenants},
    operator::Operator,
    random::Random,
    trial::{as_fresh, campaign, keeps_promises},
};

/// What decides most, and of the rest all together.
const KINDS: [&[&str]; 7] = [
    &["Tenant"],
    &["Agent"],
    &[ACCOUNT],
    &["Quota"],
    &["Namespace"],
    &["Deployment"],
    &["ConfigMap", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "ResourceQuota", "RoleBinding", "Service"],
];

fn behind(random: &mut Random) -> Act {
    let kinds: BTreeSet<String> =
        KINDS.iter().filter(|_| random.one_in(2)).flat_map(|kinds| kinds.iter().map(|kind| (*kind).to_owned())).collect();
    Act::Behind(kinds)
}

/// What happens to what is looked at; `rounds`: one in so many acts is followed by a look.
fn acts(random: &mut Random, length: usize, rounds: usize) -> Vec<Act> {
    let mut acts = vec![behind(random)];
    for _ in 0..length {
        acts.push(match random.below(16) {
            0..3 => Act::Put(history::tenant(random), random.pick(&tenants()).clone()),
            3..5 => history::put_agent(random),
            5 => Act::Put(history::quota(random), random.pick(&quotas()).clone()),
            6..8 => Act::Delete(history::tenant(random)),
            8 if random.one_in(2) => history::of_accounts(random),
            8 => Act::Delete(history::agent(random)),
            9 => Act::Rotate(history::tenant(random), format!("r{}", random.below(3))),
            10 => behind(random),
            11..13 => Act::Tell(1 + random.below(4)),
            13 => Act::Successor,
            14 if random.one_in(2) => Act::Drift(random.below(1 << 20)),
            14 => Act::Sweep,
            _ => Act::Round,
        });
        if random.one_in(rounds) {
            acts.push(Act::Round);
        }
    }
    acts
}

/// Made and deleted, and made again, with few looks between: some of it is never seen.
fn between(random: &mut Random, length: usize) -> Vec<Act> {
    let mut all = Vec::new();
    for _ in 0..length / 4 {
        all.extend(acts(random, 1, 8));
        let (at, spec) = match random.below(3) {
            0 => (history::tenant(random), random.pick(&tenants()).clone()),
            1 => {
                let (.., space, account) = history::agent(random);
                (name(ACCOUNT, &space, &account), Value::Null)
            }
            _ => match history::put_agent(random) {
                Act::Put(at, spec) => (at, spec),
                _ => continue,
            },
        };
        for act in [Act::Put(at.clone(), spec.clone()), Act::Tell(1), Act::Delete(at.clone()), Act::Round, Act::Put(at, spec)] {
            if !random.one_in(4) {
                all.push(act);
            }
        }
    }
    all
}

/// A Tenant goes and another of its name comes, while much of the first is still seen.
fn successors(random: &mut Random, length: usize) -> Vec<Act> {
    let (at, mut all) = (history::tenant(random), Vec::new());
    for _ in 0..1 + length / 8 {
        all.extend([Act::Put(at.clone(), random.pick(&tenants()).clone()), Act::Round, Act::Round]);
        all.push(behind(random));
        all.push(Act::Delete(at.clone()));
        for _ in 0..1 + random.below(3) {
            all.push(if random.one_in(3) { Act::Tell(1 + random.below(6)) } else { Act::Round });
        }
        all.push(Act::Put(at.clone(), random.pick(&tenants()).clone()));
        all.extend(acts(random, 3, 2));
    }
    all
}

fn ends_as_fresh(acts: &[Act], with_kafka: bool) -> Result<(), String> {
    let mut operator = Operator::new(with_kafka);
    operator.cache = Some(Cache::default());
    keeps_promises(&mut operator, acts)?;
    as_fresh(&operator)
}

#[test]
fn an_old_look_does_no_harm() {
    campaign("stale", |random, length| acts(random, length, 2), ends_as_fresh);
}

#[test]
fn what_comes_and_goes_between_two_looks_leaves_nothing() {
    campaign("between looks", between, ends_as_fresh);
}

#[test]
fn another_of_the_name_is_not_taken_for_the_one_before() {
    campaign("same name", successors, ends_as_fresh);
}
