//! Messages between agents: what a sender gives, what a receiver gets, and the bounds of both.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::agent_names::AgentNames;
use crate::{
    directory::agent::AgentId,
    fault::Fault,
    kit::labels::{MAX_NAME_BYTES, check_metadata, check_name, metadata_bytes},
};

/// The most that an envelope takes in the log.
pub const MAX_ENVELOPE_BYTES: usize = 1024 * 1024;
/// How long a message lives at most, and where nothing else is said.
pub const MAX_LIFETIME: Duration = Duration::days(6);

/// What a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Something happened.
    #[default]
    Event,
    /// Something is to be done.
    Command,
    /// Something is asked.
    Query,
    /// Something is answered.
    Response,
}

impl MessageType {
    /// As in metrics and bus headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Command => "command",
            Self::Query => "query",
            Self::Response => "response",
        }
    }

    /// From what [`as_str`](Self::as_str) gives.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Event, Self::Command, Self::Query, Self::Response].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Where a message goes. Agents and groups are named as in their resources.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// One agent.
    Agent(String),
    /// Each of these agents.
    Agents(AgentNames),
    /// Every member of a group but the sender.
    Group(String),
    /// Every agent of the tenant but the sender.
    All,
    /// The waiting caller of one request.
    Request {
        /// Who waits.
        agent: String,
        /// For what.
        request_id: Uuid,
    },
}

impl Address {
    /// Agents by their names. One alone is that agent.
    ///
    /// # Errors
    /// As [`AgentNames::new`].
    pub fn agents(mut names: Vec<String>) -> Result<Self, Fault> {
        match names.pop() {
            Some(name) if names.is_empty() => Ok(Self::Agent(name)),
            last => AgentNames::new(names.into_iter().chain(last).collect()).map(Self::Agents),
        }
    }

    /// Bytes that a list of agents takes, with their UIDs.
    fn list_bytes(&self) -> usize {
        match self {
            Self::Agents(names) => names.bytes() + names.count() * LISTED,
            Self::Agent(_) | Self::Group(_) | Self::All | Self::Request { .. } => 0,
        }
    }
}

/// What the sender gives.
#[derive(Clone, Debug, PartialEq)]
pub struct OutgoingMessage {
    /// Where to.
    pub to: Address,
    /// What the receiver's handlers are chosen by; may be empty.
    pub topic: String,
    /// What it is.
    pub kind: MessageType,
    /// Media type of the payload; may be empty.
    pub content_type: String,
    /// The content.
    pub payload: Bytes,
    /// A context that the message refers to; may be empty.
    pub context_id: String,
    /// Empty: not deduplicated.
    pub idempotency_key: String,
    /// May be empty.
    pub correlation_id: String,
    /// Where an answer goes.
    pub reply_to: Option<Address>,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// `None`, and anything later: [`MAX_LIFETIME`] from now.
    pub expires_at: Option<OffsetDateTime>,
    /// W3C trace context; may be empty.
    pub traceparent: String,
    /// W3C trace context; may be empty.
    pub tracestate: String,
}

impl OutgoingMessage {
    /// A message with nothing but a destination, a topic and a payload.
    #[must_use]
    pub fn new(to: Address, topic: impl Into<String>, payload: impl Into<Bytes>) -> Self {
        Self {
            to,
            topic: topic.into(),
            kind: MessageType::Event,
            content_type: String::new(),
            payload: payload.into(),
            context_id: String::new(),
            idempotency_key: String::new(),
            correlation_id: String::new(),
            reply_to: None,
            metadata: BTreeMap::new(),
            expires_at: None,
            traceparent: String::new(),
            tracestate: String::new(),
        }
    }

    /// Bytes that it takes in memory, roughly.
    pub(crate) fn cost(&self) -> usize {
        cost(&self.payload, &self.metadata) + self.to.list_bytes()
    }

    /// Whether every field is within its bounds. Who the message is for is checked apart from that.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with a reason that names the field.
    pub fn validate(&self, now: OffsetDateTime) -> Result<(), Fault> {
        if self.topic.len() > MAX_NAME_BYTES || !self.topic.bytes().all(is_topic_byte) {
            let rule = format!("the topic must be at most {MAX_NAME_BYTES} letters, digits, '.', '_', ':', '/' or '-'");
            return Err(Fault::invalid("TOPIC_INVALID", rule));
        }
        check_name("CONTENT_TYPE_INVALID", "the content type", &self.content_type)?;
        check_name("IDEMPOTENCY_KEY_INVALID", "the idempotency key", &self.idempotency_key)?;
        check_name("CORRELATION_ID_INVALID", "the correlation id", &self.correlation_id)?;
        if !self.context_id.is_empty() && Uuid::parse_str(&self.context_id).is_err() {
            return Err(Fault::invalid("CONTEXT_ID_INVALID", "the context id is not a UUID: give the id of a shared context"));
        }
        check_metadata(&self.metadata)?;
        if self.payload.len() > MAX_ENVELOPE_BYTES {
            return Err(too_large(self.payload.len()));
        }
        if self.expires_at.is_some_and(|at| at <= now) {
            return Err(Fault::invalid("EXPIRY_INVALID", "expires_at has passed: give a time in the future, or none for 6 days"));
        }
        Ok(())
    }

    /// What a repeated message must agree in. Trace context and expiry are left out: an honest retry makes new ones. So is an address for
    /// replies that the caller did not give, and the hub made.
    #[must_use]
    pub fn digest(&self, method: &str, reply_to: Option<&Address>) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        add(method.as_bytes());
        for address in [Some(&self.to), reply_to] {
            match address {
                None => add(b"-"),
                Some(Address::Agent(name)) => add(format!("a:{name}").as_bytes()),
                Some(Address::Agents(names)) => {
                    add(format!("l:{}", names.count()).as_bytes());
                    names.iter().for_each(|name| add(name.as_bytes()));
                }
                Some(Address::Group(name)) => add(format!("g:{name}").as_bytes()),
                Some(Address::All) => add(b"*"),
                Some(Address::Request { agent, request_id }) => add(format!("r:{agent}:{request_id}").as_bytes()),
            }
        }
        for field in [&self.topic, &self.content_type, &self.context_id] {
            add(field.as_bytes());
        }
        // In the place of the correlation id, which says where a message comes from and not what it is: sent again from another place it is the same.
        add(b"");
        add(self.kind.as_str().as_bytes());
        add(&self.payload);
        for (name, value) in &self.metadata {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        hash.finalize().into()
    }
}

/// What a message takes beside its payload and metadata, amply.
const OVERHEAD: usize = 1024;
/// What an agent of a list takes beside its name, amply.
const LISTED: usize = 64;

fn cost(payload: &Bytes, metadata: &BTreeMap<String, String>) -> usize {
    OVERHEAD + payload.len() + metadata_bytes(metadata)
}

/// A message as its receiver gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// A UUIDv7 of the hub that accepted it.
    pub id: Uuid,
    /// The sender's UID.
    pub from_id: AgentId,
    /// The sender's name.
    pub from: String,
    /// Where to.
    pub to: Address,
    /// The UIDs that agents' names stood for when the message was accepted, in the order of the names.
    pub to_ids: Vec<AgentId>,
    /// What handlers are chosen by.
    pub topic: String,
    /// What it is.
    pub kind: MessageType,
    /// Media type of the payload.
    pub content_type: String,
    /// The content.
    pub payload: Bytes,
    /// A context that it refers to.
    pub context_id: String,
    /// The sender's key.
    pub idempotency_key: String,
    /// What it belongs to.
    pub correlation_id: String,
    /// Where an answer goes.
    pub reply_to: Option<Address>,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// When the hub took it, by the clock of the log, as far as the hub knows that one.
    pub accepted_at: OffsetDateTime,
    /// When the sender sent it, as the hub knows it.
    pub sent_at: OffsetDateTime,
    /// When it goes to the dead letters; a request only ends, since its caller was told.
    pub expires_at: OffsetDateTime,
    /// W3C trace context.
    pub traceparent: String,
    /// W3C trace context.
    pub tracestate: String,
    /// The message that this one is a replay of.
    pub replayed_from: Option<Uuid>,
}

impl Message {
    /// Bytes that it takes in memory, roughly.
    pub(crate) fn cost(&self) -> usize {
        cost(&self.payload, &self.metadata) + self.to.list_bytes()
    }

    /// The name of an agent that the message is for by name.
    #[must_use]
    pub fn recipient_name(&self, id: AgentId) -> Option<&str> {
        match &self.to {
            Address::Agent(name) => Some(name),
            Address::Agents(names) => names.iter().zip(&self.to_ids).find(|(_, known)| **known == id).map(|(name, _)| name),
            Address::Group(_) | Address::All | Address::Request { .. } => None,
        }
    }

    /// Whether its sender waits, or waited, for a reply: then it expires with that wait.
    #[must_use]
    pub fn is_request(&self) -> bool {
        matches!(&self.reply_to, Some(Address::Request { agent, .. }) if *agent == self.from)
    }
}

/// The answer to a sender: the message is durable, and was seen in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Of the first message with this key.
    pub id: Uuid,
    /// Whether it had been sent before.
    pub deduplicated: bool,
}

pub(crate) fn too_large(bytes: usize) -> Fault {
    Fault::invalid(
        "MESSAGE_TOO_LARGE",
        format!("the message has {bytes} bytes and may have {MAX_ENVELOPE_BYTES}: share a context and send its id"),
    )
}

fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte)
}
