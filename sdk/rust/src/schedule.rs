//! Messages that are sent later.

use std::time::Duration;

use acb_proto::v1::{
    CancelScheduledMessageRequest, ListScheduledMessagesRequest, ScheduleMessageRequest, ScheduleMessageResponse,
    ScheduledMessage,
};
use futures::Stream;

use crate::{Client, Error, Message, client::Retry, page, wire};

impl Client {
    /// Has a message sent after this time, 7 days at most. It is checked now; whether its sender may still send it, and its recipient receive it, is
    /// asked when it is due. By the clock of the hub's PostgreSQL: this machine's need not be right.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Message;
    /// use std::time::Duration;
    ///
    /// let reminder = Message::to_agent("worker-a").topic("remind").text("is the report ready?");
    /// let scheduled = client.schedule(reminder, Duration::from_secs(3600)).await?;
    /// client.cancel_scheduled(&scheduled.message_id).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn schedule(&self, message: Message, after: Duration) -> Result<ScheduleMessageResponse, Error> {
        let message = Some(message.build()?);
        self.call("schedule", Retry::Always, Self::ATTEMPT, |line| {
            let request = ScheduleMessageRequest { message: message.clone(), deliver_after: wire::duration(after) };
            async move { line.schedule().schedule_message(request).await }
        })
        .await
    }

    /// What waits to be sent, in the order in which it is due: what this agent scheduled, or what `all` agents did, which takes the role `admin`.
    pub fn scheduled(&self, all: bool) -> impl Stream<Item = Result<ScheduledMessage, Error>> + Send + use<> {
        let client = self.clone();
        page::all(move |page_token| {
            let client = client.clone();
            async move {
                let request = ListScheduledMessagesRequest { all, page_size: 0, page_token };
                let page = client
                    .call("list scheduled messages", Retry::Always, Self::ATTEMPT, |line| {
                        let request = request.clone();
                        async move { line.schedule().list_scheduled_messages(request).await }
                    })
                    .await?;
                Ok((page.scheduled_messages, page.next_page_token))
            }
        })
    }

    /// Cancels a scheduled message. Whether it had been cancelled before.
    pub async fn cancel_scheduled(&self, message_id: &str) -> Result<bool, Error> {
        let answer = self
            .call("cancel scheduled message", Retry::Always, Self::ATTEMPT, |line| {
                let request = CancelScheduledMessageRequest { message_id: message_id.to_owned() };
                async move { line.schedule().cancel_scheduled_message(request).await }
            })
            .await?;
        Ok(answer.before)
    }
}
