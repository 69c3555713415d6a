//! Drives the pipeline for one tenancy at a time, the same on a cluster and on one machine. What differs between the two is behind
//! [`Runtime`](runtime::Runtime).

pub(crate) mod deletion;
pub(crate) mod jobs;
pub(crate) mod last_sync;
pub(crate) mod news;
pub(crate) mod rollouts;
pub(crate) mod runtime;
pub(crate) mod schedule;
pub(crate) mod tenancies;
#[cfg(test)]
mod tests;
mod usages;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Now, as Kubernetes writes times.
#[must_use]
pub(crate) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}

/// For waits that should not all end at once; in 0..1.
pub(crate) fn jitter() -> f64 {
    let mut byte = [127];
    // Without a random number every retry comes after the same wait, which is good enough.
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
