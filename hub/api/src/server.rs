//! The server: HTTP/2 and HTTP/1.1 over the connections of [`crate::tls`], everything behind the door.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    io,
    pin::pin,
    time::Duration,
};

use acb_hub_core::{
    door::admission::Door,
    fault::{Code, Fault},
};
use futures::{Stream, StreamExt as _};
use http::{HeaderMap, Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, service::Routes};
use tower::Service;

use crate::{door::Guarded, http::face::Face, peer::Peer, status::to_status, tls::Connection};

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
    let (peer, patience) = (connection.peer(), connection.patience());
    let overdue = async {
        match patience {
            Some(patience) => patience.ends().await,
            None => pending().await,
        }
    };
    let service = service_fn(move |request| call(services.clone(), peer.clone(), request));
    let builder = builder();
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let overdue = pin!(overdue);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = overdue => return tracing::debug!("a connection is closed: no call showed in time who calls"),
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
    let Some(within) = deadline(request.headers()) else { return services.call(request).await };
    match timeout(within, services.call(request)).await {
        Ok(answer) => answer,
        Err(_) => {
            let why = "the time that the caller gave the call is over: it may have been carried out";
            Ok(to_status(Fault::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", why)).into_http())
        }
    }
}

/// How long a call may take until its answer begins, as its caller says
/// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): eight digits at most, and a unit.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let said = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = said.split_at_checked(said.len().checked_sub(1)?)?;
    if number.len() > 8 || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_deadline_is_as_its_caller_says() {
        let of = |text: &'static str| {
            deadline(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), HeaderValue::from_static(text))]))
        };
        assert_eq!(of("2S"), Some(Duration::from_secs(2)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(
            (of("5m"), of("7u"), of("9n")),
            (Some(Duration::from_millis(5)), Some(Duration::from_micros(7)), Some(Duration::from_nanos(9)))
        );
        for strange in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S", "+1S"] {
            assert_eq!(of(strange), None, "{strange}");
        }
    }
}
