//! Messages: what is sent, and what was received.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use acb_proto::v1::{self, Address, AgentNames, MessageType, OutgoingMessage, RequestRequest, SendMessageRequest, address};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{Client, Error, SendMessageResponse, client::Retry, correlation::correlation_id, inbox::Acker, trace_context, wire};

/// The content type of payloads made with [`Message::json`].
pub const JSON: &str = "application/json";

/// The metadata entry in which an answer says that there is none, and why.
pub const FAILURE: &str = "acb-failure";
/// How much longer than the hub the client waits for a reply.
const REPLY_SLACK: Duration = Duration::from_secs(5);
/// The most of a reason that is sent, in bytes. All metadata of a message may have 16 KiB.
const MOST_OF_REASON: usize = 4096;
/// Agents that a message can be for.
const MOST_RECIPIENTS: usize = 64;

/// A message to send. Each gets an idempotency key when it is made: sent twice, it arrives once.
///
/// ```
/// use acb_sdk::Message;
/// use std::time::Duration;
///
/// let message = Message::to_all()
///     .topic("status")
///     .json(&serde_json::json!({"ready": true}))
///     .metadata("priority", "high")
///     .expires_in(Duration::from_secs(60));
/// # let _ = message;
/// ```
#[derive(Clone, Debug)]
#[must_use = "a message does nothing until it is sent"]
pub struct Message {
    wire: OutgoingMessage,
    encoding: Result<(), String>,
}

impl Message {
    fn to(to: address::To) -> Self {
        let wire = OutgoingMessage {
            to: Some(Address { to: Some(to) }),
            r#type: MessageType::Event.into(),
            idempotency_key: Uuid::new_v4().to_string(),
            ..OutgoingMessage::default()
        };
        Self { wire, encoding: Ok(()) }
    }

    /// To one agent, by name.
    pub fn to_agent(name: impl Into<String>) -> Self {
        Self::to(address::To::Agent(name.into()))
    }

    /// To each of these agents, by name: 2 to 64, each once. It is for all of them or for none: where one does not exist, nothing is sent.
    pub fn to_agents(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::to(address::To::Agents(AgentNames { names: names.into_iter().map(Into::into).collect() }))
    }

    /// To the members of a group.
    pub fn to_group(name: impl Into<String>) -> Self {
        Self::to(address::To::Group(name.into()))
    }

    /// To every other agent of the tenant.
    pub fn to_all() -> Self {
        Self::to(address::To::All(true))
    }

    /// An answer; where it goes is decided by what it answers. See [`Client::reply`].
    pub fn answer() -> Self {
        Self::to(address::To::Agent(String::new()))
    }

    /// An answer that says that there is none, and why: [`Received::failure`] of whoever asked.
    pub fn failure(reason: impl Into<String>) -> Self {
        let mut reason = reason.into();
        let end = (0..=MOST_OF_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or_default());
        Self::answer().metadata(FAILURE, reason)
    }

    /// What receivers choose their handler by.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.wire.topic = topic.into();
        self
    }

    /// Event (the default), command, query or response.
    pub fn kind(mut self, kind: MessageType) -> Self {
        self.wire.r#type = kind.into();
        self
    }

    /// A payload as JSON. What can't be encoded fails when the message is sent.
    pub fn json<T: Serialize + ?Sized>(mut self, payload: &T) -> Self {
        match serde_json::to_vec(payload) {
            Ok(bytes) => {
                self.wire.payload = bytes.into();
                self.wire.content_type = JSON.to_owned();
            }
            Err(error) => self.encoding = Err(error.to_string()),
        }
        self
    }

    /// A payload of text.
    pub fn text(self, payload: impl Into<String>) -> Self {
        self.bytes("text/plain; charset=utf-8", payload.into().into_bytes())
    }

    /// A payload of any content type.
    pub fn bytes(mut self, content_type: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        self.wire.content_type = content_type.into();
        self.wire.payload = payload.into();
        self
    }

    /// A shared context that the message is about, instead of embedding it.
    pub fn context(mut self, context_id: impl Into<String>) -> Self {
        self.wire.context_id = context_id.into();
        self
    }

    /// Ties messages of one exchange together.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        self.wire.correlation_id = id.into();
        self
    }

    /// Sends replies to this agent's mailbox, to be received later.
    pub fn reply_to_agent(mut self, name: impl Into<String>) -> Self {
        self.wire.reply_to = Some(Address { to: Some(address::To::Agent(name.into())) });
        self
    }

    /// Any further fact.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.wire.metadata.insert(key.into(), value.into());
        self
    }

    /// Goes to the dead letters where nobody took it in this time. At most, and unless said otherwise, 6 days.
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.wire.expires_at = crate::wire::from_now(time);
        self
    }

    /// A key of the caller's own, where the same message may be made again after a restart.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.wire.idempotency_key = key.into();
        self
    }

    /// The W3C trace context that the message belongs to.
    pub fn trace(mut self, traceparent: impl Into<String>, tracestate: impl Into<String>) -> Self {
        self.wire.traceparent = traceparent.into();
        self.wire.tracestate = tracestate.into();
        self
    }

    /// Addresses an answer, and carries correlation and trace on.
    pub(crate) fn answering(mut self, to: &v1::Message) -> Self {
        let address = match &to.reply_to {
            Some(Address { to: Some(address) }) => address.clone(),
            _ => address::To::Agent(to.from.clone()),
        };
        self.wire.to = Some(Address { to: Some(address) });
        self.wire.r#type = MessageType::Response.into();
        if self.wire.topic.is_empty() {
            self.wire.topic.clone_from(&to.topic);
        }
        if self.wire.correlation_id.is_empty() {
            self.wire.correlation_id.clone_from(if to.correlation_id.is_empty() { &to.id } else { &to.correlation_id });
        }
        if self.wire.traceparent.is_empty() {
            self.wire.traceparent.clone_from(&to.traceparent);
            self.wire.tracestate.clone_from(&to.tracestate);
        }
        self
    }

    /// Whom it is for.
    #[cfg(feature = "encryption")]
    pub(crate) fn recipients(&self) -> Option<&address::To> {
        self.wire.to.as_ref().and_then(|to| to.to.as_ref())
    }

    /// What is to be sealed of it: content type, payload and topic.
    #[cfg(feature = "encryption")]
    pub(crate) fn to_seal(&self) -> Result<(String, Bytes, String), Error> {
        self.encoding.clone().map_err(|error| Error::Payload(format!("the payload can't be encoded as JSON: {error}")))?;
        Ok((self.wire.content_type.clone(), self.wire.payload.clone(), self.wire.topic.clone()))
    }

    pub(crate) fn build_query(self) -> Result<OutgoingMessage, Error> {
        self.kind(MessageType::Query).build()
    }

    pub(crate) fn build(self) -> Result<OutgoingMessage, Error> {
        self.encoding.map_err(|error| Error::Payload(format!("the payload can't be encoded as JSON: {error}")))?;
        match self.wire.to.as_ref().and_then(|to| to.to.as_ref()) {
            Some(address::To::Agent(name) | address::To::Group(name)) if name.is_empty() => {
                Err(Error::Usage("the message names no recipient".to_owned()))
            }
            Some(address::To::Agents(AgentNames { names })) => match flaw(names) {
                Some(flaw) => Err(Error::Usage(flaw)),
                None => Ok(tied(self.wire)),
            },
            _ => Ok(tied(self.wire)),
        }
    }
}

/// Ties a message to what it is sent for, where it says nothing else.
fn tied(mut message: OutgoingMessage) -> OutgoingMessage {
    if message.correlation_id.is_empty() {
        message.correlation_id = correlation_id().unwrap_or_default();
    }
    trace_context::fill(&mut message);
    message
}

/// Why this is no list of recipients. The hub would end the session that such a message is sent in.
fn flaw(names: &[String]) -> Option<String> {
    if names.is_empty() || names.len() > MOST_RECIPIENTS || names.iter().any(String::is_empty) {
        return Some(format!("a message names 1 to {MOST_RECIPIENTS} agents, each by its name"));
    }
    let mut seen = std::collections::HashSet::new();
    names.iter().find(|name| !seen.insert(*name)).map(|name| format!("agent {name:?} is named twice"))
}

/// A received message. Until it is [acknowledged](Self::ack) the hub keeps it, and delivers it again in a later session; dropped, it is
/// not acknowledged.
pub struct Received {
    message: Arc<v1::Message>,
    redelivered: bool,
    attempt: u32,
    acker: Option<Acker>,
    client: Client,
}

impl Received {
    pub(crate) fn new(delivery: v1::session_response::Delivery, acker: Acker, client: Client) -> Self {
        Self {
            redelivered: delivery.redelivered,
            attempt: delivery.attempt,
            message: Arc::new(delivery.message.unwrap_or_default()),
            acker: Some(acker),
            client,
        }
    }

    /// The application begins with it. The hub counts that where the message may have been delivered before, so that one which ends its agent
    /// again and again goes to the dead letters.
    pub(crate) fn start(&self) {
        if let Some(acker) = self.acker.as_ref().filter(|_| self.redelivered) {
            acker.start();
        }
    }

    /// A message that did not come through a mailbox.
    pub(crate) fn detached(message: v1::Message, client: Client) -> Self {
        Self { message: Arc::new(message), redelivered: false, attempt: 1, acker: None, client }
    }

    /// What ties the message to others: what its sender named, or its own id.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        if self.message.correlation_id.is_empty() { &self.message.id } else { &self.message.correlation_id }
    }

    pub(crate) fn shared(&self) -> Arc<v1::Message> {
        self.message.clone()
    }

    /// The message as it came.
    #[must_use]
    pub fn message(&self) -> &v1::Message {
        &self.message
    }

    /// Whether it may have been delivered before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// The how-manieth delivery this is.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The payload, decoded from JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.message.payload).map_err(|error| {
            let (id, topic) = (&self.message.id, &self.message.topic);
            Error::Payload(format!("the payload of message {id} (topic {topic:?}) is not what was expected: {error}"))
        })
    }

    /// How long it is still of use: a request as long as its caller waits for the answer, any other message until it expires. By this machine's
    /// clock.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        let expires_at = wire::system_time(self.message.expires_at);
        expires_at.and_then(|at| at.duration_since(SystemTime::now()).ok()).unwrap_or_default()
    }

    /// Why there is no answer, where the message is one that says so: see [`Message::failure`].
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.message.metadata.get(FAILURE).map(String::as_str)
    }

    /// Says that the message was handled: it is not delivered again.
    pub fn ack(mut self) {
        if let Some(acker) = self.acker.take() {
            acker.ack();
        }
    }

    /// Answers: to the message's `reply_to`, or else to its sender.
    pub async fn reply(&self, answer: Message) -> Result<SendMessageResponse, Error> {
        self.client.reply(self, answer).await
    }

    /// The client that it came by.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn take_acker(&mut self) -> Option<Acker> {
        self.acker.take()
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received").field("message", &self.message).field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

impl Client {
    /// Sends one message and waits until it is durable. It is tried again on other replicas under the same idempotency key, so that it is
    /// in the log once.
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Message;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Task { document: String }
    ///
    /// let task = Task { document: "readme".to_owned() };
    /// let sent = client.send(Message::to_group("workers").topic("task").json(&task)).await?;
    /// println!("{}", sent.message_id);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&self, message: Message) -> Result<SendMessageResponse, Error> {
        let message = message.build()?;
        let call = self.call("send", Retry::WhileKnown, Self::ATTEMPT, |line| {
            let request = SendMessageRequest { message: Some(message.clone()) };
            async move { line.messages().send_message(request).await }
        });
        trace_context::of_message(&message, call).await
    }

    /// Sends a query and waits for its reply, at most for `within` (up to 5 minutes).
    ///
    /// ```no_run
    /// # async fn example(client: acb_sdk::Client) -> Result<(), acb_sdk::Error> {
    /// use acb_sdk::Message;
    /// use std::time::Duration;
    ///
    /// let question = Message::to_agent("librarian").topic("lookup").text("isolation");
    /// let answer: Vec<String> = client.request(question, Duration::from_secs(10)).await?.json()?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn request(&self, message: Message, within: Duration) -> Result<Received, Error> {
        let message = message.build_query()?;
        let until = tokio::time::Instant::now() + within;
        let call = self.call_until("request", Retry::Always, within + REPLY_SLACK, Some(until), |line| {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let request = RequestRequest { message: Some(message.clone()), timeout: wire::duration(left) };
            async move {
                // The hub takes an empty timeout for a mistake of the caller.
                if left.is_zero() {
                    return Err(Status::deadline_exceeded(format!("no reply within {within:.1?}")));
                }
                line.messages().request(request).await
            }
        });
        let response = trace_context::of_message(&message, call).await?;
        let reply =
            response.reply.ok_or_else(|| Error::refused(Code::Internal, "", "request: the hub answered without a reply"))?;
        Ok(Received::detached(reply, self.clone()))
    }

    /// Answers a received message: to its `reply_to`, or else to its sender.
    pub async fn reply(&self, to: &Received, answer: Message) -> Result<SendMessageResponse, Error> {
        self.send(answer.answering(to.message())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_has_a_key_of_its_own() {
        let (a, b) = (Message::to_agent("x").build().unwrap(), Message::to_agent("x").build().unwrap());
        assert!(!a.idempotency_key.is_empty());
        assert_ne!(a.idempotency_key, b.idempotency_key);
    }

    #[test]
    fn a_payload_that_cannot_be_encoded_fails_when_sent() {
        let odd = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(matches!(Message::to_agent("x").json(&odd).build(), Err(Error::Payload(_))));
        assert!(matches!(Message::answer().build(), Err(Error::Usage(_))));
        assert!(matches!(Message::to_agents(["x", ""]).build(), Err(Error::Usage(_))));
        assert!(matches!(Message::to_agents(Vec::<String>::new()).build(), Err(Error::Usage(_))));
        assert!(matches!(Message::to_agents(["x", "y", "x"]).build(), Err(Error::Usage(why)) if why.contains("\"x\"")));
        let many = |count: u32| Message::to_agents((0..count).map(|number| number.to_string())).build();
        assert!(many(64).is_ok() && matches!(many(65), Err(Error::Usage(_))));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let sent = |reason: String| Message::failure(reason).answering(&v1::Message::default()).wire.metadata[FAILURE].clone();
        assert_eq!(sent("no".into()), "no");
        assert_eq!(sent("é".repeat(4000)), "é".repeat(MOST_OF_REASON / 2));
        assert_eq!(sent(format!("x{}", "é".repeat(4000))).len(), MOST_OF_REASON - 1);
    }

    #[test]
    fn an_answer_goes_where_the_question_wants_it() {
        let waiting = address::To::Request(v1::RequestAddress { agent: "boss".into(), request_id: "7".into() });
        let mut question = v1::Message {
            id: "m1".into(),
            from: "boss".into(),
            topic: "lookup".into(),
            traceparent: "00-a-b-01".into(),
            reply_to: Some(Address { to: Some(waiting.clone()) }),
            ..v1::Message::default()
        };
        let answer = Message::answer().text("yes").answering(&question).build().unwrap();
        assert_eq!(answer.to.unwrap().to.unwrap(), waiting);
        assert_eq!(
            (answer.topic.as_str(), answer.correlation_id.as_str(), answer.traceparent.as_str()),
            ("lookup", "m1", "00-a-b-01")
        );
        assert_eq!(answer.r#type, i32::from(MessageType::Response));

        question.reply_to = None;
        let answer = Message::answer().answering(&question).build().unwrap();
        assert_eq!(answer.to.unwrap().to.unwrap(), address::To::Agent("boss".into()));
    }
}
