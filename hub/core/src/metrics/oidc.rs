//! What a hub counts about the OpenID Connect issuers that its tenant trusts.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfIssuer {
    issuer: String,
}

/// Gauges and counters of issuers. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct OidcMetrics {
    fetched_at: Family<OfIssuer, Gauge>,
    failures: Family<OfIssuer, Counter>,
}

impl OidcMetrics {
    /// Makes them visible in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "When this replica got the keys of an OpenID Connect issuer last, as Unix time";
        registry.register("acb_oidc_keys_fetched_timestamp_seconds", help, self.fetched_at.clone());
        let help = "Times that an OpenID Connect issuer did not say which keys it has";
        registry.register("acb_oidc_fetch_failures", help, self.failures.clone());
    }

    /// An issuer said which keys it has.
    pub(crate) fn fetched(&self, issuer: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.fetched_at.get_or_create(&OfIssuer { issuer: issuer.to_owned() }).set(i64::try_from(now).unwrap_or_default());
    }

    /// An issuer did not.
    pub(crate) fn failed(&self, issuer: &str) {
        self.failures.get_or_create(&OfIssuer { issuer: issuer.to_owned() }).inc();
    }
}
