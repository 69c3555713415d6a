//! API keys: `acb_<prefix>_<secret>`. A key is never stored, only an HMAC that proves it.

use time::OffsetDateTime;

use crate::{directory::agent::AgentId, kit::hmac::keyed};

/// Longer credentials are not looked at.
pub(crate) const MAX_CREDENTIAL_BYTES: usize = 256;

/// HMAC-SHA-256 of a whole API key (`acb_<prefix>_<secret>`) under the tenant's pepper: what the operator projects.
#[must_use]
pub fn api_key_hmac(pepper: &[u8], api_key: &str) -> [u8; 32] {
    keyed(pepper, api_key.as_bytes())
}

/// What the operator projected of an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Whose it is.
    pub agent: AgentId,
    /// See [`api_key_hmac`].
    pub hmac: [u8; 32],
    /// Until when; `None`: until it is removed.
    pub expires_at: Option<OffsetDateTime>,
}

/// What is no secret of an API key `acb_<prefix>_<secret>`. `None` where it is none.
#[must_use]
pub fn key_prefix(api_key: &str) -> Option<&str> {
    if api_key.len() > MAX_CREDENTIAL_BYTES {
        return None;
    }
    let (prefix, secret) = api_key.strip_prefix("acb_")?.split_once('_')?;
    (!prefix.is_empty() && !secret.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_of_our_form_have_a_prefix() {
        assert_eq!(key_prefix("acb_0a1b_se_cret"), Some("0a1b"));
        for bad in ["", "acb_", "acb__x", "acb_a_", "acb_a", "xyz_a_b", "acb_a b_c", &format!("acb_a_{}", "x".repeat(300))] {
            assert_eq!(key_prefix(bad), None, "{bad}");
        }
    }
}
