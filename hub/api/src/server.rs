//! The server: HTTP/2 and HTTP/1.1 over the connections of [`crate::tls`], everything behind the door.

use std::{convert::Infallible, future::poll_fn, io, pin::pin, time::Duration};

use acb_hub_core::door::admission::Door;
use futures::{Stream, StreamExt as _};
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, service::Routes};
use tower::Service;

use crate::{door::Guarded, http::face::Face, peer::Peer, tls::Connection};

/// More than any header of ours, and little enough that many don't hurt.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// What HTTP/1.1 reads ahead of who reads it, headers among it.
const HTTP1_BUFFER: usize = 16 * 1024;
/// How long the headers of a request over HTTP/1.1 may take, and how long such a connection may be idle.
const HTTP1_HEADERS: Duration = Duration::from_secs(30);
const MAX_STREAMS_PER_CONNECTION: u32 = 256;
/// What a peer may send ahead of who reads it, on one call and on all calls of a connection. It lies in memory before anybody has counted it, so it
/// is small; who reads goes on reading while a message is incomplete, so that a large message needs no larger window.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A peer that is gone without a word is noticed within the sum.
const KEEPALIVE: Duration = Duration::from_secs(20);

type Services = Face<Guarded<Routes>>;

/// Serves connections until stopped, then waits for what is open to end.
pub async fn serve(
    incoming: impl Stream<Item = io::Result<Connection>>,
    routes: Routes,
    door: Door,
    stop: CancellationToken,
) -> io::Result<()> {
    let services = Face::new(Guarded::new(routes.prepare(), door.clone()));
    tokio::select! {
        () = serve_all(incoming, services, stop) => Ok(()),
        () = door.watch() => Err(io::Error::other("nobody looks at open calls any more")),
    }
}

async fn serve_all(incoming: impl Stream<Item = io::Result<Connection>>, services: Services, stop: CancellationToken) {
    let open = TaskTracker::new();
    {
        // Dropped before what is open is waited for: whoever connects now is refused, and goes to another replica.
        let mut incoming = pin!(incoming);
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => break,
                next = incoming.next() => next,
            };
            match next {
                None => break,
                Some(Ok(connection)) => drop(open.spawn(serve_one(connection, services.clone(), stop.clone()))),
                Some(Err(error)) => tracing::debug!(%error, "a connection failed before it was served"),
            }
        }
    }
    open.close();
    open.wait().await;
}

/// Serves one connection until its peer ends it. Once stopped, until its open calls are over.
async fn serve_one(connection: Connection, services: Services, stop: CancellationToken) {
    let peer = connection.peer();
    let service = service_fn(move |request| call(services.clone(), peer.clone(), request));
    let builder = builder();
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}

async fn call(mut services: Services, peer: Peer, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    poll_fn(|cx| services.poll_ready(cx)).await?;
    services.call(request).await
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HTTP1_HEADERS).max_buf_size(HTTP1_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    builder
}
