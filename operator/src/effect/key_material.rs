//! What keys are drawn from, and how a key is written down.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

use super::EffectError;

/// DER of a PKCS#8 v1 Ed25519 key up to its 32 bytes (RFC 8410): the form that every library reads.
const ED25519_PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// A new Ed25519 key, as PEM.
pub(super) fn signing_key() -> Result<Zeroizing<String>, EffectError> {
    let mut der = Zeroizing::new(Vec::with_capacity(48));
    der.extend_from_slice(&ED25519_PKCS8_PREFIX);
    der.extend_from_slice(random()?.as_slice());
    let body = Zeroizing::new(BASE64_STANDARD.encode(der.as_slice()));
    Ok(Zeroizing::new(format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", body.as_str())))
}

pub(super) fn random() -> Result<Zeroizing<[u8; 32]>, EffectError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(|error| EffectError::unavailable("the system's random source", error))?;
    Ok(bytes)
}

/// Why the certificate library made nothing.
pub(super) fn unmade(error: rcgen::Error) -> EffectError {
    EffectError::refused("the certificate library", error)
}
