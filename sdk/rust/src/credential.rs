//! What a client proves itself with. No type here shows its secret in `Debug`.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::SystemTime};

use futures::future::BoxFuture;

use crate::Error;

/// An API key, `acb_<prefix>_<secret>`.
///
/// ```
/// let key: acb_sdk::ApiKey = "acb_0123abcd_c2VjcmV0".parse()?;
/// assert_eq!(format!("{key:?}"), "ApiKey(acb_0123abcd_…)");
/// # Ok::<(), acb_sdk::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The whole key. Do not log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let mut parts = text.splitn(3, '_');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("acb"), Some(prefix), Some(secret)) if !prefix.is_empty() && !secret.is_empty() && is_token(text) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(Error::Usage("this is not an API key: one looks like acb_<prefix>_<secret>".to_owned())),
        }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = self.0.split('_').nth(1).unwrap_or_default();
        write!(f, "ApiKey(acb_{prefix}_…)")
    }
}

/// An access token and the refresh token that renews it.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Sent with each request.
    pub access: String,
    /// When the access token ends.
    pub access_expires_at: SystemTime,
    /// Exchanged once for new tokens. Empty where there is none: the token of a ServiceAccount, or of an issuer, is exchanged anew instead.
    pub refresh: String,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("access_expires_at", &self.access_expires_at).finish_non_exhaustive()
    }
}

/// Whom the tokens of a client speak for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The tenant's name.
    pub tenant: String,
    /// The agent's name.
    pub agent: String,
    /// The UID of the Agent resource.
    pub agent_id: String,
}

/// Why there is no token.
pub(crate) type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Gives the token of an issuer each time that one is needed.
pub(crate) type TokenSource = Arc<dyn Fn() -> BoxFuture<'static, Result<String, SourceError>> + Send + Sync>;

#[derive(Clone)]
pub(crate) enum Credential {
    ApiKey(ApiKey),
    Tokens(Tokens),
    /// The token of a ServiceAccount, by the file that is read each time: whoever writes it replaces it.
    TokenFile(PathBuf),
    /// The token of an OpenID Connect issuer.
    TokenSource(TokenSource),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ApiKey(key) => key.fmt(f),
            Self::Tokens(tokens) => tokens.fmt(f),
            Self::TokenFile(file) => f.debug_tuple("TokenFile").field(file).finish(),
            Self::TokenSource(_) => f.write_str("TokenSource(…)"),
        }
    }
}

fn is_token(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_out_of_debug() {
        let key: ApiKey = " acb_0123_very_secret\n".parse().unwrap();
        assert_eq!(key.expose(), "acb_0123_very_secret");
        assert!(!format!("{key:?}").contains("secret"));
        let tokens = Tokens { access: "aaa".into(), access_expires_at: SystemTime::UNIX_EPOCH, refresh: "rrr".into() };
        let shown = format!("{:?}", Credential::Tokens(tokens));
        assert!(!shown.contains("aaa") && !shown.contains("rrr"), "{shown}");
    }

    #[test]
    fn malformed_keys_are_refused() {
        for text in ["", "acb", "acb__x", "acb_x_", "xyz_a_b", "acb_a_b c"] {
            let error = text.parse::<ApiKey>().unwrap_err();
            assert!(error.message().contains("not an API key"), "{text}");
        }
    }
}
