//! What a person would ask about: a change of state, and what was done. A runtime may publish it.

use acb_crds::Condition;

use crate::{
    condition::{CONFLICTING, KAFKA_AT_RISK},
    plan::{KubernetesStep, Plan, Step},
};

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

/// That something began to put data at risk, or something else than before.
pub(crate) fn of_risk(before: &[Condition], now: &[Condition]) -> Option<News> {
    new_warning(before, now, KAFKA_AT_RISK, "Check")
}

/// That someone began to change what was set right, or someone else than before.
pub(crate) fn of_conflict(before: &[Condition], now: &[Condition]) -> Option<News> {
    new_warning(before, now, CONFLICTING, "Apply")
}

fn new_warning(before: &[Condition], now: &[Condition], name: &str, action: &'static str) -> Option<News> {
    let of = |conditions: &[Condition]| conditions.iter().find(|found| found.r#type == name).cloned();
    let warned = of(now)?;
    let is_known = of(before).is_some_and(|known| known.message == warned.message);
    (!is_known).then(|| News { warning: true, reason: warned.reason, action, note: short(&warned.message) })
}

/// Sessions with PostgreSQL that were ended.
pub(crate) fn of_overlong(count: u64, seconds: u32) -> News {
    let note = format!(
        "ended {count} sessions with PostgreSQL whose transaction was open for more than {seconds} s: no hub does that, so someone uses the hub's login"
    );
    News { warning: true, reason: "OverlongSession".to_owned(), action: "EndSession", note }
}

/// What was done for a resource.
pub(crate) fn of_plan(plan: &Plan) -> Option<News> {
    // On one line: what shows events shows the first.
    let lines: Vec<String> = plan.to_string().lines().map(|line| line.trim().to_owned()).collect();
    let note = short(&lines.join("; "));
    (!plan.steps.is_empty()).then(|| News { warning: false, reason: "Applied".to_owned(), action: "Apply", note })
}

/// Credentials that took the place of others.
pub(crate) fn of_rotation(plan: &Plan) -> Option<News> {
    let made = plan.steps.iter().filter_map(|step| match step {
        Step::Kubernetes(KubernetesStep::EnsureSecret { secret, .. }) if secret.generation > 1 => Some(secret.object_name()),
        _ => None,
    });
    let made: Vec<String> = made.collect();
    let note = short(&format!("made anew: {}; what they replace is refused once nothing uses it any more", made.join(", ")));
    (!made.is_empty()).then(|| News { warning: false, reason: "Rotated".to_owned(), action: "Rotate", note })
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
