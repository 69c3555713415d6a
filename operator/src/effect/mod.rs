//! Effects apply one step of a plan to one system. Each is idempotent: it may be repeated after a crash anywhere.

pub mod act;
pub(crate) mod certificates;
#[cfg(test)]
pub(crate) mod conformance;
pub mod fence;
pub mod kafka;
pub mod kafka_access;
mod kafka_acls;
pub mod kafka_announce;
mod kafka_configs;
mod kafka_durability;
mod kafka_everybody;
pub mod kafka_inventory;
pub mod kafka_observe;
mod kafka_partitions;
mod kafka_quota;
pub mod kafka_settings;
pub mod kafka_shared;
mod kafka_snapshot;
mod key_material;
mod key_rotation;
pub mod kubernetes;
pub mod postgres;
mod postgres_acts;
pub mod postgres_excess;
pub mod postgres_inventory;
pub mod postgres_observe;
mod postgres_removal;
mod postgres_rows;
mod postgres_topics;
pub mod postgres_usage;
pub mod seal;
pub mod secret;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::plan::SecretRef;

/// Why a step could not be applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EffectError {
    /// The system does not answer, or not now. Worth a retry.
    #[error("{system} is unavailable: {detail}")]
    Unavailable {
        /// Such as `PostgreSQL at 127.0.0.1:5432`.
        system: String,
        /// What was tried, and what came back.
        detail: String,
    },
    /// The system answered, and said no. Retrying alone does not mend it.
    #[error("{system} refused: {detail}")]
    Refused {
        /// Such as `Kafka`.
        system: String,
        /// What was asked, and what to do.
        detail: String,
    },
    /// A namespace in which this operator may not act yet: what allows it is still to be made there, or not known everywhere.
    #[error("waiting for the right to act in namespace {namespace}, which RoleBinding acb-operator gives: {detail}")]
    Closed {
        /// Which.
        namespace: String,
        /// What was asked, and what came back.
        detail: String,
    },
    /// A Secret that a step names is not there.
    #[error("Secret {0} is missing")]
    MissingSecret(SecretRef),
    /// A Secret that a step names was not made by the operator, and is never used.
    #[error("Secret {0} was not made by the operator, and is not used: delete it, and the operator makes one of this name")]
    ForeignSecret(SecretRef),
    /// A Secret that a step names lacks a key, or holds something else there.
    #[error("Secret {secret} has no usable {key:?}: {detail}")]
    BadSecret {
        /// Which.
        secret: SecretRef,
        /// Which key.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl EffectError {
    /// Does not answer, or not now.
    pub fn unavailable(system: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::Unavailable { system: system.into(), detail: detail.to_string() }
    }

    /// Answered, and said no.
    pub fn refused(system: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self::Refused { system: system.into(), detail: detail.to_string() }
    }

    /// Whether the same step may succeed later without anyone's doing.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Closed { .. } | Self::MissingSecret(_))
    }
}

/// What is in a Secret. Debug names its keys and never shows a value.
#[derive(Clone, Default)]
pub struct SecretData {
    entries: BTreeMap<String, Zeroizing<Vec<u8>>>,
    /// What shows that the operator made it; see [`seal`].
    seal: Option<String>,
}

impl SecretData {
    /// Nothing in it yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more entry.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.entries.insert(key.to_owned(), Zeroizing::new(value.into()));
        self
    }

    /// With the seal that is written beside it.
    #[must_use]
    pub fn with_seal(mut self, seal: impl Into<String>) -> Self {
        self.seal = Some(seal.into());
        self
    }

    /// The seal that is written beside it.
    #[must_use]
    pub fn seal(&self) -> Option<&str> {
        self.seal.as_deref()
    }

    /// The bytes under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(|value| value.as_slice())
    }

    /// Every entry, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }

    /// The bytes under a key that must be there; `of` is only for the error.
    pub fn bytes(&self, of: &SecretRef, key: &str) -> Result<&[u8], EffectError> {
        self.get(key).ok_or_else(|| EffectError::BadSecret {
            secret: of.clone(),
            key: key.to_owned(),
            detail: "the key is missing".to_owned(),
        })
    }

    /// The text under a key that must be there; `of` is only for the error.
    pub fn text(&self, of: &SecretRef, key: &str) -> Result<&str, EffectError> {
        std::str::from_utf8(self.bytes(of, key)?).map_err(|_| EffectError::BadSecret {
            secret: of.clone(),
            key: key.to_owned(),
            detail: "it is not UTF-8".to_owned(),
        })
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.entries.keys()).finish()
    }
}

/// Reads Secrets for the effects that need what is in them.
#[async_trait]
pub trait SecretReader: Send + Sync {
    /// The content of a Secret; [`EffectError::MissingSecret`] where it is not there.
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError>;
}
