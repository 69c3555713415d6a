//! The connection: TCP or TLS, then SASL, then requests one after the other.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    ResponseError,
    messages::{RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest},
    protocol::{Decodable, Encodable, HeaderVersion, StrBytes},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::{Call, scram::Exchange};

/// The largest answer that is taken.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// Where the brokers are, and who asks. Debug shows no password.
#[derive(Clone)]
pub struct Settings {
    bootstrap_servers: String,
    username: String,
    password: Zeroizing<String>,
    tls: Option<Arc<ClientConfig>>,
    patience: Duration,
    /// Which broker answered last. Shared by clones: the next connection begins there.
    first: Arc<AtomicUsize>,
}

impl Settings {
    /// `bootstrap_servers` are `host:port`, with commas between them. Requests time out after 3 s.
    #[must_use]
    pub fn new(bootstrap_servers: &str, username: &str, password: &str) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.to_owned(),
            username: username.to_owned(),
            password: Zeroizing::new(password.to_owned()),
            tls: None,
            patience: Duration::from_secs(3),
            first: Arc::default(),
        }
    }

    /// Over TLS, to brokers whose certificate one of these authorities (PEM) signed.
    ///
    /// # Errors
    /// Where `authorities` holds no usable certificate.
    pub fn with_tls(mut self, authorities: &[u8]) -> Result<Self, Error> {
        let unusable = |error: &dyn fmt::Display| Error::Protocol(format!("the brokers' CA certificate is unusable: {error}"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            roots.add(certificate.map_err(|error| unusable(&error))?).map_err(|error| unusable(&error))?;
        }
        if roots.is_empty() {
            return Err(unusable(&"it holds none"));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        self.tls = Some(Arc::new(config));
        Ok(self)
    }

    /// The same brokers, as another user.
    #[must_use]
    pub fn with_login(mut self, username: &str, password: &str) -> Self {
        username.clone_into(&mut self.username);
        self.password = Zeroizing::new(password.to_owned());
        self
    }

    fn brokers(&self) -> Vec<&str> {
        self.bootstrap_servers.split(',').map(str::trim).collect()
    }

    /// The brokers in the order in which they are tried, each with its place in the list.
    fn order(&self) -> Vec<(usize, &str)> {
        let mut order: Vec<_> = self.brokers().into_iter().enumerate().collect();
        let first = self.first.load(Ordering::Relaxed) % order.len().max(1);
        order.rotate_left(first);
        order
    }

    /// Where the brokers are.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bootstrap_servers, username, tls, .. } = self;
        f.debug_struct("Settings")
            .field("bootstrap_servers", bootstrap_servers)
            .field("username", username)
            .field("tls", &tls.is_some())
            .finish_non_exhaustive()
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No broker answered in time, or the connection broke. What was asked may have been done.
    #[error("Kafka at {0} does not answer: {1}")]
    Unreachable(String, String),
    /// The broker does not know the user, or the password is another.
    #[error("Kafka refused the login of {0}: {1}")]
    Login(String, String),
    /// What came is not what the protocol says.
    #[error("{0}")]
    Protocol(String),
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// An authenticated connection. After an error it is of no use any more.
pub struct Connection {
    wire: Box<dyn Wire>,
    broker: String,
    /// Its place in the list, and which one is tried first.
    place: usize,
    first: Arc<AtomicUsize>,
    patience: Duration,
    correlation: i32,
}

impl Connection {
    /// To the first of the brokers that answers, beginning with the one that answered last. One that takes the connection and says nothing
    /// more is passed over as one that is away.
    ///
    /// # Errors
    /// [`Error::Login`] where one answers and refuses the login; [`Error::Unreachable`] where none does.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        let mut failed = Error::Unreachable(settings.bootstrap_servers.clone(), "no broker is named".to_owned());
        for (place, broker) in settings.order() {
            let attempt = async {
                let mut connection = Self::dial(settings, place, broker).await?;
                connection.log_in(settings).await?;
                Ok(connection)
            };
            match attempt.await {
                Err(error @ (Error::Unreachable(..) | Error::Protocol(_))) => failed = error,
                answered => {
                    settings.first.store(place, Ordering::Relaxed);
                    return answered;
                }
            }
        }
        Err(failed)
    }

    /// As [`open`](Self::open), without logging in: what a stranger can do.
    ///
    /// # Errors
    /// [`Error::Unreachable`] where no broker answers.
    pub async fn open_anonymous(settings: &Settings) -> Result<Self, Error> {
        let mut failed = Error::Unreachable(settings.bootstrap_servers.clone(), "no broker is named".to_owned());
        for (place, broker) in settings.order() {
            match Self::dial(settings, place, broker).await {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn dial(settings: &Settings, place: usize, broker: &str) -> Result<Self, Error> {
        let unreachable = |why: String| Error::Unreachable(broker.to_owned(), why);
        let wire = timeout(settings.patience, dial(broker, settings.tls.as_ref()))
            .await
            .map_err(|_| unreachable("timed out".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let first = Arc::clone(&settings.first);
        Ok(Self { wire, broker: broker.to_owned(), place, first, patience: settings.patience, correlation: 0 })
    }

    /// The broker took the connection and then fell silent: the next connection begins with another.
    fn silent(&self, why: String) -> Error {
        let next = self.place.wrapping_add(1);
        let _ = self.first.compare_exchange(self.place, next, Ordering::Relaxed, Ordering::Relaxed);
        Error::Unreachable(self.broker.clone(), why)
    }

    /// Sends a request, and waits for its answer.
    ///
    /// # Errors
    /// Where none comes in time, or not as the protocol says. What the answer says is not looked into.
    pub async fn send<R: Call>(&mut self, request: &R, version: i16) -> Result<R::Response, Error> {
        self.correlation = self.correlation.wrapping_add(1);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("acb")));
        let mut frame = BytesMut::new();
        frame.put_i32(0);
        header.encode(&mut frame, R::header_version(version)).map_err(|error| Error::Protocol(error.to_string()))?;
        request.encode(&mut frame, version).map_err(|error| Error::Protocol(error.to_string()))?;
        let size = i32::try_from(frame.len() - 4).map_err(|error| Error::Protocol(error.to_string()))?;
        (&mut frame[..4]).put_i32(size);

        let mut answer = match timeout(self.patience, exchange(&mut self.wire, &frame)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.silent(error.to_string())),
            Err(_) => return Err(self.silent("timed out".to_owned())),
        };
        let malformed = || Error::Protocol(format!("{} sent an answer that is not one of Kafka's", self.broker));
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version)).map_err(|_| malformed())?;
        if header.correlation_id != self.correlation {
            return Err(malformed());
        }
        R::Response::decode(&mut answer, version).map_err(|_| malformed())
    }

    async fn log_in(&mut self, settings: &Settings) -> Result<(), Error> {
        let refused = |reason: &str| Error::Login(settings.username.clone(), reason.to_owned());
        let mechanism = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("SCRAM-SHA-512"));
        if self.send(&mechanism, 1).await?.error_code != 0 {
            return Err(refused("it does not offer SCRAM-SHA-512"));
        }
        let mut nonce = [0_u8; 24];
        getrandom::fill(&mut nonce).map_err(|error| Error::Protocol(error.to_string()))?;
        let nonce = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, nonce);
        let exchange = Exchange::new(&settings.username, settings.password.as_bytes(), &nonce);
        let first = self.authenticate(&settings.username, exchange.first_message()).await?;
        let proved = exchange.prove(first).await;
        let (exchange, proof) = proved.ok_or_else(|| refused("its challenge is not one of SCRAM's"))?;
        let last = self.authenticate(&settings.username, proof).await?;
        if exchange.server_is_true(&last) { Ok(()) } else { Err(refused("it does not know the password itself")) }
    }

    async fn authenticate(&mut self, username: &str, message: String) -> Result<String, Error> {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(message));
        let answer = self.send(&request, 2).await?;
        if answer.error_code != 0 {
            let code = ResponseError::try_from_code(answer.error_code).map(|error| error.to_string());
            let reason = answer.error_message.map(|message| message.to_string()).or(code).unwrap_or_default();
            return Err(Error::Login(username.to_owned(), reason));
        }
        String::from_utf8(answer.auth_bytes.to_vec()).map_err(|_| Error::Protocol("a SASL message is not text".into()))
    }
}

async fn dial(broker: &str, tls: Option<&Arc<ClientConfig>>) -> io::Result<Box<dyn Wire>> {
    let stream = TcpStream::connect(broker).await?;
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let host = broker.rsplit_once(':').map_or(broker, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
}

async fn exchange(wire: &mut Box<dyn Wire>, frame: &[u8]) -> io::Result<Bytes> {
    wire.write_all(frame).await?;
    wire.flush().await?;
    let mut size = [0; 4];
    wire.read_exact(&mut size).await?;
    let size = usize::try_from(size.as_slice().get_i32()).unwrap_or(usize::MAX);
    if size > ANSWER_BYTES {
        return Err(io::Error::other("an answer of more than 64 MiB"));
    }
    let mut answer = vec![0; size];
    wire.read_exact(&mut answer).await?;
    Ok(Bytes::from(answer))
}
