//! The turns of logins by OpenID Connect issuers. Each issuer has its own: who waits for one that is slow holds up nobody of another.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::login_queue::{AT_ONE_TIME, LoginQueue, MAX_UNKNOWN_WAITING, MAX_WAITING};
use crate::directory::{snapshot::Snapshot, trusted_issuer::TrustedIssuer};

/// Those of one issuer.
#[derive(Debug)]
pub(super) struct OfIssuer {
    /// Of tokens that prove an agent by what is known.
    pub(super) known: LoginQueue,
    /// Of all others.
    pub(super) unknown: LoginQueue,
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
        let made = || {
            let (known, unknown) = (LoginQueue::new(AT_ONE_TIME, MAX_WAITING), LoginQueue::new(1, MAX_UNKNOWN_WAITING));
            Arc::new(OfIssuer { known, unknown })
        };
        Arc::clone(queues.entry(trusted.terms().url.clone()).or_insert_with(made))
    }
}
