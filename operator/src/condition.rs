//! Conditions as kstatus reads them: `Ready`, `Reconciling`, `Stalled`. Whether a resource can be used, whether its spec is applied, and why not
//! are three facts, and three conditions.

use std::fmt;

use acb_crds::{Condition, common::MAX_MESSAGE, tenant::IsolationStatus};

use crate::observed::ObservedHub;

/// Whether it can be used.
pub const READY: &str = "Ready";

/// Whether every system has what the spec says.
pub const SYNCED: &str = "Synced";

/// Work is in progress.
pub const RECONCILING: &str = "Reconciling";

/// As it is written it can't be: trying again won't help.
pub const STALLED: &str = "Stalled";

/// It can be used, or was to be, and something of it needs a look.
pub const DEGRADED: &str = "Degraded";

/// Agents are refused, because the spec says so.
pub const SUSPENDED: &str = "Suspended";

/// The condition that says what of the brokers' settings puts a tenant's data at risk.
pub const KAFKA_AT_RISK: &str = "KafkaAtRisk";

/// The condition that says what others change each time that it was set right.
pub const CONFLICTING: &str = "Conflicting";

/// The condition that says that a hub waits for its turn to roll.
pub const ROLLOUT_PENDING: &str = "RolloutPending";

/// The condition that says which limits are used up, or nearly so.
pub const NEAR_LIMIT: &str = "NearLimit";

/// The condition that says whether attacks on the walls between tenants were refused.
pub const ISOLATION_VERIFIED: &str = "IsolationVerified";

/// The condition that says that nobody is under a Quota.
pub const UNUSED: &str = "Unused";

/// Why a condition is as it is. Stable: programs match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Everything is as it should be.
    Provisioned,
    /// Every system has what the spec says.
    Applied,
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
    /// No replica of the hub takes traffic.
    HubUnavailable,
    /// Some of the hub's replicas don't take traffic, and that is no rollout.
    HubDegraded,
    /// The document breaks a rule of its schema.
    InvalidSpec,
    /// A limit is above what the tier allows.
    AboveTier,
    /// Another resource had a derived name first.
    NameCollision,
    /// There is data under this name from before.
    RetainedData,
    /// The data that a Tenant asks for is not to be had.
    AdoptionRefused,
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
    /// The ServiceAccount is another agent's.
    ServiceAccountTaken,
    /// The platform does not allow the issuer.
    IssuerNotAllowed,
    /// Fields are set that nothing acts on yet.
    NotImplemented,
    /// The brokers are set in a way that can lose data, or let others see it.
    UnsafeSettings,
    /// Someone else changes what ACB sets right, each time.
    AnotherWriter,
    /// Others roll first.
    Queued,
    /// Four fifths of a limit are used.
    NearLimit,
    /// A limit is used up.
    LimitReached,
    /// Its selector means no agent.
    NoAgents,
    /// Every attack on the walls between tenants was refused, or had nothing to be tried on.
    AttacksRefused,
    /// An attack on the walls between tenants got what it wanted.
    AttackSucceeded,
    /// Attacks on the walls between tenants ended in a way that proves nothing.
    AttacksInconclusive,
    /// The walls between tenants could not be attacked.
    AttacksNotMade,
    /// There is no other tenant whose data could be reached.
    NoNeighbour,
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
    /// Converged, but what it runs has to come up first; the text says what.
    Starting(String),
    /// Something else has to be there before it can be applied; the text says what.
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

impl Outcome {
    /// Whether every system has what the spec says.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self, Self::Ready | Self::Starting(_))
    }

    /// For programs and for people.
    fn told(&self) -> (Reason, String) {
        match self {
            Self::Ready => (Reason::Provisioned, "provisioned".to_owned()),
            Self::Starting(what) | Self::Waiting(what) => (Reason::Waiting, what.clone()),
            Self::Retrying(why) => (Reason::Retrying, why.clone()),
            Self::Refused(why) => (Reason::Refused, why.clone()),
            Self::Deleting(what) => (Reason::Deleting, what.clone()),
            Self::Stalled(problems) => {
                let reason = problems.first().map_or(Reason::InvalidSpec, |problem| problem.reason);
                (reason, problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// What conditions follow from, beside how far the reconcile came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Basis<'a> {
    /// Of the spec that this is about.
    pub generation: Option<i64>,
    /// The conditions as they were.
    pub previous: &'a [Condition],
    /// Whether the spec says that agents are refused.
    pub suspended: bool,
    /// What runs for it; `None`: nothing does, or that is not known now.
    pub hub: Option<&'a ObservedHub>,
    /// Fields that are set and that nothing acts on yet.
    pub not_acted_on: &'a [String],
}

impl Basis<'_> {
    /// What `Ready` said, where it tells that the spec of this generation was applied: whoever can use the resource can go on to, whatever
    /// becomes of looking for drift.
    fn applied_before(&self) -> Option<&Condition> {
        let ready =
            self.previous.iter().find(|before| before.r#type == READY && before.observed_generation == self.generation)?;
        let tells = [Reason::Provisioned, Reason::Suspended, Reason::HubUnavailable];
        tells.iter().any(|reason| reason.to_string() == ready.reason).then_some(ready)
    }

    /// Whether the spec, as it is now, is in force.
    fn is_in_force(&self, outcome: &Outcome) -> bool {
        let before = self.applied_before().is_some();
        match outcome {
            Outcome::Ready => true,
            Outcome::Starting(_) => before || self.suspended,
            Outcome::Retrying(_) | Outcome::Refused(_) => before,
            // An Agent whose Tenant is gone can't be used; a Tenant whose namespaces were taken from the operator can.
            Outcome::Waiting(_) => before && self.hub.is_some(),
            Outcome::Stalled(_) | Outcome::Deleting(_) => false,
        }
    }

    /// `Ready` of what is in force.
    fn usable(&self, outcome: &Outcome) -> Condition {
        if self.suspended {
            return condition(READY, true, Reason::Suspended, "suspended by its spec: set suspend to false to go on");
        }
        match (self.hub, self.applied_before()) {
            (Some(hub), _) if hub.ready == 0 => condition(READY, false, Reason::HubUnavailable, &hub.lacks),
            // Nobody looked.
            (None, Some(before)) if !outcome.is_synced() => before.clone(),
            _ => condition(READY, true, Reason::Provisioned, "provisioned"),
        }
    }

    /// What of the hub is not as it should be, where that is no rollout.
    fn trouble(&self, is_in_force: bool) -> Option<Condition> {
        let hub = self.hub.filter(|hub| !hub.rolled_out && !self.suspended)?;
        if is_in_force && hub.ready > 0 {
            return (!hub.rolling).then(|| condition(DEGRADED, true, Reason::HubDegraded, &hub.lacks));
        }
        (is_in_force || !hub.rolling).then(|| condition(DEGRADED, true, Reason::HubUnavailable, &hub.lacks))
    }
}

fn condition(name: &str, holds: bool, reason: Reason, message: &str) -> Condition {
    Condition {
        r#type: name.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_string(),
        // An API server refuses a status with a longer one, and then says nothing at all.
        message: message.chars().take(MAX_MESSAGE).collect(),
        ..Condition::default()
    }
}

/// The conditions that an outcome means. `Ready` says whether the resource can be used: it changes with its hub, or with a spec that is not
/// in force yet. `Synced` says whether every system has what the spec says. The others are there only while they are true.
#[must_use]
pub fn conditions(outcome: &Outcome, basis: &Basis<'_>) -> Vec<Condition> {
    let (reason, message) = outcome.told();
    let is_in_force = basis.is_in_force(outcome);
    let synced = if outcome.is_synced() {
        condition(SYNCED, true, Reason::Applied, "every system has what the spec says")
    } else {
        condition(SYNCED, false, reason, &message)
    };
    let ready = if is_in_force { basis.usable(outcome) } else { condition(READY, false, reason, &message) };
    let mut conditions = vec![ready, synced];
    let is_under_way = match outcome {
        Outcome::Starting(_) => !basis.suspended && (!is_in_force || basis.hub.is_none_or(|hub| hub.rolling)),
        Outcome::Waiting(_) | Outcome::Retrying(_) => !is_in_force,
        Outcome::Deleting(_) => true,
        Outcome::Ready | Outcome::Refused(_) | Outcome::Stalled(_) => false,
    };
    if is_under_way {
        conditions.push(condition(RECONCILING, true, reason, &message));
    }
    match outcome {
        Outcome::Stalled(_) => conditions.push(condition(STALLED, true, reason, &message)),
        // What can be used has not failed; but someone has to do something.
        Outcome::Refused(_) if is_in_force => conditions.push(condition(DEGRADED, true, reason, &message)),
        Outcome::Refused(_) => conditions.push(condition(STALLED, true, reason, &message)),
        Outcome::Deleting(_) => {}
        _ => conditions.extend(basis.trouble(is_in_force)),
    }
    if basis.suspended && is_in_force {
        conditions.push(condition(SUSPENDED, true, Reason::Suspended, "its agents are refused"));
    }
    if !basis.not_acted_on.is_empty() {
        let message = format!("set, but nothing acts on it yet: {}", basis.not_acted_on.join(", "));
        conditions.push(condition("FieldsNotActedOn", true, Reason::NotImplemented, &message));
    }
    conditions
}

/// Whether a condition is one of those that [`conditions`] says anew each time.
#[must_use]
pub fn is_of_outcome(name: &str) -> bool {
    [READY, SYNCED, RECONCILING, STALLED, DEGRADED].contains(&name)
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

/// What is said while a hub waits to roll for the platform's sake. There only while it is true, and in the way of nothing.
#[must_use]
pub fn rollout_pending(why: Option<&str>) -> Option<Condition> {
    let why = why.map(|why| format!("the hub is to roll for a change of the platform, and waits: {why}"));
    beside(ROLLOUT_PENDING, Reason::Queued, why.as_slice())
}

/// What is said while limits are used up, or nearly so. There only while it is true, and in the way of nothing.
#[must_use]
pub fn near_limit(reached: &[String], near: &[String]) -> Option<Condition> {
    let told = |what: &str, limits: &[String]| (!limits.is_empty()).then(|| format!("{what}: {}", limits.join(", ")));
    let texts: Vec<String> = [told("used up", reached), told("used by 80 % or more", near)].into_iter().flatten().collect();
    let reason = if reached.is_empty() { Reason::NearLimit } else { Reason::LimitReached };
    beside(NEAR_LIMIT, reason, &texts)
}

/// What is said while a Quota's selector means nobody. There only while it is true, and in the way of nothing.
#[must_use]
pub fn unused() -> Condition {
    let why = "its selector means no agent: it limits nobody until one has such labels, such a name, group or type";
    condition(UNUSED, true, Reason::NoAgents, why)
}

/// What attacks on the walls between tenants found. True only where none got anything or is in doubt; how many had nothing to be tried on is said.
#[must_use]
pub fn isolation_verified(found: &IsolationStatus) -> Condition {
    let IsolationStatus { checked_at, attacks, refused, nothing, neighbours, unreached, succeeded, inconclusive, failure } =
        found;
    let named = |names: &[String]| names.join("; ");
    let against = format!("of {attacks} attacks on {} at {checked_at}", neighbours.join(", "));
    let (status, reason, message) = if !succeeded.is_empty() {
        let what =
            format!("{against} {refused} were refused, and these were not: {}; see docs/day-two.md#isolation", named(succeeded));
        ("False", Reason::AttackSucceeded, what)
    } else if let Some(failure) = failure {
        ("Unknown", Reason::AttacksNotMade, format!("the walls between tenants could not be attacked at {checked_at}: {failure}"))
    } else if neighbours.is_empty() {
        let what =
            "there is no other tenant with a hub whose walls could be attacked: a canary is one, see docs/day-two.md#isolation";
        ("Unknown", Reason::NoNeighbour, what.to_owned())
    } else if !inconclusive.is_empty() || !found.is_unbroken() {
        let what = format!("{against} {refused} were refused, and these prove nothing: {}", named(inconclusive));
        ("Unknown", Reason::AttacksInconclusive, what)
    } else {
        let doors = match unreached.as_slice() {
            [] => String::new(),
            _ => format!("; the hubs of {} could not be connected to, so that their doors were not tried", unreached.join(", ")),
        };
        let refused = match nothing {
            0 => "all were refused".to_owned(),
            _ => format!("{refused} were refused, and {nothing} had nothing to be tried on"),
        };
        ("True", Reason::AttacksRefused, format!("{against} {refused}{doors}"))
    };
    Condition { status: status.to_owned(), ..condition(ISOLATION_VERIFIED, true, reason, &message) }
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
