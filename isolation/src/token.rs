//! Tokens, true and forged.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signer as _, SigningKey, pkcs8::DecodePrivateKey as _};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Signs as one's own hub does.
pub(crate) struct Signer {
    key: SigningKey,
}

impl Signer {
    /// From PKCS#8 PEM. What is wrong with it never says what is in it.
    pub(crate) fn new(pem: &str) -> Result<Self, String> {
        let body: String = pem.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
        let key = STANDARD.decode(body).ok().and_then(|der| SigningKey::from_pkcs8_der(&der).ok());
        Ok(Self { key: key.ok_or("the hub's signing key is no Ed25519 key in PKCS#8 PEM")? })
    }

    fn public(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes())
    }

    /// The thumbprint of RFC 7638, as the hub names its keys.
    pub(crate) fn key_id(&self) -> String {
        let thumb = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.public());
        URL_SAFE_NO_PAD.encode(Sha256::digest(thumb))
    }

    /// Its public key.
    pub(crate) fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.key_id(), "x": self.public()})
    }

    /// A signed token.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        self.text(&header.to_string(), &claims.to_string())
    }

    /// The same, of texts that need not be JSON that a library writes.
    pub(crate) fn text(&self, header: &str, claims: &str) -> String {
        let signed = unsigned(header, claims);
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }
}

/// A token with a symmetric signature.
pub(crate) fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let signed = unsigned(&header.to_string(), &claims.to_string());
    // HMAC takes a key of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return signed };
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn unsigned(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// One part of a token, decoded.
pub(crate) fn part(token: &str, index: usize) -> String {
    let encoded = token.split('.').nth(index).unwrap_or_default();
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap_or_default()).unwrap_or_default()
}
