//! Which tenants roll for the platform's sake, in this leader's term. What is known here is what was seen in it: a new leader looks at everybody
//! before anybody begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use acb_crds::{Tenant, names::annotations::ROLLOUT_WAVE};

use crate::{
    rollout::{self, MaxConcurrent, Member, Stage, Wait},
    tenancy::{Listed, Tenants},
};

/// The tenants that there are.
#[derive(Debug, Default)]
pub(crate) struct Rollouts {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    members: BTreeMap<String, Member>,
    /// Those that `members` are of.
    all: Option<Tenants>,
}

impl Known {
    /// Makes the members those that there are.
    fn follow(&mut self, all: &Tenants) {
        if self.all.as_ref().is_some_and(|known| known.is_same(all)) {
            return;
        }
        // One whose name can't be one is never looked at, and waited for by nobody.
        let there = all.listed().filter(|listed| listed.space().is_some()).map(Listed::tenant);
        let there: BTreeMap<&str, &Tenant> = there.map(|tenant| (name(tenant), tenant)).collect();
        self.members.retain(|name, _| there.contains_key(name.as_str()));
        for (name, tenant) in &there {
            self.members.entry((*name).to_owned()).or_insert(Member { wave: 0, stage: None }).wave = wave(tenant);
        }
        self.all = Some(all.clone());
    }
}

/// What follows from a look at one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Why it waits, where it does.
    pub(crate) waits: Option<Wait>,
    /// The namespaces of others whose turn it is by now.
    pub(crate) wake: BTreeSet<String>,
}

/// The wave of a Tenant: 0 where it does not say a number.
fn wave(tenant: &Tenant) -> i64 {
    let annotation = tenant.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ROLLOUT_WAVE));
    annotation.and_then(|wave| wave.trim().parse().ok()).unwrap_or_default()
}

fn name(tenant: &Tenant) -> &str {
    tenant.metadata.name.as_deref().unwrap_or_default()
}

impl Rollouts {
    /// One was looked at, and is at `stage`. What is due rolls from now on, where it may. `None`: that could not be told, and it is where it was
    /// before; one of which nothing was known holds nobody up.
    pub(crate) fn look(&self, tenant: &Tenant, stage: Option<Stage>, all: &Tenants, most: MaxConcurrent) -> Looked {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.follow(all);
        let members = &mut known.members;
        let own = name(tenant);
        let Some(before) = members.get(own).map(|member| member.stage) else { return Looked::default() };
        let is_judged = stage.is_some();
        let stage = stage.or(before).unwrap_or(Stage::Settled);
        let set = |members: &mut BTreeMap<String, Member>, stage| {
            if let Some(member) = members.get_mut(own) {
                member.stage = Some(stage);
            }
        };
        let mut waits = None;
        // What was begun goes on, also where its plan failed half-way.
        if stage != Stage::Due || before != Some(Stage::Rolling) {
            set(members, stage);
        }
        if is_judged && members.get(own).is_some_and(|member| member.stage == Some(Stage::Due)) {
            match rollout::turn(own, members, most) {
                Ok(()) => set(members, Stage::Rolling),
                Err(wait) => waits = Some(wait),
            }
        }
        // Where nothing is new of it, nothing is for others.
        if members.get(own).is_some_and(|member| member.stage == before) {
            return Looked { waits, wake: BTreeSet::new() };
        }
        let others: BTreeSet<String> = rollout::next(members, most).into_iter().filter(|next| next != own).collect();
        let others = all.listed().filter(|listed| others.contains(name(listed.tenant())));
        Looked { waits, wake: others.filter_map(|listed| listed.space().map(str::to_owned)).collect() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use serde_json::json;

    use super::{Stage::*, *};

    fn tenant(name: &str, wave: &str) -> Tenant {
        let metadata = json!({"name": name, "uid": name, "annotations": {ROLLOUT_WAVE: wave}});
        let tenant =
            json!({"apiVersion": acb_crds::API_VERSION, "kind": "Tenant", "metadata": metadata, "spec": {"tier": "Free"}});
        serde_json::from_value(tenant).unwrap()
    }

    #[test]
    fn a_roll_goes_through_all_of_them_in_their_waves() {
        let all = Tenants::from(vec![tenant("canary", "-1"), tenant("b", "no number"), tenant("c", "0"), tenant("z", "7")]);
        let (rollouts, most) = (Rollouts::default(), MaxConcurrent::Count(1));
        let look = |index: usize, stage: Stage| {
            let looked = rollouts.look(&all[index], Some(stage), &all, most);
            (looked.waits.map(|wait| wait.to_string()).unwrap_or_default(), looked.wake.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(look(1, Due).0, "3 tenants are looked at first, such as c");
        look(2, Due);
        look(0, Due);
        // The last one that was looked at: now it is known whose turn it is.
        assert_eq!(look(3, Due).1, ["acb-canary"]);
        assert_eq!(look(0, Due), (String::new(), vec![]));
        assert!(look(1, Due).0.contains("wave -1"), "it rolls");
        assert!(look(0, Rolling).1.is_empty());
        assert_eq!(look(0, Settled).1, ["acb-b"]);
        assert!(look(1, Due).0.is_empty());
        assert!(look(2, Due).0.contains("1 tenants roll now"));
        assert!(look(1, Due).0.is_empty(), "what was begun goes on");
        assert_eq!(look(1, Settled).1, ["acb-c"]);
        assert!(look(3, Due).0.contains("wave 0"));
        assert!(look(2, Due).0.is_empty());
        assert_eq!(look(2, Settled).1, ["acb-z"]);
        assert!(look(3, Due).0.is_empty());
    }

    #[test]
    fn one_that_is_gone_is_waited_for_by_nobody() {
        let all = Tenants::from(vec![tenant("one", "0"), tenant("two", "1")]);
        let (rollouts, most) = (Rollouts::default(), MaxConcurrent::Count(1));
        rollouts.look(&all[0], Some(Rolling), &all, most);
        assert!(rollouts.look(&all[1], Some(Due), &all, most).waits.is_some());
        assert_eq!(rollouts.look(&all[1], Some(Due), &Tenants::from(vec![all[1].clone()]), most).waits, None);
    }

    #[test]
    fn one_that_could_not_be_judged_is_where_it_was() {
        let all = Tenants::from(vec![tenant("canary", "-1"), tenant("b", "0"), tenant("broken", "0")]);
        let (rollouts, most) = (Rollouts::default(), MaxConcurrent::Count(9));
        rollouts.look(&all[2], None, &all, most);
        rollouts.look(&all[0], Some(Rolling), &all, most);
        let waits = |looked: Looked| looked.waits.is_some();
        assert!(waits(rollouts.look(&all[1], Some(Due), &all, most)));
        assert_eq!(rollouts.look(&all[0], None, &all, most), Looked::default());
        assert!(waits(rollouts.look(&all[1], Some(Due), &all, most)), "the canary is not through");
        rollouts.look(&all[0], Some(Settled), &all, most);
        assert!(!waits(rollouts.look(&all[1], Some(Due), &all, most)), "of the broken one nothing is known");
        rollouts.look(&all[0], Some(Due), &all, MaxConcurrent::Count(1));
        rollouts.look(&all[0], None, &all, most);
        assert!(waits(rollouts.look(&all[0], Some(Due), &all, MaxConcurrent::Count(1))), "it did not begin meanwhile");
    }
}
