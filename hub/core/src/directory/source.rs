//! What an access token came from, and ends with.

use serde::{Deserialize, Serialize};

/// The credential that was exchanged for an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An API key, by its prefix.
    ApiKey(String),
    /// The token of a Kubernetes ServiceAccount.
    Account(AccountToken),
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

impl Source {
    /// The token of an account, where it is one.
    #[must_use]
    pub fn into_account(self) -> Option<AccountToken> {
        match self {
            Self::ApiKey(_) => None,
            Self::Account(token) => Some(token),
        }
    }

    /// As records and logs name it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::ApiKey(prefix) => prefix.clone(),
            Self::Account(token) => format!("serviceaccount:{}", token.account),
        }
    }
}
