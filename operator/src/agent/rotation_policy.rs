//! What an Agent says of when its keys are replaced. Pure.

use acb_crds::{AgentSpec, Retention, agent::Rotation};

use crate::condition::{Problem, Reason};

/// Where nothing else is said: a day.
const DEFAULT_OVERLAP_SECONDS: u64 = 24 * 60 * 60;
/// Keys are not replaced more often: each is a new Secret, and a new row that every hub reads.
const LEAST_SECONDS: u64 = 60 * 60;

pub(super) fn policy(spec: &AgentSpec) -> Option<&Rotation> {
    spec.credentials.as_ref()?.rotation.as_ref()
}

/// How long a key that is replaced still works, by the spec. Where nothing is said, never longer than until the next one is replaced.
pub(super) fn overlap(spec: &AgentSpec) -> u64 {
    let policy = policy(spec);
    let most = policy.map_or(u64::MAX, |rotation| rotation.every.seconds());
    policy.and_then(|rotation| rotation.overlap).map_or(DEFAULT_OVERLAP_SECONDS.min(most), Retention::seconds)
}

/// What is wrong with the policy. Two keys of an agent work at a time, and a third would end the first one early, without a word.
pub(super) fn problem(spec: &AgentSpec) -> Option<Problem> {
    let rotation = policy(spec)?;
    let invalid = |field: &str, message: String| {
        Some(Problem::new(Reason::InvalidSpec, format!("spec.credentials.rotation.{field}"), message))
    };
    let every = rotation.every.seconds();
    if every < LEAST_SECONDS {
        return invalid(
            "every",
            format!("{} is too short: an agent's pod needs its time to take up a new key; say at least 1h", rotation.every),
        );
    }
    let overlap = rotation.overlap.filter(|overlap| overlap.seconds() > every)?;
    let message = format!(
        "a key that was replaced would have to work for {overlap}, and is replaced itself after {}: say no more than `every`",
        rotation.every
    );
    invalid("overlap", message)
}
