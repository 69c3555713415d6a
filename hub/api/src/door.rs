//! Brings requests to the one door of core, and leaves the proven caller with those that it lets in.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use acb_hub_core::{
    directory::caller::Caller,
    door::{
        admission::{Arrival, Door},
        call::Outcome,
        rules::of_grpc,
    },
    fault::{Code, Fault},
    kit::quoted::quoted,
};
use futures::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body};
use tower::Service;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    answer::{Answer, begin},
    correlation::{CORRELATION_ID, ties},
    ending::Admitted,
    json::{answer::translate, call::JsonCall},
    peer::{OpenCall, Peer},
    request_body::RequestBody,
    status::{explain, to_status},
};

/// Everything that the server serves, behind the door.
#[derive(Clone, Debug)]
pub struct Guarded<S> {
    inner: S,
    door: Door,
}

impl<S> Guarded<S> {
    /// Puts the door before the services.
    pub fn new(inner: S, door: Door) -> Self {
        Self { inner, door }
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
        let Some(rule) = of_grpc(request.uri().path()) else {
            let correlation = ties(request.headers()).correlation.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
            let refused = name(refusal(self.door.unknown()), correlation.parse().ok());
            return std::future::ready(Ok(refused)).boxed();
        };
        let peer = request.extensions().get::<Peer>().cloned();
        let open = peer.as_ref().map(Peer::call);
        let origin = peer.as_ref().map(Peer::origin).unwrap_or_default();
        let arrival = self.door.arrive(rule, origin, ties(request.headers()));
        let (span, named) = (arrival.span(), arrival.correlation().parse().ok());
        let handled = handle(inner, request, arrival, peer, open).instrument(span);
        let answer = handled.map(|answer| answer.map(|answer| name(answer, named)));
        answer.boxed()
    }
}

/// Brings one request through the door to its service.
async fn handle<S>(
    mut inner: S,
    mut request: Request<Body>,
    arrival: Arrival,
    peer: Option<Peer>,
    open: Option<OpenCall>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let mut call = match arrival.admit(authorization).await {
        Ok(call) => call,
        Err(fault) => return Ok(refusal(fault)),
    };
    if let Err(fault) = legible(request.headers()) {
        call.refuse(&fault);
        return Ok(refusal(fault));
    }
    if let Err(fault) = call.intend().await {
        return Ok(refusal(fault));
    }
    let json = request.extensions_mut().remove::<JsonCall>();
    let body = RequestBody::new(call.rule(), call.metered().clone());
    let admitted = call.caller().is_some().then_some(peer).map(|peer| Admitted::new(&mut call, peer));
    // A message that names nothing else has what its call is found by.
    if let Ok(correlation) = call.correlation().parse() {
        request.headers_mut().insert(CORRELATION_ID, correlation);
    }
    // What a caller says about itself must not pass for what the door proved.
    let extensions = request.extensions_mut();
    extensions.remove::<Caller>();
    if let Some(caller) = call.caller() {
        extensions.insert(caller.clone());
    }
    extensions.insert(call.origin());
    extensions.insert(call.trail().clone());
    extensions.insert(call.metered().clone());
    extensions.insert(body.held());
    let metered = call.metered().clone();
    let request = request.map(|incoming| match &json {
        Some(json) => body.guard_json(incoming, json.clone()),
        None => body.guard(incoming),
    });
    let response = match &admitted {
        None => inner.call(request).await?,
        Some(admitted) => tokio::select! {
            response = inner.call(request.map(|body| admitted.guard(body))) => response?,
            () = admitted.ended() => {
                call.settle(Outcome::Ended(admitted.reason()));
                refusal(admitted.reason().fault())
            }
        },
    };
    body.held().release();
    let mut response = explain(response);
    let room = response.extensions_mut().remove();
    let status = Status::from_header_map(response.headers());
    if let Err(fault) = begin(&mut call, status.as_ref()).await {
        return Ok(refusal(fault));
    }
    Ok(response.map(|body| {
        let body = match json {
            Some(json) => translate(body, json, metered),
            None => body,
        };
        Body::new(Answer::new(body, call, admitted, room, open))
    }))
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

/// Tells the caller by what its call is found in the hub's log and in the audit trail.
fn name(mut answer: Response<Body>, correlation: Option<HeaderValue>) -> Response<Body> {
    if let Some(correlation) = correlation {
        answer.headers_mut().insert(CORRELATION_ID, correlation);
    }
    answer
}
