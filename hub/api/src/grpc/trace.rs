//! `TraceService`.

use acb_hub_core::{
    fault::Fault,
    messages::trace::{
        event::Happening,
        search::{self, TraceRecipient, Traces},
    },
};
use acb_proto::v1::{
    self, GetMessageTraceRequest, GetMessageTraceResponse, MessageTrace, TraceEvent, trace_event::Kind,
    trace_service_server::TraceService,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    answer_room::Answers,
    grpc::{
        caller::{caller, trail},
        message::{wire_address, wire_kind},
        timestamp::timestamp,
    },
    status::to_status,
};

/// What happened to messages.
#[derive(Clone, Debug)]
pub struct TraceGate {
    traces: Traces,
}

impl TraceGate {
    /// Over this service of core.
    #[must_use]
    pub fn new(traces: Traces) -> Self {
        Self { traces }
    }
}

#[tonic::async_trait]
impl TraceService for TraceGate {
    async fn get_message_trace(
        &self,
        request: Request<GetMessageTraceRequest>,
    ) -> Result<Response<GetMessageTraceResponse>, Status> {
        let (caller, trail, answers) = (caller(&request)?, trail(&request), Answers::of(&request));
        let id = Uuid::parse_str(&request.into_inner().message_id).map_err(|_| {
            let why = "a message is named by its id, as SendMessage gives it";
            to_status(Fault::invalid("MESSAGE_ID_INVALID", why))
        })?;
        trail.object("message", id);
        let trace = self.traces.trace(&caller.agent, id).await.map_err(to_status)?;
        answers.one(GetMessageTraceResponse { trace: Some(wire(trace)) }).await
    }
}

fn wire(trace: search::MessageTrace) -> MessageTrace {
    let search::MessageTrace { message, place, logged_at, events, recipients, more_recipients } = trace;
    MessageTrace {
        message_id: message.id.to_string(),
        from: message.from,
        to: Some(wire_address(&message.to)),
        topic: message.topic,
        r#type: wire_kind(message.kind).into(),
        size: message.payload.len() as u64,
        correlation_id: message.correlation_id,
        traceparent: message.traceparent,
        accepted_at: Some(timestamp(message.accepted_at)),
        logged_at: Some(timestamp(logged_at)),
        expires_at: Some(timestamp(message.expires_at)),
        place: format!("{}-{}", place.partition, place.position),
        events: events.into_iter().map(event).collect(),
        recipients: recipients
            .into_iter()
            .map(|TraceRecipient { agent, acknowledged }| v1::TraceRecipient { agent, acknowledged })
            .collect(),
        more_recipients: u32::try_from(more_recipients).unwrap_or(u32::MAX),
    }
}

fn event(search::TraceEvent { at, what, replica, agent, attempt }: search::TraceEvent) -> TraceEvent {
    let (kind, reason) = match what {
        Happening::Accepted => (Kind::Accepted, ""),
        Happening::Delivered => (Kind::Delivered, ""),
        Happening::Redelivered => (Kind::Redelivered, ""),
        Happening::Acknowledged => (Kind::Acknowledged, ""),
        Happening::Dead(reason) => (Kind::Dead, reason.as_str()),
    };
    TraceEvent { time: Some(timestamp(at)), kind: kind.into(), replica, agent, attempt, reason: reason.to_owned() }
}
