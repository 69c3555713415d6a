//! Receiving by single calls, for programs that hold no session.

use std::time::Duration;

use acb_proto::v1::{self, AcknowledgeMessagesRequest, PullMessagesRequest, session_response::Delivery};
use uuid::Uuid;

use crate::{Client, Error, client::Retry, wire};

/// The longest wait of one call.
const MOST: Duration = Duration::from_secs(20);
/// How much longer than the hub the client waits.
const SLACK: Duration = Duration::from_secs(10);
/// Deliveries that one call names at most.
const MOST_NAMED: usize = 1000;

/// Receives by single calls: see [`Client::puller`].
#[derive(Clone, Debug)]
pub struct Puller {
    client: Client,
    receiver: String,
    take_over: bool,
}

/// A message that was pulled. Until it is acknowledged the hub keeps it, and gives it out again.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// The message.
    pub message: v1::Message,
    /// What to acknowledge.
    pub delivery_id: String,
    /// Whether it may have been delivered before. Such are outside of the order.
    pub redelivered: bool,
    /// Which attempt it is, from 1. What is not acknowledged within 30 s comes again, and after the tenth attempt goes to the dead letters.
    pub attempt: u32,
}

impl Puller {
    /// Whether to end the session of another program that receives for this agent (the default). Otherwise that one stays, and the first call
    /// is refused with `RECEIVER_PRESENT`.
    #[must_use]
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// A name for the program, where a new process of it is to go on in the place of an older one. Otherwise each puller has a name of its own.
    #[must_use]
    pub fn receiver(mut self, name: impl Into<String>) -> Self {
        self.receiver = name.into();
        self
    }

    /// At most so many messages (1,000; 0 stands for 32): those that wait, or else the next ones that come within `wait`, of which the hub waits 20 s at
    /// most. One call at a time.
    pub async fn pull(&mut self, max_messages: u32, wait: Duration) -> Result<Vec<Pulled>, Error> {
        let wait = wait.min(MOST);
        let pulled = self
            .client
            .call("pull messages", Retry::Always, wait + SLACK, |line| {
                let request = PullMessagesRequest {
                    max_messages,
                    wait: wire::duration(wait),
                    receiver: self.receiver.clone(),
                    take_over: self.take_over,
                };
                async move { line.mailbox().pull_messages(request).await }
            })
            .await?;
        // From now on whoever takes over from this one does so for good.
        self.take_over = false;
        let taken = |delivery: Delivery| Pulled {
            message: delivery.message.unwrap_or_default(),
            delivery_id: delivery.delivery_id,
            redelivered: delivery.redelivered,
            attempt: delivery.attempt,
        };
        Ok(pulled.deliveries.into_iter().map(taken).collect())
    }

    /// Says that these were handled: they are not delivered again.
    pub async fn acknowledge<'a>(&self, pulled: impl IntoIterator<Item = &'a Pulled>) -> Result<(), Error> {
        let ids: Vec<String> = pulled.into_iter().map(|pulled| pulled.delivery_id.clone()).collect();
        for delivery_ids in ids.chunks(MOST_NAMED) {
            let request = AcknowledgeMessagesRequest {
                delivery_ids: delivery_ids.to_vec(),
                receiver: self.receiver.clone(),
                ..Default::default()
            };
            self.tell(request).await?;
        }
        Ok(())
    }

    /// Says that one that came again is still worked at: that delivery is no attempt, and the next one is put off by 30 s.
    pub async fn in_progress(&self, pulled: &Pulled) -> Result<(), Error> {
        let in_progress_delivery_ids = vec![pulled.delivery_id.clone()];
        self.tell(AcknowledgeMessagesRequest { in_progress_delivery_ids, receiver: self.receiver.clone(), ..Default::default() })
            .await
    }

    async fn tell(&self, request: AcknowledgeMessagesRequest) -> Result<(), Error> {
        let told = self.client.call("acknowledge messages", Retry::Always, Client::ATTEMPT, |line| {
            let request = request.clone();
            async move { line.mailbox().acknowledge_messages(request).await }
        });
        told.await.map(drop)
    }
}

impl Client {
    /// Receives by single calls, for a program that holds no session. What holds for a session holds for these.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use std::time::Duration;
    ///
    /// let mut puller = client.puller();
    /// loop {
    ///     let pulled = puller.pull(10, Duration::from_secs(20)).await?;
    ///     for one in &pulled {
    ///         println!("{}", one.message.topic);
    ///     }
    ///     puller.acknowledge(&pulled).await?;
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn puller(&self) -> Puller {
        Puller { client: self.clone(), receiver: Uuid::new_v4().to_string(), take_over: true }
    }
}
