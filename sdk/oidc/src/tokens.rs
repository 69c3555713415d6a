//! Tokens of an issuer: for a program with a secret (RFC 6749, section 4.4), for a person at another device (RFC 8628), and renewed.

use std::{fmt, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    discovery::Discovery,
    https::{Answer, Https, encoded},
    url::Url,
};

const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// A person has this long, whatever the issuer allows.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// Between two questions, unless the issuer says otherwise (RFC 8628, section 3.2).
const INTERVAL: Duration = Duration::from_secs(5);

/// Who asks an issuer. It shows no secret in `Debug`.
#[derive(Clone)]
pub struct Client {
    /// Its name at the issuer.
    pub id: String,
    /// Its secret; a program on a person's machine has none.
    pub secret: Option<String>,
    /// What is asked for, separated by spaces.
    pub scope: String,
    /// For whom (RFC 8707), where the issuer has to be told.
    pub resource: Option<String>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What an issuer grants. It shows no token in `Debug`.
#[derive(Clone, Default)]
pub struct Granted {
    /// The access token.
    pub access_token: String,
    /// The ID token, where there is one.
    pub id_token: Option<String>,
    /// What renews them, where there is something.
    pub refresh_token: Option<String>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Granted(…)")
    }
}

/// What a person has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCode {
    /// The page to open.
    pub verification_uri: String,
    /// The same with the code in it, where the issuer gives one.
    pub complete_uri: Option<String>,
    /// The code to enter.
    pub user_code: String,
    device_code: String,
    interval: Duration,
    ends_at: Instant,
}

/// An issuer that tokens are asked of.
#[derive(Clone, Debug)]
pub struct Issuer {
    https: Https,
    name: String,
    discovery: Discovery,
}

impl Issuer {
    /// Asks the issuer where it gives what.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn discover(https: Https, name: &str) -> Result<Self, String> {
        let discovery = Discovery::ask(&https, name).await?;
        Ok(Self { https, name: name.to_owned(), discovery })
    }

    /// A token for the client itself.
    ///
    /// # Errors
    /// What the issuer says.
    pub async fn client_credentials(&self, client: &Client) -> Result<Granted, String> {
        let form = [("grant_type", "client_credentials"), ("scope", client.scope.as_str())];
        granted(&self.ask(client, &form, true).await?)
    }

    /// New tokens for a refresh token.
    ///
    /// # Errors
    /// What the issuer says.
    pub async fn refresh(&self, client: &Client, refresh_token: &str) -> Result<Granted, String> {
        granted(&self.ask(client, &[("grant_type", "refresh_token"), ("refresh_token", refresh_token)], true).await?)
    }

    /// Begins a login at another device.
    ///
    /// # Errors
    /// What the issuer says.
    pub async fn device_code(&self, client: &Client) -> Result<DeviceCode, String> {
        let place = self.discovery.device_authorization.as_ref();
        let place = place.ok_or_else(|| format!("{} has no login at another device (RFC 8628)", self.name))?;
        let answer = self.post(place, client, &[("scope", client.scope.as_str())], true).await?;
        if !answer.is_success {
            return Err(told(&answer));
        }
        let text = |name: &str| answer.json.get(name).and_then(Value::as_str).map(str::to_owned);
        let seconds = |name: &str| answer.json.get(name).and_then(Value::as_u64).map(Duration::from_secs);
        let needed = |name: &str| text(name).ok_or_else(|| format!("{} gives no {name}", self.name));
        Ok(DeviceCode {
            verification_uri: needed("verification_uri")?,
            complete_uri: text("verification_uri_complete"),
            user_code: needed("user_code")?,
            device_code: needed("device_code")?,
            interval: seconds("interval").unwrap_or(INTERVAL).min(LONGEST),
            ends_at: Instant::now() + seconds("expires_in").unwrap_or(LONGEST).min(LONGEST),
        })
    }

    /// Waits until the person has agreed, or has not.
    ///
    /// # Errors
    /// What the issuer says; that the time is over.
    pub async fn wait(&self, client: &Client, code: &DeviceCode) -> Result<Granted, String> {
        let mut interval = code.interval;
        loop {
            if Instant::now() + interval >= code.ends_at {
                return Err("nobody has entered the code in time".to_owned());
            }
            sleep(interval).await;
            let form = [("grant_type", DEVICE_CODE), ("device_code", code.device_code.as_str())];
            // One question that is lost is asked again: the person may be in the middle of it.
            let Ok(answer) = self.ask(client, &form, false).await else { continue };
            match answer.json.get("error").and_then(Value::as_str) {
                Some("authorization_pending") => {}
                Some("slow_down") => interval += INTERVAL,
                _ => return granted(&answer),
            }
        }
    }

    async fn ask(&self, client: &Client, form: &[(&str, &str)], with_resource: bool) -> Result<Answer, String> {
        let place = self.discovery.token.as_ref().ok_or_else(|| format!("{} gives no tokens", self.name))?;
        self.post(place, client, form, with_resource).await
    }

    async fn post(&self, place: &Url, client: &Client, form: &[(&str, &str)], with_resource: bool) -> Result<Answer, String> {
        let mut form: Vec<(&str, &str)> = form.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
        if let Some(resource) = client.resource.as_deref().filter(|_| with_resource) {
            form.push(("resource", resource));
        }
        // As RFC 6749 has it in section 2.3.1. A client without a secret has a name alone.
        let basic = client
            .secret
            .as_ref()
            .map(|secret| format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", encoded(&client.id), encoded(secret)))));
        if basic.is_none() {
            form.push(("client_id", &client.id));
        }
        self.https.post(place, &form, basic.as_deref()).await
    }
}

fn granted(answer: &Answer) -> Result<Granted, String> {
    let text = |name: &str| answer.json.get(name).and_then(Value::as_str).map(str::to_owned);
    match text("access_token").filter(|_| answer.is_success) {
        Some(access_token) => Ok(Granted { access_token, id_token: text("id_token"), refresh_token: text("refresh_token") }),
        None => Err(told(answer)),
    }
}

/// An error as RFC 6749 has it. What is no plain text of it is left out.
fn told(answer: &Answer) -> String {
    let text = |name: &str| answer.json.get(name).and_then(Value::as_str).unwrap_or_default();
    let shown: String =
        [text("error"), text("error_description")].join(" ").chars().filter(|c| !c.is_control()).take(300).collect();
    format!("the issuer answers with status {}: {}", answer.status, shown.trim())
}
