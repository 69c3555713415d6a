//! Which Secrets with API keys the operator made. Whoever may create Secrets in a tenant's namespace could put a key of their own under
//! the name of an agent that is still to come, labels and all. So each key is sealed when it is made: the seal is an HMAC under the
//! private key of the tenant's authority, which is in the operator's namespace, and a Secret without a valid one is never used.

use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{EffectError, SecretData, SecretReader};
use crate::plan::SecretRef;

/// The label of what the operator makes, and its value.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "acb-operator");
/// The annotation with the seal.
pub const SEAL: &str = "acb.dev/seal";
/// What is sealed with the same key for another purpose must never be taken for this.
const PURPOSE: &[u8] = b"acb.dev/seal of an API key, 1";
/// Letters and digits of the part of an API key that names it.
const PREFIX_CHARS: usize = 12;
/// Of its secret part: 256 bits in base64url.
const KEY_CHARS: usize = 43;

fn mac(authority: &[u8], secret: &SecretRef, key: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(authority).ok()?;
    for part in [PURPOSE, secret.namespace.as_bytes(), secret.object_name().as_bytes(), &Sha256::digest(key)] {
        // With its length, so that no two lists of parts read alike.
        mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        mac.update(part);
    }
    Some(mac)
}

/// Seals a new API key; `authority` is the Secret of the tenant's authority.
///
/// # Errors
/// Where the authority can't be read, or there is no key to seal.
pub(super) async fn sealed(
    secret: &SecretRef,
    data: SecretData,
    authority: &SecretRef,
    secrets: &dyn SecretReader,
) -> Result<SecretData, EffectError> {
    let ca = secrets.read(authority).await?;
    seal(secret, data, authority, &ca)
}

/// The same, with what is in the Secret of the authority.
///
/// # Errors
/// Where there is no key to seal, or nothing to seal it with.
pub fn seal(secret: &SecretRef, data: SecretData, authority: &SecretRef, ca: &SecretData) -> Result<SecretData, EffectError> {
    let key = data.bytes(secret, "api-key")?;
    let mac = mac(ca.bytes(authority, "ca.key")?, secret, key)
        .ok_or_else(|| EffectError::refused("the operator", format!("{authority} has no key that could seal {secret}")))?;
    Ok(data.with_seal(hex::encode(mac.finalize().into_bytes())))
}

/// Fails for a Secret that holds no API key which the operator made; `authority` is the Secret of the tenant's authority.
///
/// # Errors
/// [`EffectError::ForeignSecret`] for one that it did not make; what could not be read.
pub async fn check(
    secret: &SecretRef,
    data: &SecretData,
    authority: &SecretRef,
    secrets: &dyn SecretReader,
) -> Result<(), EffectError> {
    let ca = secrets.read(authority).await?;
    let foreign = || EffectError::ForeignSecret(secret.clone());
    let key = data.text(secret, "api-key").map_err(|_| foreign())?;
    let seal = data.seal().and_then(|seal| hex::decode(seal).ok()).ok_or_else(foreign)?;
    let mac = mac(ca.bytes(authority, "ca.key")?, secret, key.as_bytes()).ok_or_else(foreign)?;
    let is_sealed = mac.verify_slice(&seal).is_ok();
    if is_sealed && is_api_key(key) { Ok(()) } else { Err(foreign()) }
}

/// Whether a text has the form and the length of the API keys that the operator makes.
#[must_use]
pub fn is_api_key(text: &str) -> bool {
    let Some((prefix, key)) = text.strip_prefix("acb_").and_then(|rest| rest.split_once('_')) else { return false };
    let is_key = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    prefix.len() == PREFIX_CHARS
        && key.len() == KEY_CHARS
        && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && key.bytes().all(is_key)
}

/// Whether the operator labelled an object as its own.
pub(super) fn is_labelled(object: &Value) -> bool {
    let label = object.get("metadata").and_then(|metadata| metadata.get("labels")?.get(MANAGED_BY.0)?.as_str());
    label == Some(MANAGED_BY.1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    const KEY: &str = "acb_0123456789ab_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-_";

    fn secret(namespace: &str, name: &str, generation: u64) -> SecretRef {
        SecretRef { namespace: namespace.into(), name: name.into(), generation }
    }

    struct Authority(&'static str);

    #[async_trait::async_trait]
    impl SecretReader for Authority {
        async fn read(&self, _: &SecretRef) -> Result<SecretData, EffectError> {
            Ok(SecretData::new().with("ca.key", self.0))
        }
    }

    #[tokio::test]
    async fn a_seal_is_good_for_one_key_in_one_secret_of_one_tenant() {
        let (own, authority) = (secret("acb-acme", "a-api-key", 1), secret("acb-system", "ca", 1));
        let data = sealed(&own, SecretData::new().with("api-key", KEY), &authority, &Authority("one")).await.unwrap();
        check(&own, &data, &authority, &Authority("one")).await.unwrap();
        for other in [secret("acb-acme", "b-api-key", 1), secret("acb-acme", "a-api-key", 2), secret("acb-bravo", "a-api-key", 1)]
        {
            let refused = check(&other, &data, &authority, &Authority("one")).await.unwrap_err();
            assert!(matches!(refused, EffectError::ForeignSecret(ref named) if *named == other), "{refused}");
        }
        check(&own, &data, &authority, &Authority("two")).await.unwrap_err();
        let another = data.clone().with("api-key", KEY.replace('0', "1"));
        check(&own, &another, &authority, &Authority("one")).await.unwrap_err();
        check(&own, &SecretData::new().with("api-key", KEY), &authority, &Authority("one")).await.unwrap_err();
    }

    #[test]
    fn a_key_has_the_length_and_the_form_that_the_operator_makes() {
        assert!(is_api_key(KEY));
        for other in [
            "acb_abc_def",
            "",
            &KEY[1..],
            &KEY[..KEY.len() - 1],
            &format!("{KEY}a"),
            &KEY.replace('-', "+"),
            &format!(" {}", &KEY[1..]),
        ] {
            assert!(!is_api_key(other), "{other}");
        }
    }
}
