//! What a person would ask about: a change of state, and what was done. A runtime may publish it.

use acb_crds::{Condition, names::TenantId};

use crate::{
    condition::{CONFLICTING, DEGRADED, ISOLATION_VERIFIED, KAFKA_AT_RISK, NEAR_LIMIT, READY, Reason, STALLED, SYNCED},
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

/// Events of a Tenant are in the namespace `default`, where more may read than may read the Tenant: which id has which name they don't say.
fn without_ids(text: &str) -> String {
    let words = text.split_inclusive(|character: char| !character.is_ascii_alphanumeric());
    let shown = words.map(|part| {
        let word = part.trim_end_matches(|character: char| !character.is_ascii_alphanumeric());
        if TenantId::from_hex(word).is_some() { format!("<id>{}", &part[word.len()..]) } else { part.to_owned() }
    });
    shown.collect()
}

fn short(text: &str) -> String {
    let text = &without_ids(text);
    if text.len() <= NOTE_BYTES {
        return text.to_owned();
    }
    let end = (0..=NOTE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

fn of<'a>(conditions: &'a [Condition], name: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == name)
}

/// Whether a condition has another status or another reason than before. A message alone changes too often to be news.
fn is_new(before: &[Condition], now: &Condition) -> bool {
    of(before, &now.r#type).is_none_or(|before| before.reason != now.reason || before.status != now.status)
}

/// Another reason of `Ready`.
pub(crate) fn of_conditions(before: &[Condition], now: &[Condition]) -> Option<News> {
    let ready = of(now, READY).filter(|ready| is_new(before, ready))?;
    let warning = of(now, STALLED).is_some() || [Reason::Retrying, Reason::HubUnavailable].iter().any(|bad| is_for(ready, *bad));
    Some(news(ready, warning))
}

/// That the spec is no longer known to be applied, or is again, where `Ready` does not tell.
pub(crate) fn of_sync(before: &[Condition], now: &[Condition]) -> Option<News> {
    let synced = of(now, SYNCED).filter(|synced| is_new(before, synced))?;
    let is_told = of(now, READY).is_some_and(|ready| is_new(before, ready));
    // The first time it is no news that nothing is wrong.
    let is_first = of(before, SYNCED).is_none() && synced.status == "True";
    (!is_told && !is_first).then(|| news(synced, synced.status != "True"))
}

/// That something of what can be used began to need a look, where nothing else tells.
pub(crate) fn of_trouble(before: &[Condition], now: &[Condition]) -> Option<News> {
    let degraded = of(now, DEGRADED).filter(|degraded| is_new(before, degraded))?;
    let is_told = [READY, SYNCED].iter().any(|name| of(now, name).is_some_and(|told| told.reason == degraded.reason));
    (!is_told).then(|| news(degraded, true))
}

fn is_for(condition: &Condition, reason: Reason) -> bool {
    condition.reason == reason.to_string()
}

fn news(of: &Condition, warning: bool) -> News {
    News { warning, reason: of.reason.clone(), action: "Reconcile", note: short(&of.message) }
}

/// That something began to put data at risk, or something else than before.
pub(crate) fn of_risk(before: &[Condition], now: &[Condition]) -> Option<News> {
    new_warning(before, now, KAFKA_AT_RISK, "Check")
}

/// That someone began to change what was set right, or someone else than before.
pub(crate) fn of_conflict(before: &[Condition], now: &[Condition]) -> Option<News> {
    new_warning(before, now, CONFLICTING, "Apply")
}

/// That limits are used up, or nearly so, and others than before.
pub(crate) fn of_limits(before: &[Condition], now: &[Condition]) -> Option<News> {
    new_warning(before, now, NEAR_LIMIT, "Check")
}

/// That attacks on the walls between tenants ended otherwise than before: what got through is a warning, and what proves nothing.
pub(crate) fn of_isolation(before: &[Condition], now: &[Condition]) -> Option<News> {
    let verified = of(now, ISOLATION_VERIFIED).filter(|verified| is_new(before, verified))?;
    let warning = verified.status != "True";
    Some(News { warning, reason: verified.reason.clone(), action: "Attack", note: short(&verified.message) })
}

fn new_warning(before: &[Condition], now: &[Condition], name: &str, action: &'static str) -> Option<News> {
    let warned = of(now, name)?;
    let is_known = of(before, name).is_some_and(|known| known.message == warned.message);
    (!is_known).then(|| News { warning: true, reason: warned.reason.clone(), action, note: short(&warned.message) })
}

/// Sessions with PostgreSQL that were ended.
pub(crate) fn of_overlong(count: u64, seconds: u32) -> News {
    let note = format!(
        "ended {count} sessions with PostgreSQL whose transaction was open for more than {seconds} s, or had a table locked: no hub does that, so someone uses the hub's login"
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
        Ending::WithItsTenant => {
            let note = "let go: its tenant is gone, and what it had stays with that tenant's data, or went with it";
            (false, "Released", note.to_owned())
        }
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
    use crate::{
        condition::{self, Basis, Outcome},
        observed::ObservedHub,
        plan::{KafkaStep, PostgresStep, SecretContent, SecretRef},
        reconcile::deletion::Ending,
    };

    fn after(previous: &[Condition], outcome: &Outcome, hub: &ObservedHub) -> Vec<Condition> {
        let basis = Basis { previous, hub: Some(hub), ..Basis::default() };
        condition::conditions(outcome, &basis)
    }

    #[test]
    fn only_another_reason_is_news() {
        let hub = ObservedHub { replicas: 2, ready: 2, rolled_out: true, ..ObservedHub::default() };
        let of = |previous: &[Condition], outcome: &Outcome| after(previous, outcome, &hub);
        let waiting = of(&[], &Outcome::Waiting("1 of 2".into()));
        assert_eq!(of_conditions(&waiting, &of(&waiting, &Outcome::Waiting("2 of 2".into()))), None);
        let ready = of(&waiting, &Outcome::Ready);
        assert_eq!(of_conditions(&waiting, &ready).unwrap().reason, "Provisioned");
        assert_eq!((of_sync(&waiting, &ready), of_sync(&[], &ready)), (None, None), "told by Ready");
        // Looking for drift fails: whoever uses it notices nothing.
        let away = of(&ready, &Outcome::Retrying("PostgreSQL".into()));
        let told = of_sync(&ready, &away).unwrap();
        assert!(of_conditions(&ready, &away).is_none() && told.warning && told.reason == "Retrying");
        let again = of_sync(&away, &of(&away, &Outcome::Ready)).unwrap();
        assert!(!again.warning && again.reason == "Applied", "{again:?}");
        assert!(of_conditions(&[], &of(&[], &Outcome::Retrying("PostgreSQL".into()))).unwrap().warning, "not provisioned yet");
    }

    #[test]
    fn a_hub_that_lost_replicas_is_told_once() {
        let whole = ObservedHub { replicas: 2, ready: 2, rolled_out: true, ..ObservedHub::default() };
        let half = ObservedHub { ready: 1, rolled_out: false, lacks: "1 of 2".into(), ..whole.clone() };
        let none = ObservedHub { ready: 0, ..half.clone() };
        let ready = after(&[], &Outcome::Ready, &whole);
        let (starting, fewer) = (Outcome::Starting("1 of 2".into()), Outcome::Starting("0 of 2".into()));
        let degraded = after(&ready, &starting, &half);
        assert_eq!(of_trouble(&ready, &degraded).unwrap().reason, "HubDegraded");
        assert_eq!(of_conditions(&ready, &degraded), None);
        let gone = after(&degraded, &fewer, &none);
        assert!(of_conditions(&degraded, &gone).unwrap().warning && of_trouble(&degraded, &gone).is_none());
        let back = after(&gone, &Outcome::Ready, &whole);
        assert_eq!(of_conditions(&gone, &back).unwrap().reason, "Provisioned");
    }

    #[test]
    fn an_event_ties_no_name_to_an_id() {
        const ID: &str = "615a2211a0177e561b3c";
        let authority = |generation| SecretRef { namespace: "acb-system".into(), name: format!("ca-{ID}"), generation };
        let secret = |generation| {
            let content = SecretContent::CertificateAuthority { common_name: "acme".into() };
            Step::Kubernetes(KubernetesStep::EnsureSecret { secret: authority(generation), content, asked: None })
        };
        let login = PostgresStep::EnsureLogin { tenant_id: ID.to_owned(), secret: authority(1), connection_limit: 14 };
        let user = KafkaStep::RemoveUser { username: format!("acb_t_{ID}") };
        let plan = Plan { steps: vec![secret(2), Step::Postgres(login), Step::Kafka(user)] };
        let applied = of_plan(&plan).unwrap().note;
        assert!(applied.contains("+ postgres login acb_t_<id> (password in acb-system/ca-<id>-1, 14 connections)"), "{applied}");
        let rotated = of_rotation(&plan).unwrap().note;
        let left = of_ending(&Ending::LeftBehind(format!("login of tenant {ID}: away"))).note;
        let failed = after(&[], &Outcome::Retrying(format!("reading tenant {ID}")), &ObservedHub::default());
        let failed = of_conditions(&[], &failed).unwrap().note;
        for note in [applied, rotated, left, failed] {
            assert!(note.contains("<id>") && !note.contains(ID), "{note}");
        }
        assert_eq!(
            short("acb-acme/a-1, 615a2211a0177e561b3c0, ä"),
            "acb-acme/a-1, 615a2211a0177e561b3c0, ä",
            "what is none stays"
        );
    }

    #[test]
    fn a_note_has_a_bound_and_stays_text() {
        assert!(short(&"ä".repeat(3000)).len() <= NOTE_BYTES + '…'.len_utf8());
    }
}
