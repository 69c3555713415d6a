//! `MessageService`.

use std::{pin::Pin, time::Duration};

use acb_hub_core::{
    fault::{Code, Fault},
    messages::{
        delivery::{self, DeliveryId},
        message::{self, MessageType, OutgoingMessage},
        service::Messages,
        session::{Room, SessionEvent, SessionEvents, SessionInput, SessionOptions},
    },
};
use acb_proto::v1::{
    self, Address, AgentNames, RequestAddress, RequestRequest, RequestResponse, SendMessageRequest, SendMessageResponse,
    SessionRequest, SessionResponse,
    address::To,
    message_service_server::MessageService,
    session_request::{self, Frame, Open},
    session_response::{self, Delivery, Draining, Failure, HeldBack, Opened, Sent, sent::Outcome},
};
use futures::Stream;
use http::HeaderMap;
use time::OffsetDateTime;
use tokio::{sync::mpsc, task::AbortHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};
use uuid::Uuid;

use crate::{
    answer_room::Answers,
    correlation::named_correlation,
    grpc::{
        caller::{caller, trail},
        timestamp::{length, timestamp},
    },
    request_body::Held,
    status::{explain_status, to_status},
};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TIMEOUT: Duration = Duration::from_secs(300);
/// The first frame is `Open`: an idle stream must not be held without it.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Frames on their way to the peer, beside what HTTP/2 holds. Core bounds their bytes, with those of what waits behind them.
const OUTGOING_FRAMES: usize = 16;
const MAX_ACKS_PER_FRAME: usize = 1000;

/// Messages between agents.
#[derive(Clone, Debug)]
pub struct MessageGate {
    messages: Messages,
    replica: String,
}

impl MessageGate {
    /// Over this service of core, on this replica.
    #[must_use]
    pub fn new(messages: Messages, replica: &str) -> Self {
        Self { messages, replica: replica.to_owned() }
    }
}

#[tonic::async_trait]
impl MessageService for MessageGate {
    async fn send_message(&self, request: Request<SendMessageRequest>) -> Result<Response<SendMessageResponse>, Status> {
        let caller = caller(&request)?;
        let trace = Trace::of(request.metadata());
        let message = outgoing(request.into_inner().message, &trace).map_err(to_status)?;
        let receipt = self.messages.send(&caller.agent, message).await.map_err(to_status)?;
        Ok(Response::new(accepted(receipt)))
    }

    async fn request(&self, request: Request<RequestRequest>) -> Result<Response<RequestResponse>, Status> {
        let (caller, answers) = (caller(&request)?, Answers::of(&request));
        let trace = Trace::of(request.metadata());
        let held = request.extensions().get::<Held>().cloned().unwrap_or_default();
        let RequestRequest { message, timeout } = request.into_inner();
        let timeout = match timeout {
            None => DEFAULT_TIMEOUT,
            Some(timeout) => {
                length(timeout).filter(|timeout| !timeout.is_zero() && *timeout <= MAX_TIMEOUT).ok_or_else(|| {
                    to_status(Fault::invalid("TIMEOUT_INVALID", "the timeout is more than 0 and at most 5 minutes"))
                })?
            }
        };
        let message = outgoing(message, &trace).map_err(to_status)?;
        // Core counts the message until it is sent; the wait for its reply holds nothing.
        held.release();
        let reply = self.messages.request(&caller.agent, message, timeout).await.map_err(to_status)?;
        answers.one(RequestResponse { reply: Some(wire_message(&reply)) }).await
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(&self, request: Request<Streaming<SessionRequest>>) -> Result<Response<Self::SessionStream>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let trace = Trace::of_session(request.metadata());
        let (gate, mut frames) = (self.clone(), request.into_inner());
        let (out, stream) = mpsc::channel(OUTGOING_FRAMES);
        // The answer's headers go out before the first frame comes: many clients wait for them before they send it.
        let task = tokio::spawn(async move {
            let session = async {
                let (options, filter) = opened(timeout(OPEN_WITHIN, frames.message()).await)?;
                gate.messages.open_session_matching(caller.agent.clone(), options, &filter).await.map_err(to_status)
            };
            match session.await {
                Err(status) => drop(out.send(Box::new((Err(status), None))).await),
                Ok(session) => {
                    trail.object("session", session.id);
                    let opened = Opened { session_id: session.id.to_string(), replica: gate.replica };
                    if out.send(Box::new((Ok(frame(session_response::Frame::Opened(opened))), None))).await.is_err() {
                        return;
                    }
                    tokio::select! {
                        // What the peer did wrong ends the session; that it is done sending does not.
                        Err(status) = take(frames, session.input, trace) => drop(out.send(Box::new((Err(status), None))).await),
                        () = give(session.events, &out) => {}
                    }
                }
            }
        });
        let stream = AbortOnDrop { stream: ReceiverStream::new(stream), task: task.abort_handle(), untaken: None };
        Ok(Response::new(Box::pin(stream)))
    }
}

/// A frame on its way, with the room that it takes. Boxed: a channel makes room for many before it has one.
type Outgoing = Box<(Result<SessionResponse, Status>, Option<Room>)>;

/// The task behind a response stream ends with it.
struct AbortOnDrop {
    stream: ReceiverStream<Outgoing>,
    task: AbortHandle,
    /// The room of the frame that goes out, until the next one is asked for.
    untaken: Option<Room>,
}

impl Stream for AbortOnDrop {
    type Item = Result<SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.untaken = None;
        Pin::new(&mut this.stream).poll_next(cx).map(|next| {
            let (frame, room) = *next?;
            this.untaken = room;
            Some(frame)
        })
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[allow(clippy::result_large_err)]
fn opened(
    first: Result<Result<Option<SessionRequest>, Status>, tokio::time::error::Elapsed>,
) -> Result<(SessionOptions, String), Status> {
    let first = first
        .map_err(|_| to_status(Fault::new(Code::DeadlineExceeded, "SESSION_NOT_OPENED", "send `Open` within 10 s of the call")))?
        .map_err(explain_status)?;
    match first.and_then(|request| request.frame) {
        Some(Frame::Open(Open { receive, max_unacknowledged, receiver, take_over, filter })) => {
            Ok((SessionOptions { receive, max_unacknowledged, receiver, take_over }, filter))
        }
        _ => Err(to_status(Fault::invalid("SESSION_NOT_OPENED", "the first frame of a session is `Open`"))),
    }
}

/// Brings the peer's frames to the session. When the peer has said that it is done, the session settles what came, and ends.
async fn take(mut frames: Streaming<SessionRequest>, input: SessionInput, trace: Trace) -> Result<(), Status> {
    while let Some(request) = frames.message().await.map_err(explain_status)? {
        match request.frame {
            Some(Frame::Send(session_request::Send { sequence, message })) => {
                let message = outgoing(message, &trace).map_err(to_status)?;
                input.send(sequence, message).await.map_err(to_status)?;
            }
            Some(Frame::Ack(session_request::Ack { delivery_ids })) => {
                input.ack(deliveries(&delivery_ids).map_err(to_status)?).await.map_err(to_status)?;
            }
            Some(Frame::InProgress(session_request::InProgress { delivery_ids })) => {
                input.in_progress(deliveries(&delivery_ids).map_err(to_status)?).await.map_err(to_status)?;
            }
            Some(Frame::Started(session_request::Started { delivery_ids })) => {
                input.started(deliveries(&delivery_ids).map_err(to_status)?).await.map_err(to_status)?;
            }
            Some(Frame::Open(_)) | None => {
                return Err(to_status(Fault::invalid(
                    "FRAME_UNEXPECTED",
                    "after `Open` a session takes `Send`, `Ack`, `Started` and `InProgress`",
                )));
            }
        }
    }
    // Without its input the session takes no more: the events end after the last outcome, and the stream with them.
    drop(input);
    std::future::pending().await
}

pub(super) fn deliveries(ids: &[String]) -> Result<Vec<DeliveryId>, Fault> {
    if ids.len() > MAX_ACKS_PER_FRAME {
        return Err(Fault::invalid("TOO_MANY_ACKS", format!("one frame names at most {MAX_ACKS_PER_FRAME} deliveries")));
    }
    ids.iter().map(|id| id.parse()).collect()
}

/// When to try again, where that is known.
fn retry_after(fault: &Fault) -> Option<prost_types::Duration> {
    fault.retry_after()?.try_into().ok()
}

async fn give(mut events: SessionEvents, out: &mpsc::Sender<Outgoing>) {
    while let Some((event, room)) = events.take().await {
        let response = match event {
            SessionEvent::Sent { sequence, outcome } => {
                let outcome = match outcome {
                    Ok(receipt) => Outcome::Accepted(accepted(receipt)),
                    Err(fault) => Outcome::Failed(Failure {
                        code: fault.code as i32,
                        reason: fault.reason.to_owned(),
                        retry_after: retry_after(&fault),
                        message: fault.message,
                    }),
                };
                Ok(session_response::Frame::Sent(Sent { sequence, outcome: Some(outcome) }))
            }
            SessionEvent::Delivery(delivery) => Ok(session_response::Frame::Delivery(wire_delivery(&delivery))),
            SessionEvent::HeldBack { partition, unacknowledged } => {
                Ok(session_response::Frame::HeldBack(HeldBack { partition, unacknowledged }))
            }
            SessionEvent::Draining => Ok(session_response::Frame::Draining(Draining {})),
            SessionEvent::Replaced => {
                Err(Fault::new(Code::Aborted, "SESSION_REPLACED", "a newer session of this agent took over: an agent has one"))
            }
            SessionEvent::Failed(fault) => Err(fault),
        };
        let last = response.is_err();
        if out.send(Box::new((response.map(frame).map_err(to_status), room))).await.is_err() || last {
            return;
        }
    }
}

pub(super) fn wire_delivery(delivery: &delivery::Delivery) -> Delivery {
    Delivery {
        delivery_id: delivery.id.to_string(),
        message: Some(wire_message(&delivery.message)),
        redelivered: delivery.redelivered,
        attempt: delivery.attempt,
    }
}

fn frame(frame: session_response::Frame) -> SessionResponse {
    SessionResponse { frame: Some(frame) }
}

fn accepted(receipt: message::Receipt) -> SendMessageResponse {
    SendMessageResponse { message_id: receipt.id.to_string(), deduplicated: receipt.deduplicated }
}

/// The trace and the correlation id of a call, for messages that bring none of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace {
    parent: String,
    state: String,
    correlation: String,
}

impl Trace {
    pub(super) fn of(metadata: &MetadataMap) -> Self {
        let headers: &HeaderMap = metadata.as_ref();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let correlation = named_correlation(headers).unwrap_or_default().to_owned();
        Self { parent: text("traceparent"), state: text("tracestate"), correlation }
    }

    /// A session is not one exchange: what it sends is not tied together by the call that it is.
    fn of_session(metadata: &MetadataMap) -> Self {
        Self { correlation: String::new(), ..Self::of(metadata) }
    }
}

pub(super) fn outgoing(message: Option<v1::OutgoingMessage>, trace: &Trace) -> Result<OutgoingMessage, Fault> {
    let message = message.ok_or_else(|| Fault::invalid("MESSAGE_MISSING", "the request has no message"))?;
    let kind = match message.r#type() {
        v1::MessageType::Unspecified | v1::MessageType::Event => MessageType::Event,
        v1::MessageType::Command => MessageType::Command,
        v1::MessageType::Query => MessageType::Query,
        v1::MessageType::Response => MessageType::Response,
    };
    if v1::MessageType::try_from(message.r#type).is_err() {
        return Err(Fault::invalid("MESSAGE_TYPE_UNKNOWN", format!("{} is no message type", message.r#type)));
    }
    let expires_at = message.expires_at.map(instant).transpose()?;
    let own_trace = !message.traceparent.is_empty();
    Ok(OutgoingMessage {
        to: address(message.to)?.ok_or_else(|| Fault::invalid("RECIPIENT_MISSING", "the message says not where to: set `to`"))?,
        topic: message.topic,
        kind,
        content_type: message.content_type,
        payload: message.payload,
        context_id: message.context_id,
        idempotency_key: message.idempotency_key,
        correlation_id: if message.correlation_id.is_empty() { trace.correlation.clone() } else { message.correlation_id },
        reply_to: address(message.reply_to)?,
        metadata: message.metadata.into_iter().collect(),
        expires_at,
        traceparent: if own_trace { message.traceparent } else { trace.parent.clone() },
        tracestate: if own_trace { message.tracestate } else { trace.state.clone() },
    })
}

pub(super) fn instant(at: prost_types::Timestamp) -> Result<OffsetDateTime, Fault> {
    let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| Fault::invalid("EXPIRY_INVALID", "expires_at is out of range"))
}

/// `None` where nothing is named.
pub(super) fn address(address: Option<Address>) -> Result<Option<message::Address>, Fault> {
    Ok(match address.and_then(|address| address.to) {
        None => None,
        Some(To::Agent(name)) => Some(message::Address::Agent(name)),
        Some(To::Group(name)) => Some(message::Address::Group(name)),
        Some(To::Agents(AgentNames { names })) => Some(message::Address::agents(names)?),
        Some(To::All(true)) => Some(message::Address::All),
        Some(To::All(false)) => {
            return Err(Fault::invalid("RECIPIENT_MISSING", "`all` is false: name an agent or a group, or set it to true"));
        }
        Some(To::Request(RequestAddress { agent, request_id })) => {
            let request_id = Uuid::parse_str(&request_id)
                .map_err(|_| Fault::invalid("REQUEST_ID_INVALID", "answer to Message.reply_to as it came"))?;
            Some(message::Address::Request { agent, request_id })
        }
    })
}

pub(super) fn wire_address(address: &message::Address) -> Address {
    let to = match address {
        message::Address::Agent(name) => To::Agent(name.clone()),
        message::Address::Group(name) => To::Group(name.clone()),
        message::Address::Agents(names) => To::Agents(AgentNames { names: names.iter().map(str::to_owned).collect() }),
        message::Address::All => To::All(true),
        message::Address::Request { agent, request_id } => {
            To::Request(RequestAddress { agent: agent.clone(), request_id: request_id.to_string() })
        }
    };
    Address { to: Some(to) }
}

pub(super) fn wire_kind(kind: MessageType) -> v1::MessageType {
    match kind {
        MessageType::Event => v1::MessageType::Event,
        MessageType::Command => v1::MessageType::Command,
        MessageType::Query => v1::MessageType::Query,
        MessageType::Response => v1::MessageType::Response,
    }
}

pub(super) fn wire_message(message: &message::Message) -> v1::Message {
    v1::Message {
        id: message.id.to_string(),
        from: message.from.clone(),
        to: Some(wire_address(&message.to)),
        topic: message.topic.clone(),
        r#type: wire_kind(message.kind).into(),
        content_type: message.content_type.clone(),
        payload: message.payload.clone(),
        context_id: message.context_id.clone(),
        correlation_id: message.correlation_id.clone(),
        reply_to: message.reply_to.as_ref().map(wire_address),
        metadata: message.metadata.clone().into_iter().collect(),
        sent_at: Some(timestamp(message.sent_at)),
        expires_at: Some(timestamp(message.expires_at)),
        traceparent: message.traceparent.clone(),
        tracestate: message.tracestate.clone(),
        idempotency_key: message.idempotency_key.clone(),
        replayed_from: message.replayed_from.map(|id| id.to_string()).unwrap_or_default(),
    }
}
