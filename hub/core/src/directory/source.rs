//! What an access token came from, and ends with.

use serde::{Deserialize, Serialize};

use super::agent::Role;

/// The credential that was exchanged for an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An API key, by its prefix.
    ApiKey(String),
    /// The token of a Kubernetes ServiceAccount.
    Account(AccountToken),
    /// The token of an OpenID Connect issuer.
    Oidc(OidcToken),
}

/// A token of a Kubernetes ServiceAccount, by what is no secret of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountToken {
    /// Who issued it.
    pub iss: String,
    /// Its id; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// The account, as `<namespace>/<name>`.
    pub account: String,
    /// The account's UID: one that was deleted and made again has another.
    pub uid: String,
}

/// A token of an OpenID Connect issuer, by what is no secret of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OidcToken {
    /// Who issued it.
    pub iss: String,
    /// Of whom it is, for that issuer.
    pub sub: String,
    /// Its id; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// The [digest](super::trusted_issuer::TrustedIssuer::digest) of the terms by which it proved its agent.
    pub terms: String,
    /// The role that it gives, and no more, where it does not give the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

impl Source {
    /// The role that its tokens give, and no more, where that is not the agent's own.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match self {
            Self::ApiKey(_) | Self::Account(_) => None,
            Self::Oidc(token) => token.role,
        }
    }

    /// What is listed as a credential of the agent, and so has a last use: of an issuer's tokens there is no list.
    #[must_use]
    pub fn credential(&self) -> Option<String> {
        match self {
            Self::ApiKey(_) | Self::Account(_) => Some(self.name()),
            Self::Oidc(_) => None,
        }
    }

    /// As records and logs name it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::ApiKey(prefix) => prefix.clone(),
            Self::Account(token) => format!("serviceaccount:{}", token.account),
            Self::Oidc(token) => format!("oidc:{}#{}", token.iss, token.sub),
        }
    }
}
