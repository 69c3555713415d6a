//! What an issuer says of itself (OpenID Connect Discovery 1.0), pinned to the one that was asked: its name to the letter, and its places to its host.

use serde_json::Value;

use crate::{https::Https, url::Url};

/// Where an issuer gives what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Its JSON Web Key Set.
    pub keys: Url,
    /// Tokens.
    pub token: Option<Url>,
    /// Codes for devices (RFC 8628).
    pub device_authorization: Option<Url>,
}

impl Discovery {
    /// Asks an issuer.
    ///
    /// # Errors
    /// Why it says nothing that can be used.
    pub async fn ask(https: &Https, issuer: &str) -> Result<Self, String> {
        let url = Url::issuer(issuer)?;
        Self::read(issuer, &url, &https.get(&url.discovery()?).await?)
    }

    fn read(issuer: &str, url: &Url, document: &Value) -> Result<Self, String> {
        let text = |name: &str| document.get(name).and_then(Value::as_str);
        if text("issuer") != Some(issuer) {
            return Err(format!("the discovery document of {issuer} is another issuer's"));
        }
        let place = |name: &str| {
            let found = text(name).map(Url::parse).transpose().map_err(|error| format!("{name} of {issuer}: {error}"))?;
            match found {
                Some(place) if !place.is_beside(url) => Err(format!("{name} of {issuer} is at another host")),
                found => Ok(found),
            }
        };
        Ok(Self {
            keys: place("jwks_uri")?.ok_or_else(|| format!("the discovery document of {issuer} has no jwks_uri"))?,
            token: place("token_endpoint")?,
            device_authorization: place("device_authorization_endpoint")?,
        })
    }
}

/// The keys of an issuer, by way of what it says of itself.
///
/// # Errors
/// Why there are none.
pub async fn keys(https: &Https, issuer: &str) -> Result<Value, String> {
    let keys = https.get(&Discovery::ask(https, issuer).await?.keys).await?;
    if keys.get("keys").is_some_and(Value::is_array) { Ok(keys) } else { Err(format!("{issuer} has no set of keys")) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://issuer.example/a";

    fn read(document: &Value) -> Result<Discovery, String> {
        Discovery::read(ISSUER, &Url::issuer(ISSUER).unwrap(), document)
    }

    #[test]
    fn a_document_is_its_issuers_alone() {
        let good = json!({"issuer": ISSUER, "jwks_uri": "https://issuer.example/a/jwks", "token_endpoint": "https://issuer.example/a/token"});
        let found = read(&good).unwrap();
        assert_eq!((found.keys.path(), found.token.unwrap().path(), found.device_authorization), ("/a/jwks", "/a/token", None));
        for (name, value, why) in [
            ("issuer", json!("https://issuer.example/a/"), "another issuer's"),
            ("issuer", json!("https://ISSUER.example/a"), "another issuer's"),
            ("issuer", json!("https://issuer.example"), "another issuer's"),
            ("issuer", json!(null), "another issuer's"),
            ("issuer", json!([ISSUER]), "another issuer's"),
            ("jwks_uri", json!("https://evil.example/jwks"), "another host"),
            ("jwks_uri", json!("https://issuer.example:8443/jwks"), "another host"),
            ("jwks_uri", json!("https://169.254.169.254/jwks"), "another host"),
            ("jwks_uri", json!("https://issuer.example@evil.example/jwks"), "user"),
            ("jwks_uri", json!("http://issuer.example/jwks"), "https://"),
            ("jwks_uri", json!("file:///etc/passwd"), "https://"),
            ("jwks_uri", json!("/jwks"), "https://"),
            ("jwks_uri", json!(null), "no jwks_uri"),
            ("token_endpoint", json!("https://evil.example/token"), "another host"),
        ] {
            let mut document = good.clone();
            document[name] = value.clone();
            let error = read(&document).unwrap_err();
            assert!(error.contains(why), "{name} {value}: {error}");
        }
        for none in [json!([]), json!("text"), json!(null), json!({})] {
            assert!(read(&none).is_err(), "{none}");
        }
    }
}
