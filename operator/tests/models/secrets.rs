//! The Secrets of the model of Kubernetes, with something in them.

use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

use acb_operator::{
    effect::{EffectError, SecretData, SecretReader, seal::seal},
    plan::SecretRef,
};
use async_trait::async_trait;

use crate::kubernetes::{Kubernetes, Secret};

#[derive(Default)]
pub(crate) struct Secrets {
    kubernetes: Mutex<Kubernetes>,
    made: AtomicU64,
}

pub(crate) fn secret(namespace: &str, name: &str, generation: u64) -> SecretRef {
    SecretRef { namespace: namespace.to_owned(), name: name.to_owned(), generation }
}

/// Which seals the keys of a namespace.
pub(crate) fn authority(namespace: &str) -> SecretRef {
    secret("acb-system", &format!("ca-{namespace}"), 1)
}

pub(crate) fn password(found: &Secret) -> String {
    format!("password {}", found.serial)
}

pub(crate) fn api_key(serial: u64) -> String {
    format!("acb_{serial:0>12}_{serial:a>43}")
}

pub(crate) fn pepper(pepper: u64) -> Vec<u8> {
    pepper.to_be_bytes().repeat(4)
}

impl Secrets {
    /// So many were made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    pub(crate) fn kubernetes(&self) -> MutexGuard<'_, Kubernetes> {
        self.kubernetes.lock().unwrap()
    }

    /// Makes one, or takes it away.
    pub(crate) fn toggle(&self, secret: &SecretRef) {
        let mut kubernetes = self.kubernetes();
        if kubernetes.secrets.remove(secret).is_some() {
            return;
        }
        let serial = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        kubernetes.secrets.insert(secret.clone(), Secret { serial, pepper: serial, asked: None });
    }
}

#[async_trait]
impl SecretReader for Secrets {
    async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
        let found = self.kubernetes().secret(secret)?.clone();
        let data = SecretData::new()
            .with("password", password(&found))
            .with("api-key", api_key(found.serial))
            .with("pepper", pepper(found.pepper))
            .with("ca.key", format!("the key of {}", found.serial));
        let authority = authority(&secret.namespace);
        let Ok(ca) = self.kubernetes().secret(&authority).map(|ca| format!("the key of {}", ca.serial)) else { return Ok(data) };
        seal(secret, data, &authority, &SecretData::new().with("ca.key", ca))
    }
}
