//! Connections: TLS 1.3 and nothing older, and a bound on everything that an unproven peer can hold.

use std::{
    io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use acb_hub_core::supervisor::Supervisor;
use futures::Stream;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open connections; at the bound a new one is closed at once.
    pub connections: usize,
    /// Handshakes at one time; at the bound a new one waits its turn, within its time.
    pub handshakes: usize,
    /// From the TCP connection to the end of the TLS handshake, and from there to the HTTP/2 preface.
    pub greeting: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { connections: 4096, handshakes: 64, greeting: Duration::from_secs(10) }
    }
}

/// The certificate of now. Clones share it; replacing it does not touch open connections.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<RwLock<Arc<CertifiedKey>>>);

impl Certificate {
    /// From `tls.crt` and `tls.key`.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> io::Result<Self> {
        Ok(Self(Arc::new(RwLock::new(certified_key(chain, key)?))))
    }

    /// Takes a renewed certificate; the old one stays where the new one can't be read.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> io::Result<()> {
        let renewed = certified_key(chain, key)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = renewed;
        Ok(())
    }

    fn server_config(&self) -> io::Result<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified_key(chain: &[u8], key: &[u8]) -> io::Result<Arc<CertifiedKey>> {
    let bad = |what: &'static str| move |_| io::Error::new(io::ErrorKind::InvalidData, what);
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(bad("tls.crt is not a PEM certificate chain"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(bad("tls.key is not a PEM private key"))?;
    let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("tls.crt and tls.key don't make a pair: {error}")))?;
    Ok(Arc::new(key))
}

/// Accepts until stopped. Hands over connections whose handshake is done.
pub fn accept(
    listener: TcpListener,
    certificate: &Certificate,
    limits: ConnectionLimits,
    stop: CancellationToken,
    supervisor: &Supervisor,
) -> io::Result<impl Stream<Item = io::Result<Connection>> + use<>> {
    let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config()?));
    // One waiting connection is enough: the server takes them as fast as they come.
    let (ready, incoming) = mpsc::channel(16);
    let accepting = stop.clone();
    supervisor.spawn_until("acceptor", stop, async move {
        accepting.run_until_cancelled(accept_all(listener, acceptor, limits, ready)).await;
    });
    Ok(ReceiverStream::new(incoming))
}

async fn accept_all(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    limits: ConnectionLimits,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: accepting again at once would only spin.
                tracing::warn!(%error, "connection not accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            tracing::warn!(%peer, limit = limits.connections, "connection closed: the hub has as many as it takes");
            continue;
        };
        let (acceptor, handshakes, ready) = (acceptor.clone(), handshakes.clone(), ready.clone());
        tokio::spawn(async move {
            match timeout(limits.greeting, handshake(stream, &acceptor, &handshakes)).await {
                Ok(Ok(stream)) => {
                    let connection =
                        Connection { stream, greeting: Some((Box::pin(sleep(limits.greeting)), PREFACE_BYTES)), _permit: permit };
                    // Fails only when the server is gone.
                    let _ = ready.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
            }
        });
    }
}

async fn handshake(stream: TcpStream, acceptor: &TlsAcceptor, handshakes: &Semaphore) -> io::Result<TlsStream<TcpStream>> {
    let _turn = handshakes.acquire().await.map_err(io::Error::other)?;
    stream.set_nodelay(true)?;
    acceptor.accept(stream).await
}

/// `PRI * HTTP/2.0…`: before it is complete the server waits without a timeout of its own.
const PREFACE_BYTES: usize = 24;

/// A TLS connection. It is closed where its peer does not say what it wants in time.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    greeting: Option<(Pin<Box<Sleep>>, usize)>,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.get_ref().0.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some((deadline, missing)) = &mut this.greeting else { return read };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer said nothing")));
        }
        *missing = missing.saturating_sub(buf.filled().len() - before);
        if *missing == 0 {
            this.greeting = None;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
