//! Brings gRPC requests to the one door of core, and leaves the proven caller with those that it lets in.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use acb_hub_core::{
    directory::caller::Caller,
    door::{
        admission::Door,
        rules::{Rule, rule},
    },
    fault::{Code, Fault},
    kit::quoted::quoted,
    metrics::Metrics,
};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::Service;
use tracing::{Instrument as _, Span};

use crate::{
    answer::{Answer, Lasting, settle},
    open_calls::{OpenCalls, access_ended},
    peer::Peer,
    request_body::{RequestBodies, RequestBody},
    status::{code_name, explain, to_status},
    trail::{Call, Record, Trail},
};

/// Everything that the server serves, behind the door.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    door: Door,
    metrics: Arc<Metrics>,
    calls: OpenCalls,
    bodies: RequestBodies,
}

impl<S> Guarded<S> {
    /// Puts the door before the services.
    pub fn new(inner: S, door: Door, metrics: Arc<Metrics>) -> Self {
        Self { inner, door, metrics, calls: OpenCalls::default(), bodies: RequestBodies::default() }
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
        let pass = Pass {
            door: self.door.clone(),
            metrics: self.metrics.clone(),
            calls: self.calls.clone(),
            bodies: self.bodies.clone(),
        };
        Box::pin(pass.handle(inner, request).instrument(span))
    }
}

/// What one request takes with it through the door.
struct Pass {
    door: Door,
    metrics: Arc<Metrics>,
    calls: OpenCalls,
    bodies: RequestBodies,
}

impl Pass {
    async fn handle<S>(self, mut inner: S, mut request: Request<Body>) -> Result<Response<Body>, Infallible>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let peer = request.extensions().get::<Peer>().cloned();
        let open = peer.as_ref().map(Peer::call);
        let Some(rule) = rule(request.uri().path()) else {
            self.metrics.error("unknown", "unimplemented");
            return Ok(refusal(Fault::new(
                Code::Unimplemented,
                "NO_SUCH_METHOD",
                "the hub has no such method: see its reflection service",
            )));
        };
        let span = Span::current();
        span.record("method", rule.method());
        let (address, trail, metrics) = (peer.as_ref().map(Peer::address), Trail::default(), self.metrics.clone());
        let record = Record::new(Call { span: span.clone(), rule, address, trail: trail.clone(), metrics });
        let (caller, body) = match self.admit(rule, request.headers(), peer.as_ref()).await {
            Ok(admitted) => admitted,
            Err(fault) => {
                record.refused(code_name(fault.code as i32), fault.reason);
                return Ok(refusal(fault));
            }
        };
        // What a caller says about itself must not pass for what the door proved.
        let extensions = request.extensions_mut();
        extensions.remove::<Caller>();
        extensions.insert(trail.clone());
        extensions.insert(body.held());
        let admitted = caller.map(|caller| {
            span.record("agent", caller.agent.name.as_str());
            if let Some(key) = &caller.key {
                trail.key(key);
            }
            let admitted = self.calls.enter(rule, &caller, peer);
            request.extensions_mut().insert(caller);
            admitted
        });
        let request = request.map(|incoming| body.guard(incoming));
        let response = match &admitted {
            None => inner.call(request).await?,
            Some(admitted) => tokio::select! {
                response = inner.call(request.map(|body| admitted.guard(body))) => response?,
                () = admitted.ended() => refusal(access_ended()),
            },
        };
        body.held().release();
        let mut response = explain(response);
        let room = response.extensions_mut().remove();
        let status = Status::from_header_map(response.headers());
        let record = if rule.answers_many && status.is_none() {
            record.begun();
            Some(record)
        } else {
            settle(record, status.as_ref());
            None
        };
        let connected = admitted.is_some().then(|| self.door.connected());
        let lasting = Lasting { _connected: connected, _open: open, _body: body, _room: room };
        Ok(response.map(|body| Body::new(Answer { body, admitted, record, ended: false, _lasting: lasting })))
    }

    /// The proven caller, where the method needs one, and what the call may read.
    async fn admit(&self, rule: &Rule, headers: &HeaderMap, peer: Option<&Peer>) -> Result<(Option<Caller>, RequestBody), Fault> {
        let authorization = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
        let caller = self.door.admit(rule, authorization).await?;
        if caller.is_none() && peer.is_some_and(Peer::asks_too_much) {
            return Err(Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_CALLS",
                "this connection has as many calls open as one may on which nobody has shown a token: try again when some have ended",
            ));
        }
        legible(headers)?;
        let body = self.bodies.open(rule, caller.as_ref(), peer)?;
        Ok((caller, body))
    }
}

/// Whether the hub can read what comes: it takes nothing compressed, which could be a thousand times larger than what was counted.
fn legible(headers: &HeaderMap) -> Result<(), Fault> {
    match headers.get(ENCODING) {
        Some(encoding) if encoding != "identity" => Err(Fault::new(
            Code::Unimplemented,
            "ENCODING_UNSUPPORTED",
            format!(
                "the hub does not read {ENCODING} {}: send without compression",
                quoted(&String::from_utf8_lossy(encoding.as_bytes()))
            ),
        )),
        _ => Ok(()),
    }
}

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";

fn refusal(fault: Fault) -> Response<Body> {
    let mut response = to_status(fault).into_http();
    response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

/// What ties log lines of several hubs and agents together: the trace, or what the caller calls it.
fn correlation(headers: &HeaderMap) -> Option<&str> {
    let traceparent = headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(|text| text.split('-').nth(1));
    let named = headers.get("x-correlation-id").and_then(|value| value.to_str().ok());
    traceparent.or(named).map(|text| text.get(..64).unwrap_or(text))
}
