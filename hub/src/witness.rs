//! The witness of the audit trail, over HTTPS.

use acb_hub_core::audit::witness::Witness;
use acb_oidc::{address::Reach, https::Https, url::Url};
use async_trait::async_trait;

use crate::config::{ConfigError, WitnessConfig};

/// Where the witness takes checkpoints.
#[derive(Debug)]
pub(crate) struct HttpsWitness {
    https: Https,
    url: Url,
}

impl HttpsWitness {
    /// As far as the platform lets hubs reach for it.
    pub(crate) fn new(config: &WitnessConfig) -> Result<Self, ConfigError> {
        let read = || {
            let url = Url::issuer(&config.url)?.below("add-checkpoint")?;
            let reach = Reach::public_or(config.cidrs.iter().map(String::as_str))?;
            let authorities = Some(config.certificate_authority.as_str()).filter(|pem| !pem.is_empty());
            Ok(Self { https: Https::new(authorities, reach)?, url })
        };
        read().map_err(|problem: String| ConfigError::new("hub.json: witness", problem))
    }
}

#[async_trait]
impl Witness for HttpsWitness {
    async fn add_checkpoint(&self, body: String) -> Result<(u16, String), String> {
        let reply = self.https.submit(&self.url, body).await?;
        Ok((reply.status.as_u16(), String::from_utf8_lossy(&reply.body).into_owned()))
    }
}
