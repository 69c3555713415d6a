//! When an agent's API key is replaced, and how long the one before still works. Pure.

use acb_crds::Agent;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    World,
    rotation_policy::{overlap, policy},
    validate::ValidatedAgent,
};
use crate::{
    plan::{ReplacedKey, SecretRef},
    tenant::newest,
};

fn age(made: &str, now: OffsetDateTime) -> Option<Duration> {
    Some(now - OffsetDateTime::parse(made, &Rfc3339).ok()?)
}

fn is_older(made: &str, now: OffsetDateTime, seconds: u64) -> bool {
    let bound = Duration::seconds(i64::try_from(seconds).unwrap_or(i64::MAX));
    // One of unknown age is left alone.
    age(made, now).is_some_and(|age| age >= bound)
}

/// Whether a key that was made then (RFC 3339) is to be replaced by the Agent's policy.
pub(super) fn is_old(agent: &Agent, made: &str, now: OffsetDateTime) -> bool {
    policy(&agent.spec).is_some_and(|rotation| is_older(made, now, rotation.every.seconds()))
}

/// Whether what a key that was made then replaced works no more.
pub(super) fn has_overlap_ended(agent: &Agent, made: &str, now: OffsetDateTime) -> bool {
    is_older(made, now, overlap(&agent.spec))
}

/// The Secret that the key is to be in: the newest that is there, or the next where that one is old, or does not answer what is asked for.
#[must_use]
pub fn secret(agent: &ValidatedAgent, world: &World) -> SecretRef {
    let newest = newest(&world.secrets, &agent.namespace, &agent.name.api_key_secret());
    let is_asked = agent.rotate.is_some() && world.asked.get(&newest) != agent.rotate.as_ref();
    let next = world.secrets.contains(&newest) && (is_asked || world.is_key_old);
    SecretRef { generation: newest.generation.saturating_add(u64::from(next)), ..newest }
}

/// The key before the one in `secret`, and how long it still works. Where its Secret is gone, somebody removed it: that one must not live on.
pub(super) fn before(agent: &ValidatedAgent, world: &World, secret: &SecretRef) -> Option<ReplacedKey> {
    let secret = secret.before().filter(|before| world.secrets.contains(before))?;
    Some(ReplacedKey { secret, overlap_seconds: overlap(&agent.spec) })
}
