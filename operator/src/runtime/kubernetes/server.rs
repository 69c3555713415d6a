//! A small HTTP server: so many connections at a time, each with so long for its headers, and an answer for every request.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// An answer, whole.
pub(super) type Answer = Response<Full<Bytes>>;

/// Listens.
///
/// # Errors
/// Where the port is taken.
pub(super) async fn listen(address: impl Into<SocketAddr>) -> io::Result<TcpListener> {
    TcpListener::bind(address.into()).await
}

/// Answers until stopped.
pub(super) async fn serve<H, F>(listener: TcpListener, connections: usize, stop: CancellationToken, handle: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(connections));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = open.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors, most likely: others may give some back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        // Who comes while all places are taken is hung up on, and comes again.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else { continue };
        let handle = handle.clone();
        open.spawn(async move {
            let service = service_fn(|request| {
                let answer = handle(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
            // A client that goes away in the middle is none of ours.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}
