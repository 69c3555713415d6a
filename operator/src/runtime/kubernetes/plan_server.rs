//! Where `acb plan` and `acb get orphans` ask: HTTP on the loopback address of the pod, so that the only way here is a port-forward.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    plans::{Asker, Plans, Refusal},
    server::{self, Answer, Bounds},
};
use crate::preview::{
    Report,
    question::{MAX_BYTES, MAX_PARTS, ORPHANS_PATH, PATH, Question, count_parts},
};

/// From the headers to the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// The exchange has as much again as a client needs to ask, and to take the answer.
const BOUNDS: Bounds = Bounds { connections: 8, exchange: Duration::from_secs(150) };

/// Listens where only this machine, which is the pod, can connect.
pub(super) async fn listen(port: u16) -> io::Result<TcpListener> {
    server::listen((Ipv4Addr::LOCALHOST, port)).await
}

/// Answers until stopped.
pub(super) async fn serve(listener: TcpListener, plans: Arc<Plans>, stop: CancellationToken) {
    let handle = move |request| {
        let plans = Arc::clone(&plans);
        async move {
            let late = || Refusal::Unavailable(format!("the plan was not made within {} s", ANSWER_WITHIN.as_secs()));
            match timeout(ANSWER_WITHIN, answer(&plans, request)).await.unwrap_or_else(|_| Err(late())) {
                Ok(answer) => answer,
                Err(refusal) => refuse(&refusal),
            }
        }
    };
    server::serve(listener, BOUNDS, stop, handle).await;
}

async fn answer(plans: &Plans, request: Request<Incoming>) -> Result<Answer, Refusal> {
    let (parts, body) = request.into_parts();
    // Nothing is read of those who are not known.
    let asker = plans.admit(bearer(&parts.headers)?).await?;
    match (&parts.method, parts.uri.path()) {
        (&Method::POST, PATH) => plan(plans, &asker, body).await.map(|report| written(StatusCode::OK, &report)),
        (&Method::GET, ORPHANS_PATH) => plans.orphans(&asker).await.map(|report| written(StatusCode::OK, &report)),
        _ => Err(Refusal::Malformed(format!("there are POST {PATH} and GET {ORPHANS_PATH}, and nothing else"))),
    }
}

async fn plan(plans: &Plans, asker: &Asker, body: Incoming) -> Result<Report, Refusal> {
    let body = Limited::new(body, MAX_BYTES).collect().await;
    let body = body.map_err(|error| {
        Refusal::Malformed(format!("the question can't be read, or has more than {MAX_BYTES} bytes: {error}"))
    })?;
    let body = body.to_bytes();
    if count_parts(&body) > MAX_PARTS {
        let message = format!("a plan is made for at most {MAX_PARTS} lists, maps and items: plan fewer objects at a time");
        return Err(Refusal::Malformed(message));
    }
    let _room = plans.room().await?;
    let question: Question =
        serde_json::from_slice(&body).map_err(|error| Refusal::Malformed(format!("not a question: {error}")))?;
    plans.answer(asker, &question).await
}

/// The token that the request carries.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Err(Refusal::Malformed("impersonation is not passed on: ask with a token of the one who is meant".into()));
    }
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = header.strip_prefix("Bearer ").map(str::trim).unwrap_or_default();
    if token.is_empty() {
        return Err(Refusal::Unauthenticated("there is no bearer token: a client certificate can't be passed on"));
    }
    Ok(token)
}

fn written(status: StatusCode, body: &impl Serialize) -> Answer {
    let (status, text) = match serde_json::to_vec(body) {
        Ok(text) => (status, text),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Vec::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// As an API server refuses, so that its clients understand.
fn refuse(refusal: &Refusal) -> Answer {
    let (status, reason) = refusal.status();
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": status.as_u16(), "reason": reason, "message": refusal.to_string(),
    });
    written(status, &body)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn who_asks_shows_a_token_and_acts_for_nobody_else() {
        assert_eq!(bearer(&headers(&[("authorization", "Bearer t")])).unwrap(), "t");
        for wrong in [&[][..], &[("authorization", "Basic dDp0")], &[("authorization", "Bearer ")]] {
            assert!(matches!(bearer(&headers(wrong)), Err(Refusal::Unauthenticated(_))));
        }
        let other = headers(&[("authorization", "Bearer t"), ("impersonate-user", "admin")]);
        assert!(matches!(bearer(&other), Err(Refusal::Malformed(_))));
    }
}
