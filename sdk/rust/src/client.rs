//! The client: one tenant's hub, seen as one agent.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

#[cfg(feature = "encryption")]
use acb_proto::v1::encryption_key_service_client::EncryptionKeyServiceClient;
use acb_proto::v1::{
    agent_registry_client::AgentRegistryClient, audit_service_client::AuditServiceClient,
    context_service_client::ContextServiceClient, credential_service_client::CredentialServiceClient,
    dead_letter_service_client::DeadLetterServiceClient, mailbox_service_client::MailboxServiceClient,
    message_service_client::MessageServiceClient, schedule_service_client::ScheduleServiceClient,
    stream_service_client::StreamServiceClient, trace_service_client::TraceServiceClient,
    usage_service_client::UsageServiceClient,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Response, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    Error, Identity, Tokens,
    auth::{Auth, Bearer, Denied},
    backoff::{Limited, Patience, RESEND_FOR},
    correlation::of_call,
    credential::{ApiKey, Credential, SourceError},
    error::broke,
    replica::Replicas,
};

const ATTEMPT: Duration = Duration::from_secs(15);

type Service = InterceptedService<Channel, Bearer>;

/// Gathers what a [`Client`] needs.
#[derive(Debug, Default)]
pub struct Builder {
    endpoints: Vec<String>,
    ca_pem: Vec<u8>,
    credential: Option<Credential>,
    retry_for: Option<Duration>,
    through: Option<SocketAddr>,
}

impl Builder {
    /// The replicas of the hub, as `https://host:port`. The client starts with any, and goes to the next where one fails.
    #[must_use]
    pub fn endpoints<S: Into<String>>(mut self, endpoints: impl IntoIterator<Item = S>) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// The tenant's CA, as PEM. No other CA is trusted.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = pem.into();
        self
    }

    /// Connects to this address, such as that of a port-forward, rather than to those of the endpoints. The hub's certificate has to be for
    /// their names all the same.
    #[must_use]
    pub fn through(mut self, address: SocketAddr) -> Self {
        self.through = Some(address);
        self
    }

    /// Authenticates with an API key.
    #[must_use]
    pub fn api_key(mut self, key: ApiKey) -> Self {
        self.credential = Some(Credential::ApiKey(key));
        self
    }

    /// Authenticates with the token of the pod's Kubernetes ServiceAccount: the file of a projected volume whose audience is `acb:<tenant id>`. It is
    /// read each time that a token is needed, since the kubelet replaces it.
    #[must_use]
    pub fn service_account_token(mut self, file: impl Into<PathBuf>) -> Self {
        self.credential = Some(Credential::TokenFile(file.into()));
        self
    }

    /// Authenticates with tokens of an OpenID Connect issuer that the Tenant names. `source` is asked for one each time that an access token is needed: the
    /// access token ends with the one that it came from, and no refresh token renews it.
    #[must_use]
    pub fn oidc_token<F, T>(mut self, source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, SourceError>> + Send + 'static,
    {
        self.credential = Some(Credential::TokenSource(Arc::new(move || Box::pin(source()))));
        self
    }

    /// The same with a file that holds the token, and that something else keeps fresh. It is read each time.
    #[must_use]
    pub fn oidc_token_file(self, file: impl Into<PathBuf>) -> Self {
        self.service_account_token(file)
    }

    /// Authenticates with tokens that were exchanged elsewhere. The refresh token is used up.
    #[must_use]
    pub fn tokens(mut self, tokens: Tokens) -> Self {
        self.credential = Some(Credential::Tokens(tokens));
        self
    }

    /// How long a call is tried again while no replica answers; 30 s unless said otherwise. Transfers count it from their last progress. What
    /// is sent is tried again for 5 minutes at the most: after that it might arrive twice.
    #[must_use]
    pub fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = Some(time);
        self
    }

    /// Connects and authenticates.
    pub async fn connect(self) -> Result<Client, Error> {
        let credential = self
            .credential
            .ok_or_else(|| Error::Usage("no credential was given: set an API key, the file of a token, or tokens".to_owned()))?;
        let client = Client {
            inner: Arc::new(Inner {
                replicas: Replicas::new(&self.endpoints, &self.ca_pem, self.through)?,
                auth: Auth::new(credential),
                retry_for: self.retry_for.unwrap_or(Duration::from_secs(30)),
                replica: Mutex::new(None),
            }),
        };
        let mut patience = client.patience();
        loop {
            match client.line().await {
                Ok(_) => return Ok(client),
                Err(error) if error.is_retryable() => patience.wait(error).await?,
                Err(error) => return Err(error),
            }
        }
    }
}

#[derive(Debug)]
struct Inner {
    replicas: Replicas,
    auth: Auth,
    retry_for: Duration,
    replica: Mutex<Option<String>>,
}

/// One tenant's hub, seen as one agent. Cheap to clone; clones share the connection and the tokens.
///
/// ```no_run
/// # async fn example() -> Result<(), acb_sdk::Error> {
/// use acb_sdk::{Client, Message};
///
/// let client = Client::builder()
///     .endpoints(["https://127.0.0.1:8443", "https://127.0.0.1:8444"])
///     .ca_pem(std::fs::read("ca.crt")?)
///     .api_key(std::fs::read_to_string("planner.key")?.parse()?)
///     .connect()
///     .await?;
/// client.send(Message::to_agent("worker-1").topic("greeting").text("hello")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

/// When a call may be made a second time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Twice is as good as once.
    Always,
    /// The same, for as long as a hub certainly knows what it has taken.
    WhileKnown,
    /// Only as long as it certainly was not done.
    BeforeSent,
}

/// An authenticated connection for one call.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    service: Service,
    link: usize,
    serial: u64,
}

impl Line {
    pub(crate) fn agents(&self) -> AgentRegistryClient<Service> {
        AgentRegistryClient::new(self.service.clone())
    }

    pub(crate) fn messages(&self) -> MessageServiceClient<Service> {
        MessageServiceClient::new(self.service.clone())
    }

    pub(crate) fn mailbox(&self) -> MailboxServiceClient<Service> {
        MailboxServiceClient::new(self.service.clone())
    }

    pub(crate) fn dead_letters(&self) -> DeadLetterServiceClient<Service> {
        DeadLetterServiceClient::new(self.service.clone())
    }

    pub(crate) fn schedule(&self) -> ScheduleServiceClient<Service> {
        ScheduleServiceClient::new(self.service.clone())
    }

    pub(crate) fn contexts(&self) -> ContextServiceClient<Service> {
        ContextServiceClient::new(self.service.clone())
    }

    #[cfg(feature = "encryption")]
    pub(crate) fn encryption_keys(&self) -> EncryptionKeyServiceClient<Service> {
        EncryptionKeyServiceClient::new(self.service.clone())
    }

    pub(crate) fn credentials(&self) -> CredentialServiceClient<Service> {
        CredentialServiceClient::new(self.service.clone())
    }

    pub(crate) fn usage(&self) -> UsageServiceClient<Service> {
        UsageServiceClient::new(self.service.clone())
    }

    pub(crate) fn traces(&self) -> TraceServiceClient<Service> {
        TraceServiceClient::new(self.service.clone())
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Service> {
        AuditServiceClient::new(self.service.clone())
    }

    pub(crate) fn streams(&self) -> StreamServiceClient<Service> {
        StreamServiceClient::new(self.service.clone())
    }
}

/// What to do about a failed call.
pub(crate) enum Next {
    /// Try again at once, with a new token.
    Again,
    /// Try again after a pause, on whichever replica answers.
    Later(Error),
    /// It would fail again.
    Never(Error),
}

impl Client {
    /// Starts to build a client.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Whom this client speaks for.
    pub async fn identity(&self) -> Option<Identity> {
        self.inner.auth.identity().await
    }

    /// The current tokens.
    pub async fn tokens(&self) -> Option<Tokens> {
        self.inner.auth.tokens().await
    }

    /// The address of the replica that the client is connected to.
    pub async fn endpoint(&self) -> Result<String, Error> {
        Ok(self.inner.replicas.link().await?.endpoint.to_string())
    }

    /// The name of the replica that last answered a session or a transfer.
    #[must_use]
    pub fn replica(&self) -> Option<String> {
        self.inner.replica.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.inner.retry_for)
    }

    pub(crate) fn name_replica(&self, name: &str) {
        if !name.is_empty() {
            *self.inner.replica.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
        }
    }

    /// An authenticated connection.
    pub(crate) async fn line(&self) -> Result<Line, Error> {
        let link = self.inner.replicas.link().await?;
        match self.inner.auth.bearer(&link.channel).await {
            Ok((bearer, serial)) => Ok(Line { service: InterceptedService::new(link.channel, bearer), link: link.id, serial }),
            Err(Denied::Broken(error)) => {
                self.inner.replicas.leave(link.id).await;
                Err(error)
            }
            Err(Denied::Refused(error) | Denied::Unreadable(error)) => Err(error),
        }
    }

    /// Goes to another replica with the next call.
    pub(crate) async fn leave(&self, line: &Line) {
        self.inner.replicas.leave(line.link).await;
    }

    /// What to do after `status`; `renewed` says whether a new token was tried already.
    pub(crate) async fn judge(&self, line: &Line, status: Status, renewed: &mut bool) -> Next {
        if status.code() == Code::Unauthenticated && !broke(&status) && !*renewed {
            *renewed = true;
            self.inner.auth.spoil(line.serial).await;
            return Next::Again;
        }
        if broke(&status) {
            self.leave(line).await;
            return Next::Later(Error::from(status));
        }
        Next::Never(Error::from(status))
    }

    /// Makes a unary call, again where that helps and is allowed.
    pub(crate) async fn call<T, F, Fut>(&self, what: &str, retry: Retry, within: Duration, make: F) -> Result<T, Error>
    where
        F: Fn(Line) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_until(what, retry, within, None, make).await
    }

    /// The same, of a caller who waits no longer than until then for a limit that has no room.
    pub(crate) async fn call_until<T, F, Fut>(
        &self,
        what: &str,
        retry: Retry,
        within: Duration,
        until: Option<Instant>,
        make: F,
    ) -> Result<T, Error>
    where
        F: Fn(Line) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let tried = async {
            let in_time = |again: &Instant| until.is_none_or(|until| *again <= until);
            let mut patience = match retry {
                Retry::WhileKnown => Patience::new(self.inner.retry_for.min(RESEND_FOR)),
                Retry::Always | Retry::BeforeSent => self.patience(),
            };
            let mut renewed = false;
            let mut limited = Limited::default();
            loop {
                let error = match self.line().await {
                    Ok(line) => match timeout(within, make(line.clone())).await {
                        Ok(Ok(response)) => return Ok(response.into_inner()),
                        Ok(Err(status)) => match self.judge(&line, status, &mut renewed).await {
                            Next::Again => continue,
                            Next::Later(error) if retry != Retry::BeforeSent => error,
                            Next::Later(error) | Next::Never(error)
                                if let Some(again) = limited.again_at(&error).filter(in_time) =>
                            {
                                tracing::warn!(%error, "waiting for a limit");
                                tokio::time::sleep_until(again).await;
                                continue;
                            }
                            Next::Later(error) | Next::Never(error) => return Err(error.during(what)),
                        },
                        Err(_) => {
                            self.leave(&line).await;
                            let error = Error::Timeout(format!("no answer within {:.0} s", within.as_secs_f64()));
                            if retry == Retry::BeforeSent {
                                return Err(error.during(what));
                            }
                            error
                        }
                    },
                    Err(error) if error.is_retryable() => error,
                    Err(error) => return Err(error.during(what)),
                };
                patience.wait(error).await.map_err(|error| error.during(what))?;
            }
        };
        let (outcome, correlation_id) = of_call(tried).await;
        outcome.map_err(|error: Error| error.of_call(&correlation_id))
    }

    pub(crate) const ATTEMPT: Duration = ATTEMPT;
}
