//! The keys of one hub: what it signs, verifies and derives with.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use ed25519_dalek::{
    SigningKey, VerifyingKey,
    pkcs8::{DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _},
};
use jsonwebtoken::{DecodingKey, EncodingKey};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use zeroize::{Zeroize as _, Zeroizing};

use crate::kit::hmac::keyed;

/// Why key material was not taken. Never says what is in it.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct KeyError {
    /// Which file.
    pub file: &'static str,
    /// What is wrong.
    pub problem: &'static str,
}

/// A private key, and how it is called.
struct Signer {
    kid: String,
    key: EncodingKey,
}

impl Signer {
    fn new(file: &'static str, pem: &str) -> Result<(Self, VerifyingKey), KeyError> {
        let key = signing_key(file, pem)?;
        let encoded = key.to_pkcs8_der().map_err(|_| KeyError { file, problem: "can't be encoded" })?;
        let verifying = key.verifying_key();
        Ok((Self { kid: key_id(&verifying), key: EncodingKey::from_ed_der(encoded.as_bytes()) }, verifying))
    }
}

/// The hub's secrets at one time: it signs with one key, and verifies with that one and those that it replaced.
pub struct Keyring {
    signer: Signer,
    /// The one before, which signs until then.
    before: Option<(Signer, OffsetDateTime)>,
    pub(super) verifying: BTreeMap<String, (VerifyingKey, DecodingKey)>,
    pepper: Zeroizing<Vec<u8>>,
    refresh: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("kid", &self.signer.kid).finish_non_exhaustive()
    }
}

impl Keyring {
    /// From the files of the Secret `hub-keys`: `signing.key` (PKCS#8 PEM), `pepper`, `refresh.key`, and the public keys
    /// (`signing.previous.pub`, SPKI PEM) whose tokens are still valid.
    pub fn new(signing_pem: &str, pepper: Vec<u8>, refresh: Vec<u8>, previous_pems: &[String]) -> Result<Self, KeyError> {
        let (pepper, refresh) = (Zeroizing::new(pepper), Zeroizing::new(refresh));
        for (file, secret) in [("pepper", &pepper), ("refresh.key", &refresh)] {
            if secret.len() < 32 {
                return Err(KeyError { file, problem: "must hold at least 32 bytes" });
            }
        }
        let (signer, key) = Signer::new("signing.key", signing_pem)?;
        let mut keys = vec![key];
        for pem in previous_pems {
            let problem = |problem| KeyError { file: "signing.previous.pub", problem };
            let der = pem_body(pem).ok_or_else(|| problem("is not PEM"))?;
            keys.push(VerifyingKey::from_public_key_der(&der).map_err(|_| problem("is not an Ed25519 public key"))?);
        }
        let verifying = keys.into_iter().map(|key| (key_id(&key), (key, DecodingKey::from_ed_der(key.as_bytes())))).collect();
        Ok(Self { signer, before: None, verifying, pepper, refresh })
    }

    /// The same, whose key signs only from then on, and until then the one before (`signing.previous.key`, PKCS#8 PEM): the other replicas know that one,
    /// and may not know the new one yet.
    ///
    /// # Errors
    /// Where the key before is none, or none whose tokens are valid.
    pub fn signing_from(self, from: OffsetDateTime, previous_pem: &str) -> Result<Self, KeyError> {
        let file = "signing.previous.key";
        let (before, _) = Signer::new(file, previous_pem)?;
        if !self.verifying.contains_key(&before.kid) {
            return Err(KeyError { file, problem: "is not the key of signing.previous.pub" });
        }
        Ok(Self { before: Some((before, from)), ..self })
    }

    /// What signs at this time, with its name.
    pub(super) fn signer(&self, now: OffsetDateTime) -> (&str, &EncodingKey) {
        let before = self.before.as_ref().filter(|(_, until)| now < *until).map(|(signer, _)| signer);
        let Signer { kid, key } = before.unwrap_or(&self.signer);
        (kid, key)
    }

    pub(crate) fn pepper(&self) -> &[u8] {
        &self.pepper
    }

    pub(crate) fn refresh(&self) -> &[u8] {
        &self.refresh
    }

    /// The secret that the ids of requests are made with. No refresh token has this text, and no successor of one is made with it.
    #[must_use]
    pub fn request_secret(&self) -> [u8; 32] {
        keyed(&self.refresh, b"\0acb request ids")
    }

    /// The public keys as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> String {
        let keys: Vec<_> = self
            .verifying
            .iter()
            .map(|(kid, (key, _))| {
                serde_json::json!({
                    "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": kid,
                    "x": BASE64_URL_SAFE_NO_PAD.encode(key.as_bytes()),
                })
            })
            .collect();
        serde_json::json!({ "keys": keys }).to_string()
    }
}

/// The Ed25519 key that this file (PKCS#8 PEM) holds.
///
/// # Errors
/// Where it holds none.
pub fn signing_key(file: &'static str, pem: &str) -> Result<SigningKey, KeyError> {
    let problem = |problem| KeyError { file, problem };
    let mut der = pem_body(pem).ok_or_else(|| problem("is not PEM"))?;
    let key = SigningKey::from_pkcs8_der(&der).map_err(|_| problem("is not an Ed25519 key in PKCS#8"));
    der.zeroize();
    key
}

/// The thumbprint of RFC 7638.
fn key_id(key: &VerifyingKey) -> String {
    let x = BASE64_URL_SAFE_NO_PAD.encode(key.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)))
}

fn pem_body(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem
        .lines()
        .skip_while(|line| !line.starts_with("-----BEGIN"))
        .skip(1)
        .take_while(|line| !line.starts_with("-----END"))
        .collect();
    (!body.is_empty()).then(|| BASE64_STANDARD.decode(body).ok()).flatten()
}
