//! How much of limits is used, as a status shows it: in steps, so that it is written seldom. And what of that needs a look.

use std::collections::BTreeMap;

use acb_crds::{Condition, QuotaLimits};

use crate::{condition, observed::ObservedUsage};

/// A limit is shown in so many steps.
const STEPS: i64 = 20;
/// From here on a limit is told to be near, in percent.
const NEAR: i64 = 80;

/// What counts against limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Agents.
    pub agents: i64,
    /// Messages in this calendar month.
    pub messages_per_month: i64,
    /// Bytes of contexts.
    pub storage_bytes: i64,
    /// How many contexts those are.
    pub contexts: i64,
}

impl Used {
    /// What all agents of a tenant use together.
    #[must_use]
    pub fn of_all(observed: &ObservedUsage, agents: i64) -> Self {
        let sum = |all: &mut dyn Iterator<Item = &i64>| all.fold(0, |sum: i64, used| sum.saturating_add(*used));
        Self {
            agents,
            messages_per_month: sum(&mut observed.messages.values()),
            storage_bytes: sum(&mut observed.stored.values()),
            contexts: sum(&mut observed.contexts.values()),
        }
    }

    /// What the one of these agents uses that has used most of its own limit, with that limit: each has it for itself, and they may differ.
    #[must_use]
    pub fn most_of(observed: &ObservedUsage, agents: &[(String, QuotaLimits)]) -> (Self, QuotaLimits) {
        let most = |used: &BTreeMap<String, i64>, limit: fn(&QuotaLimits) -> Option<i64>| {
            let each = agents.iter().map(|(uid, limits)| (used.get(uid).copied().unwrap_or(0), limit(limits)));
            each.max_by_key(|(used, most)| (share(*used, *most), *used)).unwrap_or_default()
        };
        let (messages_per_month, of_messages) = most(&observed.messages, |limits| limits.messages_per_month);
        let (storage_bytes, of_bytes) = most(&observed.stored, |limits| limits.storage_bytes);
        let (contexts, of_contexts) = most(&observed.contexts, |limits| limits.contexts);
        let agents = i64::try_from(agents.len()).unwrap_or(i64::MAX);
        let limits = QuotaLimits {
            messages_per_month: of_messages,
            storage_bytes: of_bytes,
            contexts: of_contexts,
            ..QuotaLimits::default()
        };
        (Self { agents, messages_per_month, storage_bytes, contexts }, limits)
    }

    /// As a status shows it, beside these limits.
    #[must_use]
    pub fn shown(&self, limits: &QuotaLimits) -> QuotaLimits {
        QuotaLimits {
            max_agents: Some(self.agents),
            messages_per_month: Some(step(self.messages_per_month, limits.messages_per_month)),
            storage_bytes: Some(step(self.storage_bytes, limits.storage_bytes)),
            contexts: Some(step(self.contexts, limits.contexts)),
            ..QuotaLimits::default()
        }
    }

    /// The limits that are used up, and those that are near. How many agents there are is told by those that are too many.
    #[must_use]
    pub fn near(&self, limits: &QuotaLimits) -> Near {
        let mut near = Near::default();
        for (name, used, most) in [
            ("messagesPerMonth", self.messages_per_month, limits.messages_per_month),
            ("storageBytes", self.storage_bytes, limits.storage_bytes),
            ("contexts", self.contexts, limits.contexts),
        ] {
            let Some(most) = most.filter(|most| *most > 0) else { continue };
            if used >= most {
                near.reached.push(format!("{name} ({most})"));
            } else if i128::from(used) * 100 >= i128::from(most) * i128::from(NEAR) {
                near.near.push(format!("{name} ({most})"));
            }
        }
        near
    }
}

/// Limits that need a look, with what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Near {
    /// Those that are used up.
    pub reached: Vec<String>,
    /// Those of which little is left.
    pub near: Vec<String>,
}

impl Near {
    /// As a status says it. `None`: there is nothing to say.
    #[must_use]
    pub fn condition(&self) -> Option<Condition> {
        condition::near_limit(&self.reached, &self.near)
    }
}

/// In millionths. Of no limit, and of a limit of nothing, that is none.
fn share(used: i64, most: Option<i64>) -> i128 {
    most.filter(|most| *most > 0).map_or(0, |most| i128::from(used) * 1_000_000 / i128::from(most))
}

/// The last step that was reached. Without a limit the steps are those of the first digit.
fn step(used: i64, most: Option<i64>) -> i64 {
    let used = used.max(0);
    let size = match most {
        Some(most) if most > 0 => (most / STEPS).max(1),
        _ => 10_i64.pow(used.checked_ilog10().unwrap_or(0)),
    };
    used / size * size
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(messages: &[(&str, i64)]) -> ObservedUsage {
        let messages = messages.iter().map(|(uid, used)| ((*uid).to_owned(), *used)).collect();
        ObservedUsage { messages, ..ObservedUsage::default() }
    }

    #[test]
    fn usage_is_shown_in_steps() {
        for (used, most, shown) in [
            (0, Some(100), 0),
            (4, Some(100), 0),
            (5, Some(100), 5),
            (99, Some(100), 95),
            (230, Some(100), 230),
            (3, Some(7), 3),
            (1, Some(0), 1),
            (12_345, None, 10_000),
            (0, None, 0),
            (i64::MAX, Some(i64::MAX), i64::MAX / STEPS * STEPS),
            (-1, None, 0),
        ] {
            assert_eq!(step(used, most), shown, "{used} of {most:?}");
        }
    }

    #[test]
    fn what_is_near_or_used_up_is_told() {
        let limits = |messages| QuotaLimits { messages_per_month: Some(messages), ..QuotaLimits::default() };
        let near = |used, most| Used { messages_per_month: used, ..Used::default() }.near(&limits(most));
        assert_eq!(near(79, 100), Near::default());
        assert_eq!(near(80, 100).near, ["messagesPerMonth (100)"]);
        assert_eq!(near(100, 100), Near { reached: vec!["messagesPerMonth (100)".to_owned()], near: Vec::new() });
        assert_eq!(near(5, 0), Near::default(), "nothing is used of a limit of 0");
        assert!(near(i64::MAX - 1, i64::MAX).reached.is_empty());
        let contexts = QuotaLimits { contexts: Some(10), ..QuotaLimits::default() };
        assert_eq!(Used { contexts: 8, ..Used::default() }.near(&contexts).near, ["contexts (10)"]);
    }

    #[test]
    fn all_together_and_the_one_that_uses_the_most() {
        let observed = observed(&[("a", 5), ("b", 7), ("gone", 1)]);
        assert_eq!(Used::of_all(&observed, 2).messages_per_month, 13);
        let of = |uid: &str, most| (uid.to_owned(), QuotaLimits { messages_per_month: most, ..QuotaLimits::default() });
        let most = |agents: &[_]| {
            let (used, limits) = Used::most_of(&observed, agents);
            (used.messages_per_month, limits.messages_per_month)
        };
        assert_eq!(most(&[of("a", Some(100)), of("b", Some(100))]), (7, Some(100)));
        assert_eq!(most(&[of("a", Some(10)), of("b", Some(100))]), (5, Some(10)), "half of its own, and not 7 of 10");
        assert_eq!(most(&[of("a", None), of("b", None)]), (7, None));
        assert_eq!(most(&[]), (0, None));
    }
}
