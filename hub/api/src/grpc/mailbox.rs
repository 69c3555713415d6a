//! `MailboxService`.

use std::time::Duration;

use acb_hub_core::{
    fault::Fault,
    messages::{pull::MAX_WAIT, service::Messages, session::Room},
};
use acb_proto::v1::{
    AcknowledgeMessagesRequest, AcknowledgeMessagesResponse, CountUnreadRequest, CountUnreadResponse, ListUnreadRequest,
    ListUnreadResponse, PullMessagesRequest, PullMessagesResponse, WaitForUnreadRequest, WaitForUnreadResponse,
    mailbox_service_server::MailboxService,
};
use tonic::{Request, Response, Status};

use crate::{
    answer_room::AnswerRoom,
    grpc::{
        caller::caller,
        message::{deliveries, wire_delivery, wire_message},
        timestamp::length,
    },
    status::to_status,
};

/// Mailboxes without sessions.
#[derive(Clone, Debug)]
pub struct MailboxGate {
    messages: Messages,
}

impl MailboxGate {
    /// Over this service of core.
    #[must_use]
    pub fn new(messages: Messages) -> Self {
        Self { messages }
    }
}

#[tonic::async_trait]
impl MailboxService for MailboxGate {
    async fn pull_messages(&self, request: Request<PullMessagesRequest>) -> Result<Response<PullMessagesResponse>, Status> {
        let caller = caller(&request)?;
        let PullMessagesRequest { max_messages, wait, receiver, take_over } = request.into_inner();
        let wait = wait_of(wait).map_err(to_status)?;
        let pulled = self.messages.pull(caller.agent, &receiver, take_over, max_messages, wait).await.map_err(to_status)?;
        let deliveries = pulled.deliveries.iter().map(wire_delivery).collect();
        Ok(with_room(PullMessagesResponse { deliveries }, pulled.room))
    }

    async fn acknowledge_messages(
        &self,
        request: Request<AcknowledgeMessagesRequest>,
    ) -> Result<Response<AcknowledgeMessagesResponse>, Status> {
        let caller = caller(&request)?;
        let AcknowledgeMessagesRequest { delivery_ids, in_progress_delivery_ids, receiver } = request.into_inner();
        let acknowledged = deliveries(&delivery_ids).map_err(to_status)?;
        let in_progress = deliveries(&in_progress_delivery_ids).map_err(to_status)?;
        self.messages.acknowledge(caller.agent, &receiver, acknowledged, in_progress).await.map_err(to_status)?;
        Ok(Response::new(AcknowledgeMessagesResponse {}))
    }

    async fn list_unread(&self, request: Request<ListUnreadRequest>) -> Result<Response<ListUnreadResponse>, Status> {
        let caller = caller(&request)?;
        let ListUnreadRequest { from, page_size, page_token, filter } = request.into_inner();
        let page =
            self.messages.unread().list(&caller.agent, (&from, &filter), page_size, &page_token).await.map_err(to_status)?;
        let next_page_token = if page.more { page.position } else { String::new() };
        let messages = page.messages.iter().map(|message| wire_message(message)).collect();
        Ok(with_room(ListUnreadResponse { messages, next_page_token }, page.room))
    }

    async fn count_unread(&self, request: Request<CountUnreadRequest>) -> Result<Response<CountUnreadResponse>, Status> {
        let caller = caller(&request)?;
        let count = self.messages.unread().count(&caller.agent, &request.into_inner().from).await.map_err(to_status)?;
        let by_sender = count.by_sender.into_iter().collect();
        Ok(Response::new(CountUnreadResponse { messages: count.messages, by_sender, more: count.more }))
    }

    async fn wait_for_unread(&self, request: Request<WaitForUnreadRequest>) -> Result<Response<WaitForUnreadResponse>, Status> {
        let caller = caller(&request)?;
        let WaitForUnreadRequest { from, after, timeout, filter } = request.into_inner();
        let timeout = wait_of(timeout).map_err(to_status)?;
        let page = self.messages.unread().wait(&caller.agent, (&from, &filter), &after, timeout).await.map_err(to_status)?;
        let messages = page.messages.iter().map(|message| wire_message(message)).collect();
        Ok(with_room(WaitForUnreadResponse { messages, position: page.position }, page.room))
    }
}

/// An answer that holds its room until the peer has taken it.
fn with_room<T>(answer: T, rooms: Vec<Room>) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(AnswerRoom::new(rooms));
    response
}

/// How long a call may wait for messages.
fn wait_of(timeout: Option<prost_types::Duration>) -> Result<Duration, Fault> {
    let invalid = || Fault::invalid("TIMEOUT_INVALID", "the timeout is 0 to 20 s");
    match timeout {
        None => Ok(MAX_WAIT),
        Some(timeout) => length(timeout).filter(|timeout| *timeout <= MAX_WAIT).ok_or_else(invalid),
    }
}
