//! Addresses of issuers. Only HTTPS, and nothing in them that two programs might read in two ways.

use std::{fmt, net::IpAddr};

use http::{Uri, uri::Scheme};

/// An HTTPS address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    text: String,
    host: String,
    port: u16,
    path: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Url {
    /// Reads one, with its query.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{text:?} {what}");
        if text.len() > 2048 || !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['#', '\\']) {
            return Err(wrong("is no plain URL"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("is no URL"))?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(wrong("does not begin with https://"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(wrong("has no host, or a user"));
        }
        // What stands behind the colon, also where it is no number.
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = match port.strip_prefix(':') {
            None => 443,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong("has no such port"))?,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { text: text.to_owned(), host: authority.host().to_ascii_lowercase(), port, path })
    }

    /// Reads that of an issuer: its documents are below it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn issuer(text: &str) -> Result<Self, String> {
        let url = Self::parse(text)?;
        if url.path.contains('?') {
            return Err(format!("{text:?} has a query, and an issuer has none"));
        }
        Ok(url)
    }

    /// Where the issuer's discovery document is (OpenID Connect Discovery 1.0, section 4).
    ///
    /// # Errors
    /// None where it is an issuer's.
    pub fn discovery(&self) -> Result<Self, String> {
        self.below(".well-known/openid-configuration")
    }

    /// What is at this path below it.
    ///
    /// # Errors
    /// None where it has no query.
    pub fn below(&self, path: &str) -> Result<Self, String> {
        Self::parse(&format!("{}/{path}", self.text.trim_end_matches('/')))
    }

    /// The host: a name in lower case, or an address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host)
    }

    /// The address, where no name has to be looked up.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host and port, as a request names them.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Whether both are at the same place.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        (self.host.as_str(), self.port) == (other.host.as_str(), other.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_https_is_read() {
        let url = Url::issuer("https://Login.example:8443/realms/a").unwrap();
        assert_eq!(
            (url.host(), url.port(), url.path(), url.authority().as_str()),
            ("login.example", 8443, "/realms/a", "login.example:8443")
        );
        assert_eq!(url.to_string(), "https://Login.example:8443/realms/a");
        assert_eq!(url.discovery().unwrap().path(), "/realms/a/.well-known/openid-configuration");
        assert_eq!(Url::issuer("https://a.example/").unwrap().discovery().unwrap().path(), "/.well-known/openid-configuration");
        assert_eq!(Url::issuer("https://[::1]:1/x").unwrap().ip(), Some("::1".parse().unwrap()));
        for wrong in [
            "",
            "login.example",
            "http://login.example",
            "HTTPS//login.example",
            "https://",
            "https:///path",
            "https://user@login.example",
            "https://login.example@evil.example",
            "https://login.example:0",
            "https://login.example:99999",
            "https://login.example:x",
            "https://login.example/#fragment",
            "https://login.example\\@evil.example",
            "https://login.example/ x",
            "https://login.example/\n",
            "https://lögin.example",
            "file:///etc/passwd",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Url::issuer("https://login.example/?tenant=a").is_err());
    }

    #[test]
    fn places_are_compared_by_host_and_port() {
        let beside = |left, right| Url::parse(left).unwrap().is_beside(&Url::parse(right).unwrap());
        assert!(beside("https://a.example/x", "https://A.example:443/y"));
        assert!(!beside("https://a.example", "https://a.example:444"));
        assert!(!beside("https://a.example", "https://b.a.example"));
    }
}
