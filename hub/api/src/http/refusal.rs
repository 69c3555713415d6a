//! Answers that say what is wrong, and what is wrong with HTTP itself.

use acb_hub_core::fault::{Code, Fault};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::Full;
use tonic::{Status, body::Body};

use crate::{
    json::error::{body, http_status, retry_after},
    status::{reason, to_status},
};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The answer of a call that failed.
pub(super) fn failed(status: &Status) -> Response<Body> {
    let code = match reason(status).as_str() {
        "REQUEST_TOO_LARGE" | "REQUEST_SIZE_LIMIT_EXCEEDED" => StatusCode::PAYLOAD_TOO_LARGE,
        "REQUEST_STALLED" => StatusCode::REQUEST_TIMEOUT,
        _ => http_status(status),
    };
    answer(status, code)
}

fn answer(status: &Status, code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body(status, code).to_string()))));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if code == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = retry_after(status) {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// The answer to what the hub does not do, by a status of HTTP's own.
fn refused(code: StatusCode, fault: Fault) -> Response<Body> {
    answer(&to_status(fault), code)
}

pub(super) fn no_such_path() -> Response<Body> {
    refused(
        StatusCode::NOT_FOUND,
        Fault::new(Code::NotFound, "NO_SUCH_PATH", "the hub has nothing at this path: see docs/http.md for what it has"),
    )
}

pub(super) fn other_verbs(verbs: &[Method]) -> Response<Body> {
    let allowed = verbs.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let why = format!("this path takes {allowed}");
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED, Fault::new(Code::Unimplemented, "NO_SUCH_METHOD", why));
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

pub(super) fn grpc_without_http2() -> Response<Body> {
    refused(
        StatusCode::HTTP_VERSION_NOT_SUPPORTED,
        Fault::new(
            Code::Unimplemented,
            "HTTP2_REQUIRED",
            "gRPC needs HTTP/2: over HTTP/1.1 the hub takes JSON, see docs/http.md",
        ),
    )
}

pub(super) fn not_json() -> Response<Body> {
    refused(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Fault::invalid(
            "CONTENT_TYPE_UNSUPPORTED",
            "send `content-type: application/json`, in UTF-8 and without a content-encoding",
        ),
    )
}
