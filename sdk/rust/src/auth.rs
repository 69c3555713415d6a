//! Keeps a valid access token: exchanged, refreshed before its end, and renewed where a hub no longer takes it.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use acb_proto::v1::{
    ExchangeSubjectTokenRequest, ExchangeTokenRequest, RefreshTokenRequest, TokenResponse,
    auth_service_client::AuthServiceClient, exchange_token_request,
};
use tokio::{
    fs::File,
    io::AsyncReadExt as _,
    sync::Mutex,
    time::{Instant, timeout},
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::Channel,
};

use crate::{
    Error, Identity, Tokens, correlation,
    credential::{ApiKey, Credential, TokenSource},
    error::broke,
    trace_context,
};

const ATTEMPT: Duration = Duration::from_secs(10);
/// For a token of an issuer: it may be asked for something twice.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORTEST: Duration = Duration::from_secs(30);
/// RFC 8693.
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// More than a hub looks at.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

/// Puts the access token on each request.
#[derive(Clone)]
pub(crate) struct Bearer {
    header: MetadataValue<Ascii>,
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.header.clone());
        if let (name, Some(id)) = correlation::header() {
            request.metadata_mut().insert(name, id);
        }
        trace_context::put(request.metadata_mut());
        Ok(request)
    }
}

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer(…)")
    }
}

/// What a request to the auth service ended as.
pub(crate) enum Denied {
    /// The connection is at fault.
    Broken(Error),
    /// The hub said no.
    Refused(Error),
    /// What is to be shown to the hub can't be read.
    Unreadable(Error),
}

impl Denied {
    /// Whether the same may be answered otherwise later.
    fn may_pass(&self) -> bool {
        match self {
            Self::Broken(_) | Self::Unreadable(_) => true,
            Self::Refused(error) => error.is_retryable(),
        }
    }
}

struct Held {
    tokens: Tokens,
    bearer: Bearer,
    identity: Identity,
    /// When to renew it, by this process's own clock: a hub's clock may differ.
    renew_at: Instant,
    ends_at: Instant,
    serial: u64,
}

pub(crate) struct Auth {
    credential: Credential,
    held: Mutex<Option<Held>>,
}

impl Auth {
    pub(crate) fn new(credential: Credential) -> Self {
        Self { credential, held: Mutex::new(None) }
    }

    /// The token for the next request, and its serial number. Callers that come while it is renewed wait for that.
    pub(crate) async fn bearer(&self, channel: &Channel) -> Result<(Bearer, u64), Denied> {
        let mut held = self.held.lock().await;
        if let Some(current) = &*held
            && Instant::now() < current.renew_at
        {
            return Ok((current.bearer.clone(), current.serial));
        }
        let serial = held.as_ref().map_or(0, |current| current.serial + 1);
        match self.renew(held.as_ref(), channel).await {
            Ok(response) => {
                let fresh = hold(response, serial).map_err(Denied::Refused)?;
                let answer = (fresh.bearer.clone(), serial);
                *held = Some(fresh);
                Ok(answer)
            }
            Err(denied) => match &*held {
                // A token that still holds is better than none.
                Some(current) if Instant::now() < current.ends_at && denied.may_pass() => {
                    Ok((current.bearer.clone(), current.serial))
                }
                _ => Err(denied),
            },
        }
    }

    /// The hub did not take this token: the next request gets a new one.
    pub(crate) async fn spoil(&self, serial: u64) {
        if let Some(held) = &mut *self.held.lock().await
            && held.serial == serial
        {
            held.renew_at = Instant::now();
            held.ends_at = Instant::now();
        }
    }

    pub(crate) async fn identity(&self) -> Option<Identity> {
        Some(self.held.lock().await.as_ref()?.identity.clone())
    }

    pub(crate) async fn tokens(&self) -> Option<Tokens> {
        Some(self.held.lock().await.as_ref()?.tokens.clone())
    }

    async fn renew(&self, held: Option<&Held>, channel: &Channel) -> Result<TokenResponse, Denied> {
        match (&self.credential, held) {
            (Credential::Tokens(tokens), None) => refresh(channel, &tokens.refresh).await,
            (Credential::Tokens(_), Some(held)) => refresh(channel, &held.tokens.refresh).await,
            (Credential::TokenFile(file), _) => exchange_file(channel, file).await,
            (Credential::TokenSource(source), _) => exchange_from(channel, source).await,
            (Credential::ApiKey(key), None) => exchange(channel, key).await,
            (Credential::ApiKey(key), Some(held)) => match refresh(channel, &held.tokens.refresh).await {
                // The family was revoked or has ended: the key may still be good.
                Err(Denied::Refused(error)) if error.code() == Code::Unauthenticated => exchange(channel, key).await,
                other => other,
            },
        }
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").field("credential", &self.credential).finish_non_exhaustive()
    }
}

async fn exchange(channel: &Channel, key: &ApiKey) -> Result<TokenResponse, Denied> {
    let credential = Some(exchange_token_request::Credential::ApiKey(key.expose().to_owned()));
    let mut client = AuthServiceClient::new(channel.clone());
    answer(client.exchange_token(ExchangeTokenRequest { credential })).await
}

async fn exchange_file(channel: &Channel, file: &Path) -> Result<TokenResponse, Denied> {
    let subject_token = read(file).await.map_err(|error| {
        // The next look may find it: a token that is held meanwhile goes on.
        Denied::Unreadable(Error::Usage(format!("the token in {}: {error}", file.display())))
    })?;
    exchange_subject(channel, &subject_token).await
}

async fn exchange_from(channel: &Channel, source: &TokenSource) -> Result<TokenResponse, Denied> {
    let given = timeout(PATIENCE, source()).await.unwrap_or_else(|_| Err("it takes too long".into()));
    let subject_token = given.map_err(|error| Denied::Unreadable(Error::Usage(format!("the token of the issuer: {error}"))))?;
    exchange_subject(channel, &subject_token).await
}

async fn exchange_subject(channel: &Channel, subject_token: &str) -> Result<TokenResponse, Denied> {
    let request =
        ExchangeSubjectTokenRequest { subject_token: subject_token.trim().to_owned(), subject_token_type: JWT.to_owned() };
    let mut client = AuthServiceClient::new(channel.clone());
    match answer(client.exchange_subject_token(request)).await {
        // While a hub is rolled out some of its replicas are older. Another one may know such tokens, and for as long as calls are tried again this one may
        // be replaced.
        Err(Denied::Refused(error)) if error.code() == Code::Unimplemented => {
            let why = format!("this replica takes no tokens of ServiceAccounts, since its hub is older: {}", error.message());
            Err(Denied::Broken(Error::Unavailable(why)))
        }
        answered => answered,
    }
}

async fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(file).await?.take(MAX_TOKEN_FILE).read_to_string(&mut text).await?;
    Ok(text)
}

async fn refresh(channel: &Channel, token: &str) -> Result<TokenResponse, Denied> {
    let mut client = AuthServiceClient::new(channel.clone());
    answer(client.refresh_token(RefreshTokenRequest { refresh_token: token.to_owned() })).await
}

async fn answer(call: impl Future<Output = Result<tonic::Response<TokenResponse>, Status>>) -> Result<TokenResponse, Denied> {
    match timeout(ATTEMPT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if broke(&status) => Err(Denied::Broken(status.into())),
        Ok(Err(status)) => Err(Denied::Refused(Error::from(status).during("authentication"))),
        Err(_) => Err(Denied::Broken(Error::Timeout(format!("authentication: no answer within {} s", ATTEMPT.as_secs())))),
    }
}

fn hold(response: TokenResponse, serial: u64) -> Result<Held, Error> {
    let mut header = MetadataValue::try_from(format!("Bearer {}", response.access_token))
        .map_err(|_| Error::refused(Code::Internal, "", "authentication: the hub answered with a malformed token"))?;
    header.set_sensitive(true);
    let access_expires_at = crate::wire::system_time(response.access_token_expires_at).unwrap_or(SystemTime::UNIX_EPOCH);
    let lifetime = access_expires_at.duration_since(SystemTime::now()).unwrap_or_default().max(SHORTEST);
    let now = Instant::now();
    Ok(Held {
        tokens: Tokens { access: response.access_token, access_expires_at, refresh: response.refresh_token },
        bearer: Bearer { header },
        identity: Identity { tenant: response.tenant, agent: response.agent, agent_id: response.agent_id },
        renew_at: now + lifetime.mul_f64(0.8),
        ends_at: now + lifetime,
        serial,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_at_the_hub_passes_and_a_bad_credential_does_not() {
        let denied = |code| Denied::Refused(Error::refused(code, "", "no"));
        assert!(denied(Code::ResourceExhausted).may_pass());
        assert!(!denied(Code::Unauthenticated).may_pass());
        assert!(Denied::Broken(Error::Unavailable("gone".to_owned())).may_pass());
    }
}
