//! Connections to the replicas of one hub: TLS 1.3 with the tenant's CA, one connection at a time, to whichever replica answers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::{Error, backoff::random_u32};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that is in use.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Rises with each connection, so that a late complaint does not drop a newer one.
    pub(crate) id: usize,
    pub(crate) endpoint: Arc<str>,
    pub(crate) channel: Channel,
}

pub(crate) struct Replicas {
    endpoints: Vec<Arc<str>>,
    connector: TlsConnector,
    /// Where all of them are reached, whatever their names resolve to.
    through: Option<SocketAddr>,
    current: Mutex<Option<Link>>,
    next: AtomicUsize,
    ids: AtomicUsize,
}

impl Replicas {
    pub(crate) fn new(endpoints: &[String], ca_pem: &[u8], through: Option<SocketAddr>) -> Result<Self, Error> {
        if endpoints.is_empty() {
            return Err(Error::Usage("no endpoint was given: name at least one, such as https://hub.example:8443".to_owned()));
        }
        let endpoints = endpoints.iter().map(|text| normal(text).map(Arc::from)).collect::<Result<Vec<Arc<str>>, _>>()?;
        let start = random_u32() as usize % endpoints.len();
        Ok(Self {
            endpoints,
            connector: connector(ca_pem)?,
            through,
            current: Mutex::new(None),
            next: AtomicUsize::new(start),
            ids: AtomicUsize::new(0),
        })
    }

    /// The current connection, or a new one to the first replica that answers.
    pub(crate) async fn link(&self) -> Result<Link, Error> {
        let mut current = self.current.lock().await;
        if let Some(link) = &*current {
            return Ok(link.clone());
        }
        let mut failures = Vec::new();
        let mut untrusted = 0;
        for _ in 0..self.endpoints.len() {
            let endpoint = &self.endpoints[self.next.load(Ordering::Relaxed) % self.endpoints.len()];
            match self.connect(endpoint).await {
                Ok(channel) => {
                    let link = Link { id: self.ids.fetch_add(1, Ordering::Relaxed), endpoint: endpoint.clone(), channel };
                    tracing::debug!(endpoint = %link.endpoint, "connected");
                    *current = Some(link.clone());
                    return Ok(link);
                }
                Err(Unreached { cause, is_untrusted }) => {
                    untrusted += usize::from(is_untrusted);
                    failures.push(format!("{endpoint}: {cause}"));
                    self.next.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let failures = failures.join("; ");
        // With time another replica may answer, and be trusted. Where all did, and none is, time mends nothing.
        if untrusted == self.endpoints.len() {
            return Err(Error::Untrusted(format!("the given CA is not that of the hub: {failures}")));
        }
        Err(Error::Unavailable(format!("no replica of the hub answers: {failures}")))
    }

    /// Turns away from a connection that failed: the next one goes to the next replica.
    pub(crate) async fn leave(&self, id: usize) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|link| link.id == id) {
            *current = None;
            self.next.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn connect(&self, endpoint: &Arc<str>) -> Result<Channel, Unreached> {
        let uri: Uri = endpoint.parse().map_err(|error| Unreached { cause: format!("{error}"), is_untrusted: false })?;
        let (tls, through) = (self.connector.clone(), self.through);
        let dial = tower::service_fn(move |uri: Uri| {
            let tls = tls.clone();
            async move { dial(&uri, through, &tls).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20);
        match timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(dial)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(Unreached { cause: innermost(&error), is_untrusted: is_untrusted(&error) }),
            Err(_) => Err(Unreached { cause: format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()), is_untrusted: false }),
        }
    }
}

/// Why there is no connection to a replica.
struct Unreached {
    cause: String,
    is_untrusted: bool,
}

impl std::fmt::Debug for Replicas {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replicas").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// A bare TLS 1.3 channel to one replica, without authentication, for those who call the generated clients themselves.
pub async fn channel(endpoint: &str, ca_pem: impl AsRef<[u8]>) -> Result<Channel, Error> {
    let replicas = Replicas::new(&[endpoint.to_owned()], ca_pem.as_ref(), None)?;
    Ok(replicas.link().await?.channel)
}

async fn dial(uri: &Uri, through: Option<SocketAddr>, tls: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    let socket = match through {
        Some(address) => TcpStream::connect(address).await?,
        None => TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?,
    };
    socket.set_nodelay(true)?;
    tls.connect(name, socket).await
}

fn connector(ca_pem: &[u8]) -> Result<TlsConnector, Error> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|error| Error::Usage(format!("the CA is not PEM: {error}")))?;
        roots.add(certificate).map_err(|error| Error::Usage(format!("the CA can't be used: {error}")))?;
    }
    if roots.is_empty() {
        return Err(Error::Usage("the CA holds no certificate: give the tenant's ca.crt, as PEM".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| Error::Usage(format!("TLS 1.3 can't be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// `https://host:port` from what people write: a scheme may be missing, the port may be.
fn normal(text: &str) -> Result<String, Error> {
    let wrong = |what: &str| Error::Usage(format!("{text:?} is not an endpoint: {what}; write https://host:port"));
    let trimmed = text.trim().trim_end_matches('/');
    if trimmed.starts_with("http://") {
        return Err(wrong("a hub speaks TLS only"));
    }
    let uri: Uri = format!("https://{}", trimmed.strip_prefix("https://").unwrap_or(trimmed))
        .parse()
        .map_err(|error| wrong(&format!("{error}")))?;
    match (uri.host(), uri.path()) {
        (Some(host), "/" | "") if !host.is_empty() => Ok(format!("https://{host}:{}", uri.port_u16().unwrap_or(8443))),
        _ => Err(wrong("it needs a host and no path")),
    }
}

/// Whether it is the certificate that is at fault. The TLS error is inside of an I/O error, which does not name it as its source.
fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).or_else(|| error.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(_)) = tls {
            return true;
        }
        next = error.source();
    }
    false
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_as_people_write_them() {
        for text in ["hub", "hub:8443", "https://hub", "https://hub:8443/", " hub:8443 "] {
            assert_eq!(normal(text).unwrap(), "https://hub:8443", "{text}");
        }
        assert_eq!(normal("[::1]:9000").unwrap(), "https://[::1]:9000");
        for text in ["http://hub", "hub/path", "", "a b"] {
            assert!(normal(text).is_err(), "{text}");
        }
    }
}
