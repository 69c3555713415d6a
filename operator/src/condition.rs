//! Conditions as kstatus reads them: `Ready`, `Reconciling`, `Stalled`. What can't be mended by trying again is `Stalled`.

use std::fmt;

use acb_crds::{Condition, common::MAX_MESSAGE};

/// The condition that says what of the brokers' settings puts a tenant's data at risk.
pub const KAFKA_AT_RISK: &str = "KafkaAtRisk";

/// The condition that says what others change each time that it was set right.
pub const CONFLICTING: &str = "Conflicting";

/// Why a condition is as it is. Stable: programs match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Everything is as it should be.
    Provisioned,
    /// The plan is being applied.
    Applying,
    /// Something has to come up.
    Waiting,
    /// A step failed, and is tried again.
    Retrying,
    /// A step was refused, and trying again alone won't help.
    Refused,
    /// It is on its way out.
    Deleting,
    /// Agents are refused because the resource says so.
    Suspended,
    /// The document breaks a rule of its schema.
    InvalidSpec,
    /// A limit is above what the tier allows.
    AboveTier,
    /// Another resource had a derived name first.
    NameCollision,
    /// There is data under this name from before.
    RetainedData,
    /// The namespace is not marked as this tenant's.
    NamespaceNotOurs,
    /// The namespace is no tenant's.
    UnknownTenant,
    /// More agents than allowed.
    TooManyAgents,
    /// More context types than allowed.
    TooManyContextTypes,
    /// Partitions can only grow.
    PartitionsShrink,
    /// Nothing here can check such a credential yet.
    CredentialNotSupported,
    /// Fields are set that nothing acts on yet.
    NotImplemented,
    /// Every field that is set is acted on.
    AllActedOn,
    /// The brokers are set in a way that can lose data, or let others see it.
    UnsafeSettings,
    /// Someone else changes what ACB sets right, each time.
    AnotherWriter,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a resource can't be provisioned as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For programs.
    pub reason: Reason,
    /// Such as `spec.limits.maxAgents`.
    pub field: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(reason: Reason, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason, field: field.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// How far a reconcile came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Converged, and what it runs is ready.
    Ready,
    /// Converged, but something has to come up first; the text says what.
    Waiting(String),
    /// A step failed, and is tried again; the text says which and why.
    Retrying(String),
    /// A step was refused; the text says which, why and what to do.
    Refused(String),
    /// As it is written it can't be; never empty.
    Stalled(Vec<Problem>),
    /// It is on its way out; the text says what is left.
    Deleting(String),
}

/// The conditions that an outcome means. `suspended` and `not_acted_on` are told beside it.
#[must_use]
pub fn conditions(outcome: &Outcome, suspended: bool, not_acted_on: &[String]) -> Vec<Condition> {
    let (ready, reconciling, stalled, reason, message) = match outcome {
        Outcome::Ready if suspended => {
            (false, false, false, Reason::Suspended, "suspended by its spec: set suspend to false to go on".to_owned())
        }
        Outcome::Ready => (true, false, false, Reason::Provisioned, "provisioned".to_owned()),
        Outcome::Waiting(what) => (false, true, false, Reason::Waiting, what.clone()),
        Outcome::Retrying(why) => (false, true, false, Reason::Retrying, why.clone()),
        Outcome::Refused(why) => (false, false, true, Reason::Refused, why.clone()),
        Outcome::Deleting(what) => (false, true, false, Reason::Deleting, what.clone()),
        Outcome::Stalled(problems) => {
            let reason = problems.first().map_or(Reason::InvalidSpec, |problem| problem.reason);
            let message = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            (false, false, true, reason, message)
        }
    };
    let condition = |name: &str, holds: bool, reason: Reason, message: &str| Condition {
        r#type: name.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_string(),
        // An API server refuses a status with a longer one, and then says nothing at all.
        message: message.chars().take(MAX_MESSAGE).collect(),
        ..Condition::default()
    };
    let mut conditions = vec![condition("Ready", ready, reason, &message)];
    // kstatus: these two are there only while they are true.
    if reconciling {
        conditions.push(condition("Reconciling", true, reason, &message));
    }
    if stalled {
        conditions.push(condition("Stalled", true, reason, &message));
    }
    if !not_acted_on.is_empty() {
        let message = format!("set, but nothing acts on it yet: {}", not_acted_on.join(", "));
        conditions.push(condition("FieldsNotActedOn", true, Reason::NotImplemented, &message));
    }
    conditions
}

/// What is said while the brokers' settings put data at risk. There only while it is true, and in the way of nothing.
#[must_use]
pub fn at_risk(risks: &[String]) -> Option<Condition> {
    beside(KAFKA_AT_RISK, Reason::UnsafeSettings, risks)
}

/// What is said while others change what was set right. There only while it is true, and in the way of nothing.
#[must_use]
pub fn conflicting(conflicts: &[String]) -> Option<Condition> {
    beside(CONFLICTING, Reason::AnotherWriter, conflicts)
}

fn beside(name: &str, reason: Reason, texts: &[String]) -> Option<Condition> {
    (!texts.is_empty()).then(|| Condition {
        r#type: name.to_owned(),
        status: "True".to_owned(),
        reason: reason.to_string(),
        message: texts.join("; "),
        ..Condition::default()
    })
}

/// Gives new conditions their generation and times: a time moves only when the status of its condition does.
#[must_use]
pub fn merge(previous: &[Condition], mut wanted: Vec<Condition>, generation: Option<i64>, now: &str) -> Vec<Condition> {
    for condition in &mut wanted {
        condition.observed_generation = generation;
        let before = previous.iter().find(|before| before.r#type == condition.r#type && before.status == condition.status);
        condition.last_transition_time = before.map_or_else(|| now.to_owned(), |before| before.last_transition_time.clone());
    }
    wanted
}
