//! The witness of the audit trail, over HTTPS.

use acb_hub_core::audit::witness::Witness;
use acb_oidc::{address::Reach, https::Https, url::Url};
use async_trait::async_trait;

use crate::config::WitnessConfig;

/// Where the witness takes checkpoints. What is wrong with its configuration is told as if it were away: nothing waits for it.
#[derive(Debug)]
pub(crate) struct HttpsWitness(WitnessConfig);

impl HttpsWitness {
    pub(crate) fn new(config: WitnessConfig) -> Self {
        Self(config)
    }
}

#[async_trait]
impl Witness for HttpsWitness {
    async fn add_checkpoint(&self, body: String) -> Result<(u16, String), String> {
        let WitnessConfig { url, cidrs, certificate_authority } = &self.0;
        let url = Url::issuer(url)?.below("add-checkpoint")?;
        // As far as the platform lets hubs reach for it.
        let reach = Reach::public_or(cidrs.iter().map(String::as_str))?;
        let authorities = Some(certificate_authority.as_str()).filter(|pem| !pem.is_empty());
        // Made each time: it is asked once a minute, and the system's authorities may be others by then.
        let reply = Https::new(authorities, reach)?.submit(&url, body).await?;
        Ok((reply.status.as_u16(), String::from_utf8_lossy(&reply.body).into_owned()))
    }
}
