//! What a person would ask about: a change of state, and what was done. A runtime may publish it.

use acb_crds::Condition;

use crate::plan::Plan;

/// What a note may have, so that every API takes it.
const NOTE_BYTES: usize = 1000;

/// One thing that happened to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    /// Whether someone may have to do something.
    pub(crate) warning: bool,
    /// For programs.
    pub(crate) reason: String,
    /// What was being done.
    pub(crate) action: &'static str,
    /// For people.
    pub(crate) note: String,
}

fn short(text: &str) -> String {
    if text.len() <= NOTE_BYTES {
        return text.to_owned();
    }
    let end = (0..=NOTE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.r#type == "Ready")
}

/// A reason of `Ready` that was not there before. A message alone changes too often to be news.
pub(crate) fn of_conditions(before: &[Condition], now: &[Condition]) -> Option<News> {
    let now_ready = ready(now)?;
    let same = ready(before).is_some_and(|before| before.reason == now_ready.reason && before.status == now_ready.status);
    if same {
        return None;
    }
    let stalled = now.iter().any(|condition| condition.r#type == "Stalled" && condition.status == "True");
    let warning = stalled || now_ready.reason == "Retrying";
    Some(News { warning, reason: now_ready.reason.clone(), action: "Reconcile", note: short(&now_ready.message) })
}

/// What was done for a resource.
pub(crate) fn of_plan(plan: &Plan) -> Option<News> {
    // On one line: what shows events shows the first.
    let lines: Vec<String> = plan.to_string().lines().map(|line| line.trim().to_owned()).collect();
    let note = short(&lines.join("; "));
    (!plan.steps.is_empty()).then(|| News { warning: false, reason: "Applied".to_owned(), action: "Apply", note })
}

/// How a deletion ended.
pub(crate) fn of_ending(ending: &super::deletion::Ending) -> News {
    use super::deletion::Ending;
    let (warning, reason, note) = match ending {
        Ending::Removed => (false, "Removed", "taken down, and nothing of it is left".to_owned()),
        Ending::Retained => (false, "Retained", "taken down; its data is kept, as deletionPolicy says".to_owned()),
        Ending::LeftBehind(why) => {
            (true, "LeftBehind", format!("let go although it could not be taken down, so something of it is left behind: {why}"))
        }
    };
    News { warning, reason: reason.to_owned(), action: "Delete", note: short(&note) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;
    use crate::condition::{self, Outcome};

    #[test]
    fn only_another_reason_is_news() {
        let of = |outcome: &Outcome| condition::conditions(outcome, false, &[]);
        let (waiting, ready) = (of(&Outcome::Waiting("1 of 2".into())), of(&Outcome::Ready));
        assert_eq!(of_conditions(&waiting, &of(&Outcome::Waiting("2 of 2".into()))), None);
        assert_eq!(of_conditions(&[], &ready).unwrap().reason, "Provisioned");
        assert!(of_conditions(&ready, &of(&Outcome::Retrying("PostgreSQL".into()))).unwrap().warning);
    }

    #[test]
    fn a_note_has_a_bound_and_stays_text() {
        assert!(short(&"ä".repeat(3000)).len() <= NOTE_BYTES + '…'.len_utf8());
    }
}
