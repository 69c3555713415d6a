//! A small HTTP server: so many connections at a time, one request on each, and so long for all of it.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// How far a connection is: its request is not there yet, is worked on, or has its answer.
const WAITS: u8 = 0;
const WORKS: u8 = 1;
const ANSWERED: u8 = 2;

/// An answer, whole.
pub(super) type Answer = Response<Full<Bytes>>;

/// What clients may take up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// At a time.
    pub(super) connections: usize,
    /// From the first byte of a request to the last of its answer.
    pub(super) exchange: Duration,
}

/// A connection that is open.
struct Connection {
    phase: Arc<AtomicU8>,
    task: AbortHandle,
}

/// Listens.
///
/// # Errors
/// Where the port is taken.
pub(super) async fn listen(address: impl Into<SocketAddr>) -> io::Result<TcpListener> {
    TcpListener::bind(address.into()).await
}

/// Which connection ends for a newcomer: the oldest whose request never came, or else the oldest that does not take its answer. Nobody who
/// only holds connections keeps others out.
fn gives_way(open: &[Connection]) -> Option<usize> {
    let oldest = |phase: u8| open.iter().position(|connection| connection.phase.load(Ordering::Relaxed) == phase);
    oldest(WAITS).or_else(|| oldest(ANSWERED))
}

/// Answers until stopped.
pub(super) async fn serve<H, F>(listener: TcpListener, bounds: Bounds, stop: CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    // The oldest first.
    let mut open: Vec<Connection> = Vec::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: others may give some back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.retain(|connection| !connection.task.is_finished());
        if open.len() >= bounds.connections {
            // Where every one is worked on, the newcomer is hung up on, and comes again.
            let Some(oldest) = gives_way(&open) else { continue };
            open.remove(oldest).task.abort();
        }
        let phase = Arc::new(AtomicU8::new(WAITS));
        let (handle, at) = (handle.clone(), Arc::clone(&phase));
        let task = tasks.spawn(async move {
            let service = service_fn(|request| {
                at.store(WORKS, Ordering::Relaxed);
                let (answer, at) = (handle(request), Arc::clone(&at));
                async move {
                    let answer = answer.await;
                    at.store(ANSWERED, Ordering::Relaxed);
                    Ok::<_, Infallible>(answer)
                }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE).keep_alive(false);
            // A client that goes away in the middle, or takes too long, is none of ours.
            let _ = timeout(bounds.exchange, server.serve_connection(TokioIo::new(stream), service)).await;
        });
        open.push(Connection { phase, task });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
        sync::{Notify, Semaphore},
    };

    use super::*;

    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const SLOW: &str = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";

    /// Who asks for `/slow` has arrived, and then waits to be released.
    struct Slow {
        released: Notify,
        arrived: Semaphore,
    }

    async fn server(bounds: Bounds) -> (SocketAddr, Arc<Slow>) {
        let listener = listen((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let slow = Arc::new(Slow { released: Notify::new(), arrived: Semaphore::new(0) });
        let (address, slows) = (listener.local_addr().unwrap(), Arc::clone(&slow));
        let handle = move |request: Request<Incoming>| {
            let slow = Arc::clone(&slows);
            async move {
                if request.uri().path() == "/slow" {
                    let released = slow.released.notified();
                    slow.arrived.add_permits(1);
                    released.await;
                }
                Response::new(Full::new(Bytes::from_static(b"answered")))
            }
        };
        tokio::spawn(serve(listener, bounds, CancellationToken::new(), handle));
        (address, slow)
    }

    fn bounds(exchange: Duration) -> Bounds {
        Bounds { connections: 2, exchange }
    }

    async fn connect(address: SocketAddr, says: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(says.as_bytes()).await.unwrap();
        stream
    }

    /// What comes until the server closes. One that is hung up on may be reset.
    async fn heard(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let ended = timeout(Duration::from_secs(4), stream.read_to_end(&mut text)).await;
        ended.expect("the server closes").ok();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn who_only_holds_connections_keeps_nobody_out() {
        let (address, _) = server(bounds(Duration::from_secs(60))).await;
        let mut oldest = connect(address, "").await;
        let mut younger = connect(address, "").await;
        let mut newcomer = connect(address, REQUEST).await;
        assert!(heard(&mut newcomer).await.ends_with("answered"));
        assert_eq!(heard(&mut oldest).await, "");
        younger.write_all(REQUEST.as_bytes()).await.unwrap();
        assert!(heard(&mut younger).await.ends_with("answered"));
    }

    #[tokio::test]
    async fn a_request_that_is_worked_on_is_not_broken_off() {
        let (address, slow) = server(bounds(Duration::from_secs(60))).await;
        let (mut one, mut other) = (connect(address, SLOW).await, connect(address, SLOW).await);
        let _both = timeout(Duration::from_secs(4), slow.arrived.acquire_many(2)).await.unwrap().unwrap();
        assert_eq!(heard(&mut connect(address, REQUEST).await).await, "", "hung up on");
        slow.released.notify_waiters();
        for stream in [&mut one, &mut other] {
            assert!(heard(stream).await.ends_with("answered"));
        }
    }

    #[tokio::test]
    async fn an_exchange_ends() {
        let (address, _) = server(bounds(Duration::from_millis(200))).await;
        assert_eq!(heard(&mut connect(address, SLOW).await).await, "");
    }
}
