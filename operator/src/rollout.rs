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

/// Whether a tenant may roll now. One that rolls already goes on.
///
/// # Errors
/// What it waits for.
pub fn turn(name: &str, members: &BTreeMap<String, Member>, most: MaxConcurrent) -> Result<(), Wait> {
    let Some(own) = members.get(name) else { return Err(Wait::Unseen(1, name.to_owned())) };
    if own.stage == Some(Stage::Rolling) {
        return Ok(());
    }
    let mut unseen = members.iter().filter(|(_, member)| member.stage.is_none()).map(|(name, _)| name);
    if let Some(first) = unseen.next() {
        return Err(Wait::Unseen(1 + unseen.count(), first.clone()));
    }
    let earlier = members.iter().filter(|(_, other)| other.wave < own.wave && other.stage != Some(Stage::Settled));
    if let Some((first, other)) = earlier.min_by_key(|(_, other)| other.wave) {
        return Err(Wait::Wave(other.wave, first.clone()));
    }
    let rolling = members.values().filter(|member| member.stage == Some(Stage::Rolling)).count();
    if rolling >= most.of(members.len()) { Err(Wait::Full(rolling)) } else { Ok(()) }
}

/// Those that wait and whose turn it is now, as many as there are places.
#[must_use]
pub fn next(members: &BTreeMap<String, Member>, most: MaxConcurrent) -> Vec<String> {
    let rolling = members.values().filter(|member| member.stage == Some(Stage::Rolling)).count();
    let places = most.of(members.len()).saturating_sub(rolling);
    let due = members.iter().filter(|(_, member)| member.stage == Some(Stage::Due));
    due.filter(|(name, _)| turn(name, members, most).is_ok()).map(|(name, _)| name.clone()).take(places).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

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
