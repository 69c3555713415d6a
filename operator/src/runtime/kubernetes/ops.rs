//! `/livez`, `/readyz` and `/metrics`, for the kubelet and for Prometheus.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;

/// More than a kubelet and a few scrapers need.
const CONNECTIONS: usize = 64;
const HEADER_PATIENCE: Duration = Duration::from_secs(5);

/// What is missing before the operator can do its work; empty: ready. A process that stands by is ready.
pub type Missing = watch::Receiver<Vec<String>>;

fn answer(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn route(method: &Method, path: &str, missing: &Missing, metrics: &Metrics) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match path {
        "/livez" => answer(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => {
            let missing = missing.borrow();
            if missing.is_empty() {
                answer(StatusCode::OK, "ok\n".to_owned())
            } else {
                answer(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {}\n", missing.join(", ")))
            }
        }
        "/metrics" => match metrics.text() {
            Ok(text) => answer(StatusCode::OK, text),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => answer(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".to_owned()),
    }
}

/// Listens on every address.
///
/// # Errors
/// Where the port is taken.
pub async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await
}

/// Answers until stopped.
pub async fn serve(listener: TcpListener, missing: Missing, metrics: Metrics, stop: CancellationToken) {
    let room = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
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
        let Ok(place) = std::sync::Arc::clone(&room).try_acquire_owned() else { continue };
        let (missing, metrics) = (missing.clone(), metrics.clone());
        open.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = route(request.method(), request.uri().path(), &missing, &metrics);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
            // A client that goes away in the middle is none of ours.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let (sender, missing) = watch::channel(vec!["Tenants".to_owned()]);
        let metrics = Metrics::default();
        let status = |path| route(&Method::GET, path, &missing, &metrics).status();
        assert_eq!((status("/livez"), status("/readyz")), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
        sender.send_replace(Vec::new());
        assert_eq!((status("/readyz"), status("/metrics"), status("/")), (StatusCode::OK, StatusCode::OK, StatusCode::NOT_FOUND));
        assert_eq!(route(&Method::POST, "/readyz", &missing, &metrics).status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
