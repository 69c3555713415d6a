//! The turns of logins by OpenID Connect issuers. Each issuer has its own: who waits for one that is slow holds up nobody of another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::login_queue::{AT_ONE_TIME, LoginQueue, MAX_WAITING, Places};
use crate::directory::{snapshot::Snapshot, trusted_issuer::TrustedIssuer};

/// Those of one issuer.
#[derive(Debug)]
pub(super) struct OfIssuer {
    /// Of tokens that prove an agent by what is known.
    pub(super) known: LoginQueue,
    /// Of all others: they share one look at the directory, and one question to the issuer.
    pub(super) unknown: Places,
}

impl Default for OfIssuer {
    fn default() -> Self {
        Self { known: LoginQueue::new(AT_ONE_TIME, MAX_WAITING), unknown: Places::new(MAX_WAITING) }
    }
}

/// Those of all issuers that the tenant trusts: there are no more than a Tenant may name.
#[derive(Debug, Default)]
pub(super) struct IssuerQueues {
    queues: Mutex<HashMap<String, Arc<OfIssuer>>>,
}

impl IssuerQueues {
    /// Those of this issuer. Those of issuers that the tenant trusts no more are let go of.
    pub(super) fn of(&self, trusted: &TrustedIssuer, snapshot: &Snapshot) -> Arc<OfIssuer> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|url, _| snapshot.trusted_issuers.contains_key(url));
        Arc::clone(queues.entry(trusted.terms().url.clone()).or_default())
    }
}
