//! What happened to messages.

use acb_proto::v1::{GetMessageTraceRequest, MessageTrace};

use crate::{Client, Error, client::Retry};

impl Client {
    /// One message, without its content, and what happened to it: of what this agent sent or is to receive, and with the roles admin and auditor of all.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Message;
    ///
    /// let sent = client.send(Message::to_agent("worker-a").text("hello")).await?;
    /// for event in client.message_trace(&sent.message_id).await?.events {
    ///     println!("{:?} {} at {}", event.kind(), event.agent, event.replica);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn message_trace(&self, message_id: &str) -> Result<MessageTrace, Error> {
        let answer = self
            .call("get message trace", Retry::Always, Self::ATTEMPT, |line| {
                let request = GetMessageTraceRequest { message_id: message_id.to_owned() };
                async move { line.traces().get_message_trace(request).await }
            })
            .await?;
        Ok(answer.trace.unwrap_or_default())
    }
}
