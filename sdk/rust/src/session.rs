//! A session: sends in order, receives and acknowledges, over whichever connection there is at the moment.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use acb_proto::v1::session_request::Open;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use uuid::Uuid;

use crate::{
    Client, Error, SendMessageResponse,
    handler::{BoxError, Handlers},
    inbox::Inbox,
    link::{Command, Driver, End},
    message::{Message, Received},
};

/// How long an orderly end may take.
const CLOSING: Duration = Duration::from_secs(5);

/// Gathers how a [`Session`] is to be.
#[derive(Debug)]
pub struct SessionBuilder {
    client: Client,
    receive: bool,
    max_unacknowledged: u32,
    filter: String,
    take_over: bool,
    reconnect_for: Duration,
}

impl SessionBuilder {
    /// Whether to receive (the default). One that only sends takes nothing from the mailbox, and ends no other session of the agent.
    #[must_use]
    pub fn receive(mut self, receive: bool) -> Self {
        self.receive = receive;
        self
    }

    /// How many messages may be with the application at once: 1 to 1,000; 100 unless said otherwise.
    #[must_use]
    pub fn max_unacknowledged(mut self, count: u32) -> Self {
        self.max_unacknowledged = count.clamp(1, 1000);
        self
    }

    /// Receives those messages alone that match: a CEL expression over `message`, such as `message.topic == "orders"`. Others stay unread in
    /// the mailbox, for a later session of the agent. Where 1,000 of a partition of the log wait so, the hub gives nothing more of that
    /// partition until a session without this filter took them, or they expired.
    #[must_use]
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.filter = filter.into();
        self
    }

    /// Whether to end the session of another program that receives for this agent (the default, so that a program that was started anew is not kept
    /// out by what is left of the old one). Otherwise that one stays, and this session is refused with `RECEIVER_PRESENT`. A session that
    /// connects again goes on in either case, unless another program has taken over.
    #[must_use]
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// How long to try to connect again before the session ends with an error; 5 minutes unless said otherwise. What was sent and is not
    /// answered for after 5 minutes fails all the same: sent again after that, it might arrive twice.
    #[must_use]
    pub fn reconnect_for(mut self, time: Duration) -> Self {
        self.reconnect_for = time;
        self
    }

    /// Opens it. Fails where the hub refuses it, or where none answers within the client's time.
    pub async fn open(self) -> Result<Session, Error> {
        let capacity = self.max_unacknowledged as usize;
        let (commands, command_queue) = mpsc::channel(64);
        let (deliveries, delivery_queue) = mpsc::channel(capacity);
        let (opened, opening) = oneshot::channel();
        let (replica, replica_watch) = watch::channel(String::new());
        let end = Arc::new(Mutex::new(None));
        let driver = Driver::new(
            self.client.clone(),
            Inbox::new(),
            Open {
                receive: self.receive,
                max_unacknowledged: self.max_unacknowledged,
                receiver: Uuid::new_v4().to_string(),
                take_over: self.take_over,
                filter: self.filter,
            },
            self.reconnect_for,
            (command_queue, deliveries, replica, end.clone()),
        );
        let task = tokio::spawn(driver.run(opened));
        let guard = Guard(task);
        opening.await.map_err(|_| Error::Unavailable("the session ended before it was open".to_owned()))??;
        Ok(Session {
            sender: Sender { commands, end: end.clone() },
            deliveries: delivery_queue,
            replica: replica_watch,
            end,
            handlers: Handlers::default(),
            driver: guard,
        })
    }
}

fn ended(end: &End) -> Error {
    let error = end.lock().unwrap_or_else(PoisonError::into_inner).clone();
    error.unwrap_or_else(|| Error::Unavailable("the session is closed".to_owned()))
}

#[derive(Debug)]
struct Guard(JoinHandle<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends, receives and acknowledges on one stream.
///
/// Where the connection breaks, the session goes on with any replica: what was sent and not yet acknowledged is sent again first, oldest
/// first, under the same keys; what was received and handled is not handed over a second time.
///
/// ```no_run
/// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
/// use acb_sdk::Message;
///
/// #[derive(serde::Deserialize)]
/// struct Task { document: String }
///
/// let mut session = client.session().open().await?;
/// session.on("task", |task: Task, received| async move {
///     received.reply(Message::answer().topic("done").text(task.document)).await?;
///     Ok(())
/// });
/// session.run().await
/// # }
/// ```
#[derive(Debug)]
pub struct Session {
    sender: Sender,
    deliveries: mpsc::Receiver<Received>,
    replica: watch::Receiver<String>,
    end: End,
    handlers: Handlers,
    driver: Guard,
}

impl Session {
    /// A handle that sends on this session; cheap to clone.
    #[must_use]
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The name of the replica that holds the session now.
    #[must_use]
    pub fn replica(&self) -> String {
        self.replica.borrow().clone()
    }

    /// Follows [`replica`](Self::replica): changes with each reconnect.
    #[must_use]
    pub fn replica_changes(&self) -> watch::Receiver<String> {
        self.replica.clone()
    }

    /// Sends one message and waits until it is durable.
    pub async fn send(&self, message: Message) -> Result<SendMessageResponse, Error> {
        self.sender.send(message).await
    }

    /// The next message, for those who want no handlers. An error is the end of the session.
    pub async fn next(&mut self) -> Result<Received, Error> {
        match self.deliveries.recv().await {
            Some(received) => {
                received.start();
                Ok(received)
            }
            None => Err(ended(&self.end)),
        }
    }

    /// Registers the handler of a topic. Payloads are decoded from JSON. A message whose handler fails (or whose payload can't be decoded) is
    /// logged and not acknowledged.
    pub fn on<T, F, Fut>(&mut self, topic: impl Into<String>, handler: F)
    where
        T: serde::de::DeserializeOwned + Send + 'static,
        F: Fn(T, Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.handlers.on(topic.into(), handler);
    }

    /// Registers the handler of every topic that has none.
    pub fn on_other<F, Fut>(&mut self, handler: F)
    where
        F: Fn(Received) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        self.handlers.on_other(handler);
    }

    /// Hands messages to their handlers, one after another, in the order of their arrival, until the session ends.
    pub async fn run(mut self) -> Result<(), Error> {
        loop {
            let received = self.next().await?;
            self.handlers.handle(received).await;
        }
    }
}

impl Session {
    /// Ends the session in order: what was acknowledged or sent is handed to the hub first. A session that is only dropped may leave
    /// its last acknowledgements behind, so that their messages are delivered again.
    pub async fn close(self) {
        let Self { sender, deliveries, mut driver, .. } = self;
        drop((sender, deliveries));
        if timeout(CLOSING, &mut driver.0).await.is_err() {
            tracing::warn!("the session did not close in time");
        }
    }
}

/// Sends on a [`Session`], in order.
#[derive(Clone, Debug)]
pub struct Sender {
    commands: mpsc::Sender<Command>,
    end: End,
}

impl Sender {
    /// Sends one message and waits until it is durable.
    pub async fn send(&self, message: Message) -> Result<SendMessageResponse, Error> {
        self.enqueue(message).await?.await
    }

    /// Sends without waiting for what was sent before. Waits only where too much is outstanding (256 messages or 16 MiB).
    ///
    /// Where the hub refuses a message, that one alone fails. What was sent behind it is sent all the same, in order: wait for the outcome
    /// where the next message makes no sense without the last.
    pub async fn enqueue(&self, message: Message) -> Result<Receipt, Error> {
        let (outcome, receipt) = oneshot::channel();
        let command = Command { message: message.build()?, outcome };
        self.commands.send(command).await.map_err(|_| ended(&self.end))?;
        Ok(Receipt { outcome: receipt, end: self.end.clone() })
    }
}

/// Becomes the outcome of a sent message.
#[derive(Debug)]
#[must_use = "without its outcome a message may be lost unnoticed"]
pub struct Receipt {
    outcome: oneshot::Receiver<Result<SendMessageResponse, Error>>,
    end: End,
}

impl Future for Receipt {
    type Output = Result<SendMessageResponse, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(context).map(|outcome| outcome.unwrap_or_else(|_| Err(ended(&self.end))))
    }
}

impl Client {
    /// Starts to build a session. An agent has one session that receives: a newer one ends the older, unless it is told not to
    /// ([`SessionBuilder::take_over`]).
    #[must_use]
    pub fn session(&self) -> SessionBuilder {
        SessionBuilder {
            client: self.clone(),
            receive: true,
            max_unacknowledged: 100,
            filter: String::new(),
            take_over: true,
            reconnect_for: Duration::from_secs(300),
        }
    }
}
