//! OpenID Connect issuers, asked for their keys.

use acb_hub_core::{directory::trusted_issuer::IssuerTerms, door::issuer_keys::KeySource};
use acb_oidc::{address::Reach, discovery, https::Https};
use async_trait::async_trait;
use serde_json::Value;

/// Asks them, as far as their terms reach.
#[derive(Debug)]
pub(crate) struct Issuers;

#[async_trait]
impl KeySource for Issuers {
    async fn keys(&self, issuer: &IssuerTerms) -> Result<Value, String> {
        let reach = Reach::public_or(issuer.networks.iter().map(String::as_str))?;
        // Made each time: it is asked every few minutes, and its authorities may be others by then.
        let https = Https::new(issuer.authorities.as_deref(), reach)?;
        discovery::keys(&https, &issuer.url).await
    }
}
