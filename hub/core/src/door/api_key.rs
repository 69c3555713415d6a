//! API keys: `acb_<prefix>_<secret>`. A key is never stored, only an HMAC that proves it.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use time::OffsetDateTime;

use crate::{
    directory::agent::AgentId,
    fault::Fault,
    kit::{hmac::keyed, random::random},
};

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

/// What is stored of a key that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// What is no secret of it.
    pub prefix: String,
    /// See [`api_key_hmac`].
    pub hmac: [u8; 32],
    /// The prefix of the key that it ends with.
    pub by_key: String,
}

/// A key that was just made.
pub(crate) struct FreshKey {
    /// All of it. To be shown once.
    pub(crate) text: String,
    /// What is kept of it.
    pub(crate) stored: NewKey,
}

/// Makes a key, as the operator makes them: 12 characters that are no secret, and 256 bits that are.
pub(crate) fn new_api_key(pepper: &[u8], by_key: &str) -> Result<FreshKey, Fault> {
    let (prefix, secret) = (hex::encode(random::<6>()?), BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?));
    let text = format!("acb_{prefix}_{secret}");
    let hmac = api_key_hmac(pepper, &text);
    Ok(FreshKey { text, stored: NewKey { prefix, hmac, by_key: by_key.to_owned() } })
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
    fn keys_that_are_made_are_keys_and_each_is_another() {
        let (one, two) = (new_api_key(b"pepper", "k1").unwrap(), new_api_key(b"pepper", "k1").unwrap());
        assert_eq!(key_prefix(&one.text), Some(one.stored.prefix.as_str()));
        assert_eq!((one.stored.prefix.len(), one.text.len()), (12, 4 + 12 + 1 + 43));
        assert_eq!(one.stored.hmac, api_key_hmac(b"pepper", &one.text));
        assert!(one.text != two.text && one.stored.prefix != two.stored.prefix);
    }

    #[test]
    fn only_keys_of_our_form_have_a_prefix() {
        assert_eq!(key_prefix("acb_0a1b_se_cret"), Some("0a1b"));
        for bad in ["", "acb_", "acb__x", "acb_a_", "acb_a", "xyz_a_b", "acb_a b_c", &format!("acb_a_{}", "x".repeat(300))] {
            assert_eq!(key_prefix(bad), None, "{bad}");
        }
    }
}
