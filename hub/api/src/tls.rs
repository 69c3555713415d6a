//! Connections: TLS 1.3 and nothing older, and a bound on everything that an unproven peer can hold.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{self, Arc, PoisonError, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use acb_hub_core::{
    kit::supervisor::Supervisor,
    metrics::connections::{ConnectionMetrics, OpenConnection},
};
use futures::Stream;
use rustls::{
    ServerConfig,
    server::{Acceptor, ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::peer::{Peer, Sources, source};

/// Bounds on connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open connections; at the bound a new one takes the place of one whose handshake is not done, or is closed at once where there is none.
    pub connections: usize,
    /// From the TCP connection to the end of the TLS handshake.
    pub greeting: Duration,
    /// Connections from one address on which no caller has been proven, and no more than there are places left; at the bound it is the same,
    /// among those of the address.
    pub unproven_per_source: usize,
    /// How long such a connection may last, from the handshake on; a call that is open prolongs it.
    pub unproven: Duration,
    /// And however many calls there are.
    pub unproven_at_most: Duration,
}

impl ConnectionLimits {
    /// Whether a connection without a proven caller has lasted for too long.
    fn are_over(&self, lasted: Duration, busy: bool) -> bool {
        lasted >= self.unproven_at_most || (lasted >= self.unproven && !busy)
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            greeting: Duration::from_secs(10),
            // Many agents may come from behind one address, and all at once after an outage.
            unproven_per_source: 1024,
            unproven: Duration::from_secs(10),
            unproven_at_most: Duration::from_secs(60),
        }
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
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
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
    metrics: ConnectionMetrics,
    stop: CancellationToken,
    supervisor: &Supervisor,
) -> io::Result<impl Stream<Item = io::Result<Connection>> + use<>> {
    let config = Arc::new(certificate.server_config()?);
    // One waiting connection is enough: the server takes them as fast as they come.
    let (ready, incoming) = mpsc::channel(16);
    let accepting = stop.clone();
    supervisor.spawn_until("acceptor", stop, async move {
        accepting.run_until_cancelled(accept_all(listener, config, limits, metrics, ready)).await;
    });
    Ok(ReceiverStream::new(incoming))
}

async fn accept_all(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    limits: ConnectionLimits,
    metrics: ConnectionMetrics,
    ready: mpsc::Sender<io::Result<Connection>>,
) {
    metrics.limit(limits.connections);
    let places = Places {
        connections: Arc::new(Semaphore::new(limits.connections)),
        sources: Sources::new(limits.unproven_per_source),
        greetings: Greetings::default(),
        metrics,
    };
    for number in 0_u64.. {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: accepting again at once would only spin.
                tracing::warn!(%error, "connection not accepted");
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = match places.find(address) {
            Ok(place) => place,
            Err(why) => {
                tracing::warn!(%address, "connection closed: {why}");
                continue;
            }
        };
        let turn = place.peer.turn();
        let evicted = places.greetings.begin(number, place);
        let (config, greetings, ready) = (config.clone(), places.greetings.clone(), ready.clone());
        tokio::spawn(async move {
            let greeted = tokio::select! {
                greeted = timeout(limits.greeting, greet(stream, config, &turn)) => greeted,
                _ = evicted => return tracing::debug!(%address, "connection closed: a newer one took its place before it had greeted"),
            };
            let place = greetings.end(number);
            match greeted {
                Ok(Ok(stream)) => {
                    // Without a place it was evicted at this moment.
                    let Some(Slot { peer, permit, counted }) = place else { return };
                    let (unproven, preface) = (None, PREFACE_BYTES);
                    let connection = Connection { stream, peer, limits, unproven, preface, _permit: permit, _counted: counted };
                    // Fails only when the server is gone.
                    let _ = ready.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::debug!(%address, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
            }
        });
    }
}

/// The handshake. What the peer has not sent yet is waited for without a turn; a turn is for our own work, so that one who says nothing keeps
/// nobody waiting.
async fn greet(stream: TcpStream, config: Arc<ServerConfig>, turn: &Mutex<()>) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let (answered, handshake) = {
        let _turn = turn.lock().await;
        let mut handshake = hello.into_stream(config);
        let answered = futures::poll!(&mut handshake);
        // The next turn is another source's, where one has a handshake to do.
        tokio::task::yield_now().await;
        (answered, handshake)
    };
    match answered {
        Poll::Ready(done) => done,
        Poll::Pending => handshake.await,
    }
}

/// Where connections find room.
struct Places {
    connections: Arc<Semaphore>,
    sources: Sources,
    greetings: Greetings,
    metrics: ConnectionMetrics,
}

/// What a connection takes: one of all, and one of its source's.
struct Slot {
    peer: Peer,
    permit: OwnedSemaphorePermit,
    counted: OpenConnection,
}

impl Places {
    /// Room for one from this address. At a bound it takes the place of the oldest one that has not greeted: a client greets as soon as it is
    /// connected, so that this one is most likely nobody's.
    fn find(&self, address: SocketAddr) -> Result<Slot, &'static str> {
        if self.connections.available_permits() == 0 {
            self.greetings.evict(|_| true);
        }
        let free = self.connections.available_permits();
        let permit = self.connections.clone().try_acquire_owned().map_err(|_| "the hub has as many as it takes")?;
        let peer = self.sources.connect(address, free).or_else(|| {
            let source = source(address.ip());
            self.greetings.evict(|peer| peer.source() == source);
            self.sources.connect(address, free + 1)
        });
        let peer = peer.ok_or("its source has as many without a caller as it may")?;
        Ok(Slot { peer, permit, counted: self.metrics.opened() })
    }
}

/// Connections whose handshake is not done, by age.
#[derive(Clone, Default)]
struct Greetings(Arc<sync::Mutex<BTreeMap<u64, Greeting>>>);

struct Greeting {
    place: Slot,
    /// Dropped, it tells the one who waits for the peer.
    _evict: oneshot::Sender<()>,
}

impl Greetings {
    /// What is returned resolves when it is evicted.
    fn begin(&self, number: u64, place: Slot) -> oneshot::Receiver<()> {
        let (evict, evicted) = oneshot::channel();
        self.lock().insert(number, Greeting { place, _evict: evict });
        evicted
    }

    /// Its place, where it still has it.
    fn end(&self, number: u64) -> Option<Slot> {
        self.lock().remove(&number).map(|greeting| greeting.place)
    }

    /// Frees the place of the oldest of these.
    fn evict(&self, of: impl Fn(&Peer) -> bool) {
        let mut greetings = self.lock();
        let oldest = greetings.iter().find(|(_, greeting)| of(&greeting.place.peer)).map(|(number, _)| *number);
        if let Some(oldest) = oldest {
            greetings.remove(&oldest);
        }
    }

    fn lock(&self) -> sync::MutexGuard<'_, BTreeMap<u64, Greeting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `PRI * HTTP/2.0…`: before it is complete the server waits without a timeout of its own.
const PREFACE_BYTES: usize = 24;
/// How often a connection with an unproven call is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A TLS connection. It is closed where no call on it shows in time who calls.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    limits: ConnectionLimits,
    unproven: Option<Unproven>,
    /// What is missing of it.
    preface: usize,
    _permit: OwnedSemaphorePermit,
    _counted: OpenConnection,
}

#[derive(Debug)]
struct Unproven {
    look: Pin<Box<Sleep>>,
    since: Instant,
}

impl Connection {
    /// Its other end.
    pub(crate) fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// What watches that it does not last too long without a proven caller, where reading can't: over HTTP/1.1 nothing is read while an answer is open.
    pub(crate) fn patience(&self) -> Option<Patience> {
        let is_http2 = self.stream.get_ref().1.alpn_protocol() == Some(b"h2");
        (!is_http2).then(|| Patience { peer: self.peer.clone(), limits: self.limits })
    }

    /// Whether it has lasted for too long without a proven caller. The task is woken to ask again.
    fn overdue(&mut self, cx: &mut Context<'_>) -> bool {
        if self.peer.proven() {
            self.unproven = None;
            return false;
        }
        let limits = self.limits;
        let unproven = self.unproven.get_or_insert_with(|| {
            // Before the first look is set, which finds that time over.
            let since = Instant::now();
            Unproven { look: Box::pin(sleep(limits.unproven)), since }
        });
        while unproven.look.as_mut().poll(cx).is_ready() {
            if self.preface > 0 || limits.are_over(unproven.since.elapsed(), self.peer.busy()) {
                return true;
            }
            let end = unproven.since + limits.unproven_at_most;
            unproven.look.as_mut().reset(end.min(Instant::now() + LOOK));
        }
        false
    }
}

/// Watches a connection from outside of it.
pub(crate) struct Patience {
    peer: Peer,
    limits: ConnectionLimits,
}

impl Patience {
    /// Resolves when the connection has lasted for too long without a proven caller.
    pub(crate) async fn ends(self) {
        let mut unproven_since = Instant::now();
        loop {
            sleep(LOOK).await;
            if self.peer.proven() {
                unproven_since = Instant::now();
                continue;
            }
            let lasted = unproven_since.elapsed();
            if self.limits.are_over(lasted, self.peer.busy()) {
                return;
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.preface = this.preface.saturating_sub(buf.filled().len() - before);
        if this.overdue(cx) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no call showed in time who calls")));
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
