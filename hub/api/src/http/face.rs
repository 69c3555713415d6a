//! Tells HTTP requests from gRPC's, and brings the first to the services behind the door.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use acb_hub_core::fault::Fault;
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, TE},
};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body as _, Frame};
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::{
    binding::{Binding, Found, find},
    refusal::{JSON, failed, grpc_without_http2, no_such_path, not_json, other_verbs},
    url,
};
use crate::{
    correlation::CORRELATION_ID,
    json::{
        call::{JsonCall, Said},
        error,
    },
    peer::Peer,
    status::to_status,
};

/// What a caller says beside the request, and the services hear. Nothing else passes.
const PASSED: [HeaderName; 4] = [
    AUTHORIZATION,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static(CORRELATION_ID),
];
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const LAST_EVENT_ID: &str = "last-event-id";
const GRPC: &str = "application/grpc";

/// What all of this is, for tools. It is the same for everybody, and nothing of a tenant's is in it: no token is asked for.
pub(super) const OPENAPI: &str = include_str!("../../../../docs/openapi.json");
const OPENAPI_PATH: &str = "/openapi.json";

/// The services, for callers of gRPC and of HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Face<S> {
    inner: S,
}

impl<S> Face<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Request<Body>> for Face<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if kind.starts_with(GRPC.as_bytes()) {
            // HTTP/1.1 hears nothing of its peer while an answer is open, and has no trailers for most clients.
            if request.version() < Version::HTTP_2 {
                return std::future::ready(Ok(grpc_without_http2())).boxed();
            }
            return self.inner.call(request).boxed();
        }
        if request.method() == Method::GET && request.uri().path() == OPENAPI_PATH {
            let mut response = Response::new(Body::new(Full::new(Bytes::from_static(OPENAPI.as_bytes()))));
            response.headers_mut().insert(CONTENT_TYPE, JSON);
            return std::future::ready(Ok(response)).boxed();
        }
        match translate(request) {
            Err(refusal) => std::future::ready(Ok(unkept(*refusal))).boxed(),
            Ok((request, call)) => {
                let answer = self.inner.call(request);
                async move { Ok(told(answer.await?, &call).await) }.boxed()
            }
        }
    }
}

/// The gRPC request of an HTTP request. Its body is still JSON: whoever the door lets in has it read.
fn translate(request: Request<Body>) -> Result<(Request<Body>, JsonCall), Box<Response<Body>>> {
    let (head, body) = request.into_parts();
    let (binding, variables) = match find(&head.method, head.uri.path()) {
        Found::Method(binding, variables) => (binding, variables),
        Found::Other(verbs) => return Err(Box::new(other_verbs(&verbs))),
        Found::Nothing => return Err(Box::new(no_such_path())),
    };
    let refused = |fault: Fault| Box::new(failed(&to_status(fault)));
    let said = said(&head.headers, head.uri.query(), &variables, binding).map_err(refused)?;
    let call = JsonCall::new(binding.method.clone(), binding.text_is.clone(), said);
    if call.has_text() && head.uri.query().is_some_and(|query| !query.is_empty()) {
        let why = "this method's fields are in its body: send no query";
        return Err(refused(Fault::invalid("QUERY_UNSUPPORTED", why)));
    }
    if call.has_text() && !body.is_end_stream() && !is_json(&head.headers) {
        return Err(Box::new(not_json()));
    }
    let mut inner = Request::new(if call.has_text() { body } else { Body::empty() });
    *inner.method_mut() = Method::POST;
    *inner.uri_mut() = Uri::try_from(binding.grpc_path()).map_err(|_| Box::new(no_such_path()))?;
    *inner.version_mut() = Version::HTTP_2;
    let headers = inner.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    for name in PASSED {
        if let Some(value) = head.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    if let Some(peer) = head.extensions.get::<Peer>() {
        inner.extensions_mut().insert(peer.clone());
    }
    inner.extensions_mut().insert(call.clone());
    Ok((inner, call))
}

/// What is said beside the JSON text.
fn said(headers: &HeaderMap, query: Option<&str>, variables: &[(&str, &str)], binding: &Binding) -> Result<Said, Fault> {
    let text = |name: &str| match headers.get(name).map(|value| value.to_str()) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.to_owned())),
        Some(Err(_)) => Err(Fault::invalid("HEADER_INVALID", format!("{name} takes visible ASCII characters"))),
    };
    let mut fields = url::fields(query.unwrap_or_default())?;
    for (name, value) in variables {
        fields.push(((*name).to_owned(), url::decode(value)?));
    }
    let last_event_id = if binding.method.is_server_streaming() { text(LAST_EVENT_ID)? } else { None };
    Ok(Said { fields, idempotency_key: text(IDEMPOTENCY_KEY)?, last_event_id })
}

/// Whether a body is said to be JSON. A page that another site made can't say so without being asked first.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    let in_utf8 = parameters.is_empty() || parameters.trim().eq_ignore_ascii_case("charset=utf-8");
    let plain = headers.get(CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    kind.trim().eq_ignore_ascii_case("application/json") && in_utf8 && plain
}

/// The HTTP answer of what the services answered.
async fn told(answer: Response<Body>, call: &JsonCall) -> Response<Body> {
    let (head, mut body) = answer.into_parts();
    let mut told = match failure(&head.headers) {
        Some(status) => failed(&status),
        None if call.answers_many() => {
            let mut response = Response::new(events(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            response
        }
        None => match body.frame().await {
            None => failed(&Status::internal("the call ended without an answer")),
            Some(Err(status)) => failed(&status),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(first) => {
                    let mut response = Response::new(text(first, body));
                    response.headers_mut().insert(CONTENT_TYPE, JSON);
                    response
                }
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    failed(&failure(&trailers).unwrap_or_else(|| Status::internal("the call ended without an answer")))
                }
            },
        },
    };
    if let Some(correlation) = head.headers.get(CORRELATION_ID) {
        told.headers_mut().insert(HeaderName::from_static(CORRELATION_ID), correlation.clone());
    }
    unkept(told)
}

/// What an agent reads is for nobody else, and what is refused now may not be so later.
fn unkept(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

fn failure(headers: &HeaderMap) -> Option<Status> {
    Status::from_header_map(headers).filter(|status| status.code() != Code::Ok)
}

/// A text whose first part is there. One that ends before its time breaks off, so that nobody takes it for whole.
fn text(first: Bytes, rest: Body) -> Body {
    Body::new(StreamBody::new(stream::unfold((Some(first), rest), |(first, mut rest)| async {
        if let Some(first) = first {
            return Some((Ok(Frame::data(first)), (None, rest)));
        }
        let frame = match rest.frame().await? {
            Err(status) => return Some((Err(status), (None, rest))),
            Ok(frame) => frame,
        };
        match frame.into_data() {
            Ok(data) => Some((Ok(Frame::data(data)), (None, rest))),
            Err(frame) => failure(&frame.into_trailers().unwrap_or_default()).map(|status| (Err(status), (None, rest))),
        }
    })))
}

/// Events. A failure is the last one, named `error`.
fn events(body: Body) -> Body {
    Body::new(StreamBody::new(stream::unfold(Some(body), |body| async {
        let mut body = body?;
        let status = match body.frame().await? {
            Err(status) => Some(status),
            Ok(frame) => match frame.into_data() {
                Ok(data) => return Some((Ok::<_, Status>(Frame::data(data)), Some(body))),
                Err(frame) => failure(&frame.into_trailers().unwrap_or_default()),
            },
        };
        let status = status?;
        let event = format!("event: error\ndata: {}\n\n", error::body(&status, error::http_status(&status)));
        Some((Ok(Frame::data(event.into())), None))
    })))
}
