//! Logging in by an OpenID Connect issuer: as a person at another device, or as a program with a secret.

use std::{
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use acb_oidc::{
    address::Reach,
    https::Https,
    tokens::{Client, Granted, Issuer},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    client::payload::text_of,
    output::{self, Failure, Output},
};

/// An ID token that ends sooner is not shown any more.
const SPARE_SECONDS: u64 = 30;

/// How to get tokens of an issuer.
#[derive(clap::Args, Debug)]
pub(super) struct OidcArgs {
    /// An OpenID Connect issuer that the Tenant names. Without a secret a code is shown, for the page of the issuer that is named with it.
    #[arg(long, value_name = "URL", group = "credential", requires = "client_id")]
    oidc: Option<String>,
    /// The client that this is at the issuer.
    #[arg(long, value_name = "ID", requires = "oidc")]
    client_id: Option<String>,
    /// A file that holds the client's secret: for a program, that logs in as itself. It is read each time.
    #[arg(long, value_name = "FILE", requires = "oidc")]
    client_secret_file: Option<PathBuf>,
    /// What is asked for [default: `openid` for a person, nothing for a program]. With `offline_access` beside it many issuers let the login be renewed.
    #[arg(long, value_name = "SCOPES", requires = "oidc")]
    scope: Option<String>,
    /// For whom the token is to be (RFC 8707): the audience that the Tenant names. Its access token is exchanged then, and not its ID token.
    #[arg(long, value_name = "URI", requires = "oidc")]
    resource: Option<String>,
    /// The authorities of the issuer's certificate, as PEM [default: the system's].
    #[arg(long, value_name = "FILE", requires = "oidc")]
    oidc_ca: Option<PathBuf>,
}

/// A login by an issuer, as a profile keeps it. Without `Debug`, as it may hold tokens.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::client) struct OidcLogin {
    issuer: String,
    client_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_secret_file: Option<PathBuf>,
    scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    /// PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    /// A person's token; a program gets a new one each time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    token: String,
    /// What renews it, where the issuer gave something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

impl OidcArgs {
    pub(super) fn is_given(&self) -> bool {
        self.oidc.is_some()
    }

    /// Logs in at the issuer, where one is named.
    pub(super) async fn log_in(&self, output: Output) -> Result<Option<OidcLogin>, Failure> {
        let (Some(issuer), Some(client_id)) = (&self.oidc, &self.client_id) else { return Ok(None) };
        let secret = self.client_secret_file.as_deref().map(std::path::absolute).transpose();
        let secret_is_given = self.client_secret_file.is_some();
        let mut login = OidcLogin {
            issuer: issuer.clone(),
            client_id: client_id.clone(),
            client_secret_file: secret.map_err(|error| Failure::failed(format_args!("login: {error}")))?,
            scope: self.scope.clone().unwrap_or_else(|| if secret_is_given { "" } else { "openid" }.to_owned()),
            resource: self.resource.clone(),
            ca: self.oidc_ca.as_deref().map(text_of).transpose()?,
            token: String::new(),
            refresh_token: None,
        };
        if login.client_secret_file.is_none() {
            login.of_person(output).await.map_err(|why| failed(issuer, &why))?;
        }
        Ok(Some(login))
    }
}

impl OidcLogin {
    /// A token to be exchanged. Whether it is a new one, that is to be kept.
    pub(in crate::client) async fn token(&mut self) -> Result<(String, bool), String> {
        if self.client_secret_file.is_some() {
            let granted = self.issuer().await?.client_credentials(&self.client()?).await?;
            return Ok((granted.access_token, false));
        }
        if self.holds() {
            return Ok((self.token.clone(), false));
        }
        // It stays until another one is in its place: an issuer that is away for a moment ends no login.
        let Some(refresh_token) = self.refresh_token.clone() else {
            return Err(format!("the login by {} has ended: log in again with `acb login`", self.issuer));
        };
        let granted = self.issuer().await?.refresh(&self.client()?, &refresh_token).await?;
        self.keep(granted, Some(refresh_token));
        Ok((self.token.clone(), true))
    }

    /// Whether a person's token is to be renewed before it is shown.
    pub(in crate::client) fn is_to_be_renewed(&self) -> bool {
        self.client_secret_file.is_none() && !self.holds()
    }

    /// Whether this is that login after it was renewed: of the same person, by the same client.
    pub(in crate::client) fn is_renewal_of(&self, older: &Self) -> bool {
        let client = |login: &Self| (login.issuer.clone(), login.client_id.clone(), login.resource.clone(), login.scope.clone());
        let [new, old] = [self, older].map(|login| claims(&login.token));
        let subject = |claims: &Option<Value>| claims.as_ref()?.get("sub")?.as_str().map(str::to_owned);
        let is_same = client(self) == client(older) && subject(&new).is_some() && subject(&new) == subject(&old);
        is_same && self.client_secret_file.is_none() && ends_at(&older.token) < ends_at(&self.token)
    }

    fn holds(&self) -> bool {
        ends_at(&self.token).is_some_and(|end| now() + SPARE_SECONDS < end)
    }

    async fn of_person(&mut self, output: Output) -> Result<(), String> {
        let (issuer, client) = (self.issuer().await?, self.client()?);
        let code = issuer.device_code(&client).await?;
        let (page, entered) = match &code.complete_uri {
            Some(page) => (page, format!("(the code is {})", code.user_code)),
            None => (&code.verification_uri, format!("and enter the code {}", code.user_code)),
        };
        output::note(output, &output::printable(&format!("To log in, open {page} {entered}")));
        let granted = issuer.wait(&client, &code).await?;
        self.keep(granted, None);
        Ok(())
    }

    /// Of an ID token and an access token the one that is for this client, unless a resource was named. Many issuers give no ID token anew.
    fn keep(&mut self, granted: Granted, refreshed_by: Option<String>) {
        self.token = match granted.id_token {
            Some(id_token) if self.resource.is_none() => id_token,
            _ => granted.access_token,
        };
        self.refresh_token = granted.refresh_token.or(refreshed_by);
    }

    async fn issuer(&self) -> Result<Issuer, String> {
        Issuer::discover(Https::new(self.ca.as_deref(), Reach::Anywhere)?, &self.issuer).await
    }

    fn client(&self) -> Result<Client, String> {
        let read = |file: &PathBuf| {
            let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Ok::<_, String>(text.trim().to_owned())
        };
        Ok(Client {
            id: self.client_id.clone(),
            secret: self.client_secret_file.as_ref().map(read).transpose()?,
            scope: self.scope.clone(),
            resource: self.resource.clone(),
        })
    }
}

fn failed(issuer: &str, why: &str) -> Failure {
    Failure::failed(format_args!("login at {issuer}: {}", output::printable(why)))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// When a token says that it ends. Nobody is to be convinced by that here: it only saves a question.
fn ends_at(token: &str) -> Option<u64> {
    claims(token)?.get("exp")?.as_u64()
}

/// What a token says, whoever signed it.
fn claims(token: &str) -> Option<Value> {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
pub(in crate::client) mod tests {
    use super::*;

    /// A person's login at an issuer that is away, with a token that ends so many seconds from now.
    pub(in crate::client) fn login(sub: &str, seconds: i64) -> OidcLogin {
        let claims = serde_json::json!({"sub": sub, "exp": now().saturating_add_signed(seconds)});
        OidcLogin {
            issuer: "https://127.0.0.1:1".to_owned(),
            client_id: "people".to_owned(),
            client_secret_file: None,
            scope: "openid".to_owned(),
            resource: None,
            ca: None,
            token: format!("x.{}.y", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string())),
            refresh_token: Some("renews it".to_owned()),
        }
    }

    #[tokio::test]
    async fn an_issuer_that_is_away_for_a_moment_ends_no_login() {
        let mut ended = login("ada", -60);
        ended.token().await.unwrap_err();
        assert_eq!(ended.refresh_token.as_deref(), Some("renews it"));
    }

    #[test]
    fn a_login_is_renewed_by_what_is_newer_and_the_same_persons() {
        let old = login("ada", -60);
        assert!(login("ada", 600).is_renewal_of(&old));
        assert!(!old.is_renewal_of(&old) && !login("ada", -90).is_renewal_of(&old));
        assert!(!login("bob", 600).is_renewal_of(&old), "it is another person's");
        let other = OidcLogin { client_id: "others".to_owned(), ..login("ada", 600) };
        assert!(!other.is_renewal_of(&old), "it is of another client");
    }

    #[test]
    fn a_token_says_when_it_ends() {
        let token = |claims: &str| format!("x.{}.y", BASE64_URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(ends_at(&token(r#"{"exp": 7}"#)), Some(7));
        for none in ["", "a.b.c", &token("{}"), &token(r#"{"exp": "7"}"#)] {
            assert_eq!(ends_at(none), None, "{none}");
        }
    }
}
