//! Brings gRPC requests to the one door of core, and leaves the proven caller with those that it lets in.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use acb_hub_core::{
    directory::{caller::Caller, refresher::Connected},
    door::{
        admission::Door,
        rules::{Rule, rule},
    },
    fault::{Code, Fault},
    metrics::Metrics,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, header::AUTHORIZATION};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Status, body::Body};
use tower::Service;
use tracing::Instrument as _;

use crate::{
    open_calls::{Admitted, OpenCalls, access_ended},
    peer::{OpenCall, Peer},
    status::{code_name, explain, to_status},
};

/// Everything that the server serves, behind the door.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    door: Door,
    metrics: Arc<Metrics>,
    calls: OpenCalls,
}

impl<S> Guarded<S> {
    /// Puts the door before the services.
    pub fn new(inner: S, door: Door, metrics: Arc<Metrics>) -> Self {
        Self { inner, door, metrics, calls: OpenCalls::default() }
    }

    /// Ends calls whose callers lost their rights, for as long as it is polled.
    pub fn watch(&self) -> impl Future<Output = ()> + use<S> {
        let (calls, door) = (self.calls.clone(), self.door.clone());
        async move { calls.watch(&door).await }
    }
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone takes the place of the one that is ready.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let span = tracing::info_span!(
            "request",
            tenant = self.door.tenant(),
            method = tracing::field::Empty,
            agent = tracing::field::Empty,
            correlation_id = correlation(request.headers()),
        );
        let pass = Pass { door: self.door.clone(), metrics: self.metrics.clone(), calls: self.calls.clone() };
        Box::pin(pass.handle(inner, request).instrument(span))
    }
}

/// What one request takes with it through the door.
struct Pass {
    door: Door,
    metrics: Arc<Metrics>,
    calls: OpenCalls,
}

impl Pass {
    async fn handle<S>(self, mut inner: S, mut request: Request<Body>) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let peer = request.extensions().get::<Peer>().cloned();
        let address = peer.as_ref().map(Peer::address);
        let open = peer.as_ref().map(Peer::call);
        let Some(rule) = rule(request.uri().path()) else {
            self.metrics.error("unknown", "unimplemented");
            return Ok(refusal(Fault::new(
                Code::Unimplemented,
                "NO_SUCH_METHOD",
                "the hub has no such method: see its reflection service",
            )));
        };
        let operation = operation(rule);
        let span = tracing::Span::current();
        span.record("method", operation);
        let authorization = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let asks_too_much = |caller: &Option<Caller>| caller.is_none() && peer.as_ref().is_some_and(Peer::asks_too_much);
        let caller = match self.door.admit(rule, authorization).await {
            Ok(caller) if asks_too_much(&caller) => Err(Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_CALLS",
                "this connection has as many calls open as one may on which nobody has shown a token: try again when some have ended",
            )),
            other => other,
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err(fault) => {
                audit(operation, "refused", fault.reason, address);
                self.metrics.error(operation, code_name(fault.code as i32));
                return Ok(refusal(fault));
            }
        };
        // What a caller says about itself must not pass for what the door proved.
        request.extensions_mut().remove::<Caller>();
        let admitted = caller.map(|caller| {
            span.record("agent", caller.agent.name.as_str());
            let admitted = self.calls.enter(rule, &caller, peer);
            request.extensions_mut().insert(caller);
            admitted
        });
        let response = match &admitted {
            None => inner.call(request).await?,
            Some(admitted) => tokio::select! {
                response = inner.call(request.map(|body| admitted.guard(body))) => response?,
                () = admitted.ended() => refusal(access_ended()),
            },
        };
        let response = explain(response);
        let failure = Status::from_header_map(response.headers()).filter(|status| status.code() != tonic::Code::Ok);
        if let Some(status) = &failure {
            self.metrics.error(operation, code_name(status.code() as i32));
        }
        if rule.audited {
            let outcome = failure.as_ref().map_or("done", |status| code_name(status.code() as i32));
            audit(operation, outcome, "", address);
        }
        let Some(admitted) = admitted else { return Ok(response) };
        let connected = self.door.connected();
        Ok(response.map(|body| Body::new(Watched { body, admitted, _connected: connected, _open: open, ended: false })))
    }
}

/// The method, for people.
pub(crate) fn operation(rule: &Rule) -> &'static str {
    rule.path.rsplit('/').next().unwrap_or(rule.path)
}

/// The audit record; tenant, agent and correlation id come from the span.
fn audit(method: &'static str, outcome: &'static str, reason: &'static str, peer: Option<SocketAddr>) {
    tracing::info!(target: "acb::audit", method, outcome, reason, peer = peer.map(tracing::field::display));
}

fn refusal(fault: Fault) -> Response<Body> {
    to_status(fault).into_http()
}

/// What ties log lines of several hubs and agents together: the trace, or what the caller calls it.
fn correlation(headers: &HeaderMap) -> Option<&str> {
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(|text| text.split('-').nth(1));
    let named = headers.get("x-correlation-id").and_then(|value| value.to_str().ok());
    traceparent.or(named).map(|text| text.get(..64).unwrap_or(text))
}

/// A response that ends once its caller is no longer admitted: for streams, which outlive suspensions and tokens.
struct Watched {
    body: Body,
    admitted: Admitted,
    _connected: Connected,
    _open: Option<OpenCall>,
    ended: bool,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        if this.admitted.poll_ended(cx) {
            this.ended = true;
            let mut trailers = HeaderMap::new();
            let told = to_status(access_ended()).add_header(&mut trailers);
            return Poll::Ready(told.ok().map(|()| Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
