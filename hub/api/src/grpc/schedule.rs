//! `ScheduleService`.

use acb_hub_core::{
    fault::Fault,
    messages::scheduled::{ScheduledMessage, ScheduledMessages},
};
use acb_proto::v1::{
    self, CancelScheduledMessageRequest, CancelScheduledMessageResponse, ListScheduledMessagesRequest,
    ListScheduledMessagesResponse, ScheduleMessageRequest, ScheduleMessageResponse, schedule_service_server::ScheduleService,
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    answer_room::Answers,
    grpc::{
        caller::{caller, trail},
        message::{Trace, outgoing, wire_address, wire_kind},
        timestamp::{length, timestamp},
    },
    status::to_status,
};

/// Messages that are sent later.
#[derive(Clone, Debug)]
pub struct ScheduleGate {
    scheduled: ScheduledMessages,
}

impl ScheduleGate {
    /// Over this service of core.
    #[must_use]
    pub fn new(scheduled: ScheduledMessages) -> Self {
        Self { scheduled }
    }
}

#[tonic::async_trait]
impl ScheduleService for ScheduleGate {
    async fn schedule_message(
        &self,
        request: Request<ScheduleMessageRequest>,
    ) -> Result<Response<ScheduleMessageResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let trace = Trace::of(request.metadata());
        let ScheduleMessageRequest { message, deliver_after } = request.into_inner();
        let message = outgoing(message, &trace).map_err(to_status)?;
        // What is no time at all is as far from one that may be as zero is.
        let after = deliver_after.and_then(length).unwrap_or_default();
        let scheduled = self.scheduled.schedule(&caller.agent, message, after).await.map_err(to_status)?;
        trail.object("message", scheduled.id);
        Ok(Response::new(ScheduleMessageResponse {
            message_id: scheduled.id.to_string(),
            due_at: Some(timestamp(scheduled.due_at)),
            deduplicated: scheduled.deduplicated,
        }))
    }

    async fn list_scheduled_messages(
        &self,
        request: Request<ListScheduledMessagesRequest>,
    ) -> Result<Response<ListScheduledMessagesResponse>, Status> {
        let (caller, answers) = (caller(&request)?, Answers::of(&request));
        let ListScheduledMessagesRequest { all, page_size, page_token } = request.into_inner();
        let page = async {
            let page = self.scheduled.list(&caller.agent, all, page_size, &page_token).await.map_err(to_status)?;
            Ok(ListScheduledMessagesResponse {
                scheduled_messages: page.messages.iter().map(wire).collect(),
                next_page_token: page.next_page_token,
            })
        };
        answers.page(page).await
    }

    async fn cancel_scheduled_message(
        &self,
        request: Request<CancelScheduledMessageRequest>,
    ) -> Result<Response<CancelScheduledMessageResponse>, Status> {
        let (caller, trail) = (caller(&request)?, trail(&request));
        let id = Uuid::parse_str(&request.into_inner().message_id).map_err(|_| {
            let why = "a scheduled message is named by its id, as ScheduleMessage gives it";
            to_status(Fault::invalid("MESSAGE_ID_INVALID", why))
        })?;
        trail.object("message", id);
        let before = self.scheduled.cancel(&caller.agent, id).await.map_err(to_status)?;
        Ok(Response::new(CancelScheduledMessageResponse { before }))
    }
}

fn wire(ScheduledMessage { message, due_at, made_at }: &ScheduledMessage) -> v1::ScheduledMessage {
    v1::ScheduledMessage {
        message_id: message.id.to_string(),
        from: message.from.clone(),
        to: Some(wire_address(&message.to)),
        topic: message.topic.clone(),
        r#type: wire_kind(message.kind).into(),
        size: message.payload.len() as u64,
        due_at: Some(timestamp(*due_at)),
        scheduled_at: Some(timestamp(*made_at)),
    }
}
