//! Who may roll now: a change that comes from the platform goes to a few tenants at a time, wave after wave, and stops where one does not come
//! up. Plain data.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// How many tenants roll at a time for the platform's sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxConcurrent {
    /// So many.
    Count(usize),
    /// So many of a hundred.
    Percent(usize),
}

impl MaxConcurrent {
    /// Of so many tenants; never none.
    #[must_use]
    pub fn of(self, tenants: usize) -> usize {
        match self {
            Self::Count(count) => count.max(1),
            Self::Percent(percent) => (tenants.saturating_mul(percent) / 100).max(1),
        }
    }
}

impl FromStr for MaxConcurrent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?}: use a number from 1, or a percentage from 1% to 100%");
        let (digits, percent) = text.strip_suffix('%').map_or((text, false), |digits| (digits, true));
        let number: usize = digits.parse().map_err(|_| refuse())?;
        match (number, percent) {
            (1..=100, true) => Ok(Self::Percent(number)),
            (1.., false) => Ok(Self::Count(number)),
            _ => Err(refuse()),
        }
    }
}

impl<'de> Deserialize<'de> for MaxConcurrent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match Value::deserialize(deserializer)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        text.parse().map_err(de::Error::custom)
    }
}

/// How far a tenant is with what comes from the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its hub is as the platform wants it, or is no affair of the platform.
    Settled,
    /// Its hub is to roll, and waits for its turn.
    Due,
    /// Its hub rolls, or did not come up after it.
    Rolling,
}

/// A tenant, as far as rolls look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Lower ones come first.
    pub wave: i64,
    /// How far it is; `None`: nobody has looked since this process leads.
    pub stage: Option<Stage>,
}

/// Why a tenant waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// So many were not looked at yet, this one first of all: one of them may roll already, or come first.
    Unseen(usize, String),
    /// A tenant of an earlier wave rolls, waits, or did not come up.
    Wave(i64, String),
    /// So many roll, which are as many as may.
    Full(usize),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unseen(count, tenant) => write!(f, "{count} tenants are looked at first, such as {tenant}"),
            Self::Wave(wave, tenant) => write!(f, "wave {wave} comes first, and tenant {tenant} of it is not through"),
            Self::Full(count) => write!(f, "{count} tenants roll now, and no more do at a time (rollout.maxConcurrentTenants)"),
        }
    }
}

/// What decides about everybody's turn, from one look at each member.
#[derive(Debug)]
pub struct Front<'a> {
    /// How many were not looked at yet, and the first of them.
    unseen: (usize, &'a str),
    /// The earliest wave that is not through, and the first of it that is not.
    wave: Option<(i64, &'a str)>,
    /// How many roll.
    rolling: usize,
    /// How many may.
    most: usize,
}

impl<'a> Front<'a> {
    /// Looks at each member once. They come in the order of their names.
    #[must_use]
    pub fn of(members: impl IntoIterator<Item = (&'a str, Member)>, most: MaxConcurrent) -> Self {
        let (mut count, mut front) = (0, Self { unseen: (0, ""), wave: None, rolling: 0, most: 0 });
        for (name, member) in members {
            count += 1;
            front.rolling += usize::from(member.stage == Some(Stage::Rolling));
            if member.stage.is_none() {
                front.unseen = (front.unseen.0 + 1, if front.unseen.0 == 0 { name } else { front.unseen.1 });
            }
            if member.stage != Some(Stage::Settled) && front.wave.is_none_or(|(wave, _)| member.wave < wave) {
                front.wave = Some((member.wave, name));
            }
        }
        front.most = most.of(count);
        front
    }

    /// Whether a member may roll now. One that rolls already goes on.
    ///
    /// # Errors
    /// What it waits for.
    pub fn turn(&self, own: Member) -> Result<(), Wait> {
        if own.stage == Some(Stage::Rolling) {
            return Ok(());
        }
        if let (unseen @ 1.., first) = self.unseen {
            return Err(Wait::Unseen(unseen, first.to_owned()));
        }
        if let Some((wave, first)) = self.wave.filter(|(wave, _)| *wave < own.wave) {
            return Err(Wait::Wave(wave, first.to_owned()));
        }
        if self.rolling >= self.most { Err(Wait::Full(self.rolling)) } else { Ok(()) }
    }
}

/// Whether a tenant may roll now. One that rolls already goes on.
///
/// # Errors
/// What it waits for.
pub fn turn(name: &str, members: &BTreeMap<String, Member>, most: MaxConcurrent) -> Result<(), Wait> {
    let Some(own) = members.get(name) else { return Err(Wait::Unseen(1, name.to_owned())) };
    Front::of(each(members), most).turn(*own)
}

/// Those that wait and whose turn it is now, as many as there are places.
#[must_use]
pub fn next(members: &BTreeMap<String, Member>, most: MaxConcurrent) -> Vec<String> {
    next_of(each(members), most)
}

fn each(members: &BTreeMap<String, Member>) -> impl Iterator<Item = (&str, Member)> + Clone {
    members.iter().map(|(name, member)| (name.as_str(), *member))
}

/// Looks at each member twice: who is next of thousands is asked whenever one of them has got further.
fn next_of<'a>(members: impl Iterator<Item = (&'a str, Member)> + Clone, most: MaxConcurrent) -> Vec<String> {
    let front = Front::of(members.clone(), most);
    let due = members.filter(|(_, member)| member.stage == Some(Stage::Due) && front.turn(*member).is_ok());
    due.map(|(name, _)| name.to_owned()).take(front.most.saturating_sub(front.rolling)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::cell::Cell;

    use super::{Stage::*, *};

    fn members(of: &[(&str, i64, Option<Stage>)]) -> BTreeMap<String, Member> {
        of.iter().map(|(name, wave, stage)| ((*name).to_owned(), Member { wave: *wave, stage: *stage })).collect()
    }

    #[test]
    fn a_few_of_a_hundred_are_never_none() {
        let of = |text: &str, tenants| text.parse::<MaxConcurrent>().unwrap().of(tenants);
        assert_eq!((of("5%", 1_000), of("5%", 19), of("5%", 0), of("100%", 7), of("3", 1_000)), (50, 1, 1, 7, 3));
        for wrong in ["0", "0%", "101%", "5 %", "-1", "", "%", "many"] {
            assert!(wrong.parse::<MaxConcurrent>().is_err(), "{wrong}");
        }
        assert_eq!(serde_json::from_str::<MaxConcurrent>("3").unwrap(), MaxConcurrent::Count(3));
        assert_eq!(serde_json::from_str::<MaxConcurrent>("\"5%\"").unwrap(), MaxConcurrent::Percent(5));
    }

    #[test]
    fn as_many_roll_as_may_and_who_rolls_goes_on() {
        let most = MaxConcurrent::Count(2);
        let mut all = members(&[("a", 0, Some(Rolling)), ("b", 0, Some(Due)), ("c", 0, Some(Due)), ("d", 0, Some(Settled))]);
        assert_eq!(next(&all, most), ["b"]);
        assert_eq!(turn("b", &all, most), Ok(()));
        all.get_mut("b").unwrap().stage = Some(Rolling);
        assert_eq!((turn("c", &all, most), turn("a", &all, most)), (Err(Wait::Full(2)), Ok(())));
        assert!(next(&all, most).is_empty());
        all.get_mut("a").unwrap().stage = Some(Settled);
        assert_eq!(next(&all, most), ["c"]);
    }

    /// The rules once more, each member's turn by a look at all others.
    fn turn_by_all(name: &str, members: &BTreeMap<String, Member>, most: MaxConcurrent) -> bool {
        let (own, others) = (members[name], || members.values());
        let is_open = |other: &&Member| other.wave < own.wave && other.stage != Some(Settled);
        let rolling = others().filter(|other| other.stage == Some(Rolling)).count();
        own.stage == Some(Rolling)
            || others().all(|other| other.stage.is_some()) && others().find(is_open).is_none() && rolling < most.of(members.len())
    }

    #[test]
    fn a_turn_is_what_a_look_at_all_others_says() {
        let stages = [None, Some(Settled), Some(Due), Some(Rolling)];
        // Every stage and three waves for each of three.
        for drawn in 0..12_usize.pow(3) {
            let member = |place: u32| {
                let drawn = drawn / 12_usize.pow(place) % 12;
                Member { wave: i64::try_from(drawn / 4).unwrap(), stage: stages[drawn % 4] }
            };
            let all: BTreeMap<String, Member> = (0..3).map(|place| (place.to_string(), member(place))).collect();
            for most in [MaxConcurrent::Count(1), MaxConcurrent::Percent(100)] {
                for name in all.keys() {
                    assert_eq!(turn(name, &all, most).is_ok(), turn_by_all(name, &all, most), "{name} of {all:?}");
                }
            }
        }
    }

    #[test]
    fn who_is_next_of_thousands_is_found_by_two_looks_at_each() {
        let looks = Cell::new(0);
        let named: Vec<String> = (0..5_000).map(|number| format!("t{number:04}")).collect();
        let due = |name| (name, Member { wave: 0, stage: Some(Due) });
        let all = named.iter().map(|name| due(name.as_str())).inspect(|_| looks.set(looks.get() + 1));
        // Nobody may: a wave before all of them is not through.
        let canary = [("canary", Member { wave: -1, stage: Some(Rolling) })];
        assert!(next_of(canary.into_iter().chain(all.clone()), MaxConcurrent::Percent(100)).is_empty());
        assert_eq!(looks.replace(0), 10_000);
        assert_eq!(next_of(all, MaxConcurrent::Percent(10)).len(), 500);
        assert!(looks.get() <= 10_000, "{looks:?}");
    }

    #[test]
    fn nobody_begins_before_everybody_was_looked_at() {
        let most = MaxConcurrent::Percent(100);
        let all = members(&[("a", 0, Some(Due)), ("b", 0, None), ("c", 3, Some(Rolling))]);
        assert_eq!((turn("a", &all, most), turn("c", &all, most)), (Err(Wait::Unseen(1, "b".to_owned())), Ok(())));
        assert_eq!(turn("unknown", &all, most), Err(Wait::Unseen(1, "unknown".to_owned())));
    }

    #[test]
    fn a_wave_that_is_not_through_stops_those_after_it() {
        let most = MaxConcurrent::Count(10);
        let mut all = members(&[("canary", -1, Some(Due)), ("b", 0, Some(Due)), ("c", 0, Some(Due)), ("z", 1, Some(Due))]);
        assert_eq!(next(&all, most), ["canary"]);
        let waits = Err(Wait::Wave(-1, "canary".to_owned()));
        assert_eq!((turn("b", &all, most), turn("z", &all, most)), (waits.clone(), waits.clone()));
        // It does not come up.
        all.get_mut("canary").unwrap().stage = Some(Rolling);
        assert_eq!(turn("b", &all, most), waits);
        all.get_mut("canary").unwrap().stage = Some(Settled);
        assert_eq!(next(&all, most), ["b", "c"]);
        assert_eq!(turn("z", &all, most), Err(Wait::Wave(0, "b".to_owned())));
    }
}
