//! Who says of Kubernetes ServiceAccounts that they are who they are: the cluster's API server, by the public keys that the operator projected.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;
use time::OffsetDateTime;

/// More keys than a cluster has in the middle of a rotation, many times over.
const MAX_KEYS: usize = 64;
/// Of a name that a token gives: a key's, an issuer's.
const MAX_NAME_BYTES: usize = 512;
/// Bytes of an RSA key's modulus. A shorter one can be broken; a longer one costs time with every login.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=512;

/// An issuer of tokens.
pub struct Issuer {
    name: String,
    /// What it was called before, and until when that is taken.
    before: Option<(String, OffsetDateTime)>,
    keys: BTreeMap<String, PublicKey>,
}

/// A key of it, and the only algorithm that it is used with.
pub(crate) struct PublicKey {
    pub(crate) key: DecodingKey,
    pub(crate) algorithm: Algorithm,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("name", &self.name).field("before", &self.before).field("keys", &self.keys.keys()).finish()
    }
}

impl Issuer {
    /// From its name and its JSON Web Key Set. Keys that the hub does not verify with are left out: symmetric ones, those on other curves, those
    /// that are too short, those for something else than signatures, and all that share one name.
    #[must_use]
    pub fn new(name: &str, jwks: &Value) -> Self {
        let listed = jwks.get("keys").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (mut keys, mut twice) = (BTreeMap::new(), BTreeSet::new());
        for jwk in listed.iter().take(MAX_KEYS) {
            let Some(kid) = text(jwk, "kid").filter(|kid| !kid.is_empty() && kid.len() <= MAX_NAME_BYTES) else { continue };
            if keys.contains_key(kid) {
                twice.insert(kid);
            }
            keys.insert(kid.to_owned(), public_key(jwk));
        }
        let usable = keys.into_iter().filter(|(kid, _)| !twice.contains(kid.as_str()));
        Self { name: name.to_owned(), before: None, keys: usable.filter_map(|(kid, key)| Some((kid, key?))).collect() }
    }

    /// With the name that it had before, which its tokens may have until then.
    #[must_use]
    pub fn after(self, before: String, until: OffsetDateTime) -> Self {
        Self { before: Some((before, until)), ..self }
    }

    /// Whether its tokens may have this as `iss`.
    #[must_use]
    pub fn is_named(&self, name: &str, now: OffsetDateTime) -> bool {
        self.name == name || self.before.as_ref().is_some_and(|(before, until)| before == name && now < *until)
    }

    pub(crate) fn key(&self, kid: &str) -> Option<&PublicKey> {
        self.keys.get(kid)
    }
}

fn text<'a>(jwk: &'a Value, name: &str) -> Option<&'a str> {
    jwk.get(name)?.as_str()
}

/// The key of a JSON Web Key (RFC 7517). A point that is not on the curve is found when it is used.
fn public_key(jwk: &Value) -> Option<PublicKey> {
    let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok();
    let coordinates = |size: usize| {
        let is_full = |name: &str| bytes(name).is_some_and(|bytes| bytes.len() == size);
        (is_full("x") && is_full("y")).then(|| DecodingKey::from_ec_components(text(jwk, "x")?, text(jwk, "y")?).ok()).flatten()
    };
    let (algorithm, key) = match (text(jwk, "kty")?, text(jwk, "crv")) {
        ("RSA", None) => {
            let modulus = bytes("n")?;
            let is_usable = MODULUS_BYTES.contains(&modulus.len()) && modulus.first().is_some_and(|byte| *byte != 0);
            let key = is_usable.then(|| DecodingKey::from_rsa_components(text(jwk, "n")?, text(jwk, "e")?).ok()).flatten()?;
            (Algorithm::RS256, key)
        }
        ("EC", Some("P-256")) => (Algorithm::ES256, coordinates(32)?),
        ("EC", Some("P-384")) => (Algorithm::ES384, coordinates(48)?),
        _ => return None,
    };
    let is_for_it = jwk.get("alg").is_none_or(|alg| alg.as_str() == Some(name_of(algorithm)));
    let is_for_signatures = jwk.get("use").is_none_or(|purpose| purpose == "sig");
    (is_for_it && is_for_signatures).then_some(PublicKey { key, algorithm })
}

/// As tokens and keys name it.
pub(crate) fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        Algorithm::ES384 => "ES384",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kids(jwks: &Value) -> Vec<String> {
        Issuer::new("https://issuer", jwks).keys.into_keys().collect()
    }

    #[test]
    fn only_keys_that_prove_something_are_kept() {
        let number = |bytes: usize| BASE64_URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
        let rsa = |kid: &str, bytes: usize| json!({"kid": kid, "kty": "RSA", "n": number(bytes), "e": "AQAB"});
        let ec = |kid: &str, curve: &str, bytes: usize| json!({"kid": kid, "kty": "EC", "crv": curve, "x": number(bytes), "y": number(bytes)});
        let with = |mut jwk: Value, name: &str, value: &str| {
            jwk[name] = value.into();
            jwk
        };
        let good = json!({"keys": [
            rsa("rsa", 256), rsa("rsa-4096", 512), ec("p256", "P-256", 32), ec("p384", "P-384", 48),
            with(with(rsa("rsa-sig", 256), "use", "sig"), "alg", "RS256"),
        ]});
        assert_eq!(kids(&good), ["p256", "p384", "rsa", "rsa-4096", "rsa-sig"]);
        let bad = json!({"keys": [
            json!({"kid": "secret", "kty": "oct", "k": number(32)}),
            rsa("short", 128), rsa("long", 1024), rsa("", 256), with(rsa("padded", 256), "n", &BASE64_URL_SAFE_NO_PAD.encode([0; 256])),
            ec("other-curve", "P-521", 66), ec("wrong-size", "P-256", 48), ec("bitcoin", "secp256k1", 32),
            with(rsa("encrypts", 256), "use", "enc"), with(rsa("hmac", 256), "alg", "HS256"), with(rsa("curved", 256), "crv", "P-256"),
            with(ec("rsa-alg", "P-256", 32), "alg", "RS256"), rsa("twice", 256), ec("twice", "P-256", 32),
            json!({"kty": "RSA", "n": number(256), "e": "AQAB"}), json!("a text"), json!({"kid": 7, "kty": "RSA"}),
        ]});
        assert_eq!(kids(&bad), [""; 0]);
        let many: Vec<Value> = (0..1000).map(|number| rsa(&number.to_string(), 256)).collect();
        assert_eq!(kids(&json!({"keys": many})).len(), MAX_KEYS);
        for none in [json!({}), json!([]), json!({"keys": {}}), json!(null)] {
            assert_eq!(kids(&none), [""; 0]);
        }
    }
}
