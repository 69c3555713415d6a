//! `/livez`, `/readyz` and `/metrics`, for the kubelet and for Prometheus.

use std::{
    future::ready,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use super::{
    metrics::Metrics,
    pulse::Pulse,
    server::{self, Answer, Bounds},
};

/// More than a kubelet and a few scrapers need.
const BOUNDS: Bounds = Bounds { connections: 64, exchange: Duration::from_secs(10) };

/// What is missing before the operator can do its work; empty: ready. A process that stands by is ready.
pub type Missing = watch::Receiver<Vec<String>>;

fn answer(status: StatusCode, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn route(method: &Method, path: &str, missing: &Missing, metrics: &Metrics, pulse: &Pulse, now: Instant) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return answer(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match path {
        "/livez" => match pulse.stands_still(now) {
            None => answer(StatusCode::OK, "ok\n".to_owned()),
            Some(still) => {
                let text = format!("nothing was looked at for {} s, although this process leads\n", still.as_secs());
                answer(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        },
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
    server::listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
}

/// Answers until stopped.
pub async fn serve(listener: TcpListener, missing: Missing, metrics: Metrics, pulse: Pulse, stop: CancellationToken) {
    let handle = move |request: http::Request<hyper::body::Incoming>| {
        ready(route(request.method(), request.uri().path(), &missing, &metrics, &pulse, Instant::now()))
    };
    server::serve(listener, BOUNDS, stop, handle).await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let (sender, missing) = watch::channel(vec!["Tenants".to_owned()]);
        let metrics = Metrics::default();
        let pulse = Pulse::default();
        let now = Instant::now();
        let status = |path| route(&Method::GET, path, &missing, &metrics, &pulse, now).status();
        assert_eq!((status("/livez"), status("/readyz")), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
        sender.send_replace(Vec::new());
        assert_eq!((status("/readyz"), status("/metrics"), status("/")), (StatusCode::OK, StatusCode::OK, StatusCode::NOT_FOUND));
        assert_eq!(route(&Method::POST, "/readyz", &missing, &metrics, &pulse, now).status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn a_leader_whose_loop_stands_still_is_not_alive() {
        let (_sender, missing) = watch::channel(Vec::new());
        let (metrics, pulse) = (Metrics::default(), Pulse::default());
        let at = |now| route(&Method::GET, "/livez", &missing, &metrics, &pulse, now).status();
        let later = Instant::now() + Duration::from_secs(600);
        assert_eq!(at(later), StatusCode::OK, "who does not lead has nothing to look at");
        pulse.beat();
        assert_eq!((at(Instant::now()), at(later)), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
        pulse.rest();
        assert_eq!(at(later), StatusCode::OK);
    }
}
