//! How a message stands in the log.
//!
//! The value of a record of `acb.<tenant>.sys.messages` that holds one message is a protobuf message (several messages: [`super::record`]):
//!
//! | field | | |
//! |---|---|---|
//! | 1 | `uint32 version` | 1, or 3 where the message is for several agents (2 is a record of several messages); a reader that meets a higher one than it knows reads no further, since what it can't read may be a message; this field keeps its number in every version |
//! | 2 | `bytes id` | UUIDv7, 16 bytes |
//! | 3, 4 | `bytes from_id`, `string from` | the sender's UID and name |
//! | 5, 6 | `Destination to`, `Destination reply_to` | below |
//! | 7–11 | `string topic`, `uint32 type`, `string content_type`, `bytes payload`, `string context_id` | type: 1 event, 2 command, 3 query, 4 response |
//! | 12–14 | `string idempotency_key`, `bytes digest`, `string method` | the key with what it covers; the digest is SHA-256 of the request |
//! | 15, 16 | `string correlation_id`, `map<string, string> metadata` | |
//! | 17–19 | `int64 accepted_at`, `sent_at`, `expires_at` | microseconds since 1970 |
//! | 20–22 | `string traceparent`, `tracestate`, `bytes replayed_from` | |
//! | 29 | `repeated Recipient recipients` | version 3 only, with destination kind 5: the agents, by their names; 2 to 64 |
//! | 31 | `bytes account` | on whose account it is, where that is not the sender: who registered it. 30 is of records with several messages |
//! | 32 | `Original original` | the message that it repeats, where the hub knew it that took this: `1 bytes id`, `2 bytes digest` (the first 16 bytes), `3 int64 seen_at` |
//!
//! `Destination`: `1 uint32 kind` (1 agent, 2 group, 3 all, 4 waiting request, 5 recipients), `2 string name`, `3 bytes id` (the agent's UID),
//! `4 bytes request_id`. `Recipient`: `1 bytes id`, `2 string name`, `3 uint64 n` (dense for each recipient; 0 for what an agent sends).
//! Fields are only ever added.
//!
//! Kept for what an instance (a conversation, a meeting) will send, whose id is then the sender's. No version has them yet, and whoever writes
//! one of them writes a higher version, since a reader that passes over them would deliver to nobody:
//!
//! | field | | |
//! |---|---|---|
//! | 23, 24 | `bytes instance`, `bytes step` | the instance's id, and the UUID of the step that the record tells of |
//! | 25 | `uint64 life` | the instance's; it changes where PostgreSQL went back |
//! | 26, 27 | `bytes speaker_id`, `string speaker` | the agent that made the step; both empty for a timer |
//! | 28 | `uint32 effect` | what happened |

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    agent_names::AgentNames,
    dedup::Original,
    message::{Address, Message, MessageType},
};
use crate::{
    directory::agent::AgentId,
    kit::clock::{from_micros, to_micros},
    log::bus::Record,
};

const VERSION: u32 = 1;
/// Of a message that is for several agents: who passed over the list would deliver to nobody.
pub(super) const LIST: u32 = 3;

/// A message with what readers of the log decide by.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// What the recipient gets.
    pub message: Message,
    /// SHA-256 of the request.
    pub digest: [u8; 32],
    /// The method that it was sent by: `send` or `request`.
    pub method: String,
    /// On whose account it is; `None`: the sender's own. It says so itself, since the sender may be gone when it is counted.
    pub account: Option<AgentId>,
    /// The message that it repeats, where the hub that took it knew one.
    pub original: Option<Original>,
}

/// Why a record can't be read as a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Not protobuf.
    #[error("the record is no envelope: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// From a newer hub.
    #[error("the envelope has version {0}, and this hub reads versions up to {LIST}")]
    Version(u32),
    /// A field does not hold what it must.
    #[error("the envelope's field {0} is invalid")]
    Field(&'static str),
}

impl Envelope {
    /// The value of the record.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let message = &self.message;
        // Without the metadata, amply: it grows where that is not enough.
        let mut wire = Fields(Vec::with_capacity(512 + message.payload.len()));
        wire.number(1, self.version().into());
        wire.bytes(2, message.id.as_bytes());
        wire.bytes(3, message.from_id.0.as_bytes());
        wire.text(4, &message.from);
        wire.nested(5, &destination(&message.to, &message.to_ids));
        if let Some(address) = &message.reply_to {
            wire.nested(6, &destination(address, &[]));
        }
        wire.text(7, &message.topic);
        wire.number(8, message.kind as u64 + 1);
        wire.text(9, &message.content_type);
        wire.bytes(10, &message.payload);
        wire.text(11, &message.context_id);
        wire.text(12, &message.idempotency_key);
        wire.bytes(13, &self.digest);
        wire.text(14, &self.method);
        wire.text(15, &message.correlation_id);
        for (name, value) in &message.metadata {
            let mut entry = Fields(Vec::with_capacity(name.len() + value.len() + 8));
            entry.text(1, name);
            entry.text(2, value);
            wire.nested(16, &entry);
        }
        wire.number(17, to_micros(message.accepted_at).cast_unsigned());
        wire.number(18, to_micros(message.sent_at).cast_unsigned());
        wire.number(19, to_micros(message.expires_at).cast_unsigned());
        wire.text(20, &message.traceparent);
        wire.text(21, &message.tracestate);
        wire.bytes(22, message.replayed_from.as_ref().map_or(&[], |id| id.as_bytes()));
        if let Address::Agents(names) = &message.to {
            for (name, id) in names.iter().zip(&message.to_ids) {
                let mut recipient = Fields(Vec::with_capacity(name.len() + 24));
                recipient.bytes(1, id.0.as_bytes());
                recipient.text(2, name);
                wire.nested(29, &recipient);
            }
        }
        wire.bytes(31, self.account.as_ref().map_or(&[], |account| account.0.as_bytes()));
        if let Some(Original { id, digest, seen_at }) = &self.original {
            let mut original = Fields(Vec::with_capacity(48));
            original.bytes(1, id.as_bytes());
            original.bytes(2, digest);
            original.number(3, to_micros(*seen_at).cast_unsigned());
            wire.nested(32, &original);
        }
        wire.0.into()
    }

    /// The version of the format that it is written in.
    pub(super) fn version(&self) -> u32 {
        if matches!(self.message.to, Address::Agents(_)) { LIST } else { VERSION }
    }

    /// Reads the value of a record.
    ///
    /// # Errors
    /// Where it is none that this version reads.
    pub fn decode(value: &Bytes) -> Result<Self, EnvelopeError> {
        // First, and alone: a newer version may use the other fields differently.
        let version = version(value)?;
        if ![VERSION, LIST].contains(&version) {
            return Err(EnvelopeError::Version(version));
        }
        let wire = WireEnvelope::decode(value.clone())?;
        let to = wire.to.as_ref().ok_or(EnvelopeError::Field("to"))?;
        let (to, to_ids) = if version == LIST { decode_list(to, wire.recipients)? } else { decode_address(to)? };
        let message = Message {
            id: uuid(&wire.id, "id")?,
            from_id: AgentId(uuid(&wire.from_id, "from_id")?),
            from: wire.from,
            to,
            to_ids,
            topic: wire.topic,
            kind: match wire.kind {
                1 => MessageType::Event,
                2 => MessageType::Command,
                3 => MessageType::Query,
                4 => MessageType::Response,
                _ => return Err(EnvelopeError::Field("type")),
            },
            content_type: wire.content_type,
            payload: wire.payload,
            context_id: wire.context_id,
            idempotency_key: wire.idempotency_key,
            correlation_id: wire.correlation_id,
            reply_to: wire.reply_to.as_ref().map(decode_address).transpose()?.map(|(address, _)| address),
            metadata: wire.metadata,
            accepted_at: time(wire.accepted_at, "accepted_at")?,
            sent_at: time(wire.sent_at, "sent_at")?,
            expires_at: time(wire.expires_at, "expires_at")?,
            traceparent: wire.traceparent,
            tracestate: wire.tracestate,
            replayed_from: if wire.replayed_from.is_empty() { None } else { Some(uuid(&wire.replayed_from, "replayed_from")?) },
        };
        let digest = wire.digest.as_ref().try_into().map_err(|_| EnvelopeError::Field("digest"))?;
        let account = if wire.account.is_empty() { None } else { Some(AgentId(uuid(&wire.account, "account")?)) };
        let original = wire.original.as_ref().map(decode_original).transpose()?;
        Ok(Self { message, digest, method: wire.method, account, original })
    }

    /// The record of this message alone: the envelope, and the headers that a reader wants without decoding it.
    #[must_use]
    pub fn record(&self) -> Record {
        let message = &self.message;
        let mut record = self.described();
        record.headers.push(("acb-type".to_owned(), Bytes::from_static(message.kind.as_str().as_bytes())));
        if !message.traceparent.is_empty() {
            record.headers.push(("traceparent".to_owned(), Bytes::from(message.traceparent.clone())));
        }
        if !message.tracestate.is_empty() {
            record.headers.push(("tracestate".to_owned(), Bytes::from(message.tracestate.clone())));
        }
        record.value = Some(self.encode());
        record
    }

    /// What every record of its sender says without its value.
    pub(super) fn described(&self) -> Record {
        let sender = Bytes::from(self.message.from.clone());
        let key = Bytes::copy_from_slice(self.message.from_id.0.as_bytes());
        Record { key: Some(key), headers: vec![("acb-sender".to_owned(), sender)], value: None }
    }
}

/// The version of a record's format: whatever else a version changes, this field keeps its number.
pub(super) fn version(value: &Bytes) -> Result<u32, EnvelopeError> {
    Ok(WireVersion::decode(value.clone())?.version)
}

fn time(micros: i64, field: &'static str) -> Result<OffsetDateTime, EnvelopeError> {
    from_micros(micros).ok_or(EnvelopeError::Field(field))
}

fn uuid(bytes: &Bytes, field: &'static str) -> Result<Uuid, EnvelopeError> {
    Uuid::from_slice(bytes).map_err(|_| EnvelopeError::Field(field))
}

/// Fields of a protobuf message, written from where they are: the message as prost has it would be a copy of each.
struct Fields(Vec<u8>);

impl Fields {
    fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            encode_key(tag, WireType::Varint, &mut self.0);
            encode_varint(value, &mut self.0);
        }
    }

    fn bytes(&mut self, tag: u32, value: &[u8]) {
        if !value.is_empty() {
            self.delimited(tag, value);
        }
    }

    fn text(&mut self, tag: u32, value: &str) {
        self.bytes(tag, value.as_bytes());
    }

    /// A message is there also where it is empty.
    fn nested(&mut self, tag: u32, Fields(value): &Fields) {
        self.delimited(tag, value);
    }

    fn delimited(&mut self, tag: u32, value: &[u8]) {
        encode_key(tag, WireType::LengthDelimited, &mut self.0);
        encode_varint(value.len() as u64, &mut self.0);
        self.0.extend_from_slice(value);
    }
}

fn destination(address: &Address, ids: &[AgentId]) -> Fields {
    let mut fields = Fields(Vec::with_capacity(64));
    let (kind, name, request_id) = match address {
        Address::Agent(name) => (1, name.as_str(), None),
        Address::Group(name) => (2, name.as_str(), None),
        Address::All => (3, "", None),
        Address::Request { agent, request_id } => (4, agent.as_str(), Some(request_id)),
        Address::Agents(_) => (5, "", None),
    };
    fields.number(1, kind);
    fields.text(2, name);
    let id = ids.first().filter(|_| kind != 5);
    fields.bytes(3, id.map_or(&[], |id| id.0.as_bytes()));
    fields.bytes(4, request_id.map_or(&[], |id| id.as_bytes()));
    fields
}

fn decode_list(to: &WireDestination, recipients: Vec<WireRecipient>) -> Result<(Address, Vec<AgentId>), EnvelopeError> {
    if to.kind != 5 {
        return Err(EnvelopeError::Field("to.kind"));
    }
    let mut ids = BTreeMap::new();
    let mut names = Vec::with_capacity(recipients.len());
    for WireRecipient { id, name } in recipients {
        ids.insert(name.clone(), AgentId(uuid(&id, "recipients.id")?));
        names.push(name);
    }
    let names = AgentNames::new(names).map_err(|_| EnvelopeError::Field("recipients"))?;
    Ok((Address::Agents(names), ids.into_values().collect()))
}

fn decode_original(wire: &WireOriginal) -> Result<Original, EnvelopeError> {
    let digest = wire.digest.as_ref().try_into().map_err(|_| EnvelopeError::Field("original.digest"))?;
    Ok(Original { id: uuid(&wire.id, "original.id")?, digest, seen_at: time(wire.seen_at, "original.seen_at")? })
}

fn decode_address(wire: &WireDestination) -> Result<(Address, Vec<AgentId>), EnvelopeError> {
    let ids = if wire.id.is_empty() { Vec::new() } else { vec![AgentId(uuid(&wire.id, "to.id")?)] };
    let address = match wire.kind {
        1 => Address::Agent(wire.name.clone()),
        2 => Address::Group(wire.name.clone()),
        3 => Address::All,
        4 => Address::Request { agent: wire.name.clone(), request_id: uuid(&wire.request_id, "to.request_id")? },
        _ => return Err(EnvelopeError::Field("to.kind")),
    };
    Ok((address, ids))
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireVersion {
    #[prost(uint32, tag = "1")]
    version: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireDestination {
    #[prost(uint32, tag = "1")]
    kind: u32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bytes = "bytes", tag = "3")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    request_id: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRecipient {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(string, tag = "2")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireOriginal {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    digest: Bytes,
    #[prost(int64, tag = "3")]
    seen_at: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireEnvelope {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    from_id: Bytes,
    #[prost(string, tag = "4")]
    from: String,
    #[prost(message, optional, tag = "5")]
    to: Option<WireDestination>,
    #[prost(message, optional, tag = "6")]
    reply_to: Option<WireDestination>,
    #[prost(string, tag = "7")]
    topic: String,
    #[prost(uint32, tag = "8")]
    kind: u32,
    #[prost(string, tag = "9")]
    content_type: String,
    #[prost(bytes = "bytes", tag = "10")]
    payload: Bytes,
    #[prost(string, tag = "11")]
    context_id: String,
    #[prost(string, tag = "12")]
    idempotency_key: String,
    #[prost(bytes = "bytes", tag = "13")]
    digest: Bytes,
    #[prost(string, tag = "14")]
    method: String,
    #[prost(string, tag = "15")]
    correlation_id: String,
    #[prost(btree_map = "string, string", tag = "16")]
    metadata: BTreeMap<String, String>,
    #[prost(int64, tag = "17")]
    accepted_at: i64,
    #[prost(int64, tag = "18")]
    sent_at: i64,
    #[prost(int64, tag = "19")]
    expires_at: i64,
    #[prost(string, tag = "20")]
    traceparent: String,
    #[prost(string, tag = "21")]
    tracestate: String,
    #[prost(bytes = "bytes", tag = "22")]
    replayed_from: Bytes,
    #[prost(message, repeated, tag = "29")]
    recipients: Vec<WireRecipient>,
    #[prost(bytes = "bytes", tag = "31")]
    account: Bytes,
    #[prost(message, optional, tag = "32")]
    original: Option<WireOriginal>,
}

#[cfg(test)]
pub(in crate::messages) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::kit::clock::truncated;

    pub(in crate::messages) fn envelope() -> Envelope {
        let now = truncated(OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000));
        Envelope {
            message: Message {
                id: Uuid::from_u128(1),
                from_id: AgentId(Uuid::from_u128(2)),
                from: "scout".to_owned(),
                to: Address::Agent("worker".to_owned()),
                to_ids: vec![AgentId(Uuid::from_u128(3))],
                topic: "work.new".to_owned(),
                kind: MessageType::Command,
                content_type: "application/json".to_owned(),
                payload: Bytes::from_static(b"{}"),
                context_id: String::new(),
                idempotency_key: "k".to_owned(),
                correlation_id: "c".to_owned(),
                reply_to: Some(Address::Request { agent: "scout".to_owned(), request_id: Uuid::from_u128(4) }),
                metadata: BTreeMap::from([("priority".to_owned(), "high".to_owned())]),
                accepted_at: now,
                sent_at: now,
                expires_at: now + time::Duration::days(6),
                traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
                tracestate: String::new(),
                replayed_from: Some(Uuid::from_u128(5)),
            },
            digest: [7; 32],
            method: "send".to_owned(),
            account: Some(AgentId(Uuid::from_u128(6))),
            original: Some(Original { id: Uuid::from_u128(7), digest: [8; 16], seen_at: now }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let envelope = envelope();
        assert_eq!(Envelope::decode(&envelope.encode()).unwrap(), envelope);
        let names: Vec<String> = envelope.record().headers.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["acb-sender", "acb-type", "traceparent"]);
    }

    /// What prost makes of it.
    fn by_prost(Envelope { message, digest, method, account, original }: &Envelope) -> Vec<u8> {
        let address = |address: &Address, ids: &[AgentId]| {
            let (kind, name, request_id) = match address {
                Address::Agent(name) => (1, name.clone(), Bytes::new()),
                Address::Group(name) => (2, name.clone(), Bytes::new()),
                Address::All => (3, String::new(), Bytes::new()),
                Address::Request { agent, request_id } => (4, agent.clone(), Bytes::copy_from_slice(request_id.as_bytes())),
                Address::Agents(_) => (5, String::new(), Bytes::new()),
            };
            let id = ids.first().filter(|_| kind != 5).map(|id| Bytes::copy_from_slice(id.0.as_bytes())).unwrap_or_default();
            WireDestination { kind, name, id, request_id }
        };
        let names: Vec<&str> = match &message.to {
            Address::Agents(names) => names.iter().collect(),
            _ => Vec::new(),
        };
        let recipient =
            |(name, id): (&str, &AgentId)| WireRecipient { id: Bytes::copy_from_slice(id.0.as_bytes()), name: name.to_owned() };
        let wire = WireEnvelope {
            version: if names.is_empty() { 1 } else { 3 },
            id: Bytes::copy_from_slice(message.id.as_bytes()),
            from_id: Bytes::copy_from_slice(message.from_id.0.as_bytes()),
            from: message.from.clone(),
            to: Some(address(&message.to, &message.to_ids)),
            reply_to: message.reply_to.as_ref().map(|to| address(to, &[])),
            topic: message.topic.clone(),
            kind: message.kind as u32 + 1,
            content_type: message.content_type.clone(),
            payload: message.payload.clone(),
            context_id: message.context_id.clone(),
            idempotency_key: message.idempotency_key.clone(),
            digest: Bytes::copy_from_slice(digest),
            method: method.clone(),
            correlation_id: message.correlation_id.clone(),
            metadata: message.metadata.clone(),
            accepted_at: to_micros(message.accepted_at),
            sent_at: to_micros(message.sent_at),
            expires_at: to_micros(message.expires_at),
            traceparent: message.traceparent.clone(),
            tracestate: message.tracestate.clone(),
            replayed_from: message.replayed_from.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
            recipients: names.into_iter().zip(&message.to_ids).map(recipient).collect(),
            account: account.map(|account| Bytes::copy_from_slice(account.0.as_bytes())).unwrap_or_default(),
            original: original.map(|Original { id, digest, seen_at }| WireOriginal {
                id: Bytes::copy_from_slice(id.as_bytes()),
                digest: Bytes::copy_from_slice(&digest),
                seen_at: to_micros(seen_at),
            }),
        };
        wire.encode_to_vec()
    }

    proptest::proptest! {
        #[test]
        fn fields_are_written_as_prost_writes_them(
            texts in proptest::collection::vec(".{0,40}", 7),
            payload in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
            metadata in proptest::collection::btree_map(".{0,20}", ".{0,20}", 0..4),
            to in 0..5_u8,
            agents in proptest::collection::btree_set(".{0,70}", 2..=64),
            replies in proptest::prelude::any::<bool>(),
            micros in -5_000_000_000_i64..5_000_000_000,
        ) {
            let [from, topic, content_type, context_id, idempotency_key, correlation_id, name] = texts.try_into().unwrap();
            let mut envelope = envelope();
            let request = Address::Request { agent: name.clone(), request_id: Uuid::from_u128(9) };
            let (to, to_ids) = match to {
                0 => (Address::Agent(name), vec![AgentId(Uuid::from_u128(3))]),
                1 => (Address::Group(name), vec![]),
                2 => (Address::All, vec![]),
                3 => {
                    let ids = (0..agents.len()).map(|number| AgentId(Uuid::from_u128(number as u128 + 7))).collect();
                    (Address::agents(agents.into_iter().rev().collect()).unwrap(), ids)
                }
                _ => (request.clone(), vec![]),
            };
            envelope.message = Message {
                from, topic, content_type, context_id, idempotency_key, correlation_id, metadata, to, to_ids,
                payload: payload.into(),
                reply_to: replies.then_some(request),
                accepted_at: from_micros(micros).unwrap(),
                replayed_from: None,
                ..envelope.message
            };
            envelope.account = envelope.account.filter(|_| replies);
            envelope.original = envelope.original.filter(|_| replies);
            proptest::prop_assert_eq!(envelope.encode(), by_prost(&envelope));
            proptest::prop_assert_eq!(Envelope::decode(&envelope.encode()).unwrap(), envelope);
        }
    }

    #[test]
    fn other_versions_and_noise_are_refused() {
        let newer = WireEnvelope { version: 2, ..WireEnvelope::default() };
        assert_eq!(Envelope::decode(&newer.encode_to_vec().into()), Err(EnvelopeError::Version(2)));
        // Its second field is a number.
        let otherwise = Bytes::from_static(&[8, 4, 16, 1]);
        assert_eq!(Envelope::decode(&otherwise), Err(EnvelopeError::Version(4)));
        assert!(matches!(Envelope::decode(&Bytes::from_static(b"\xff\xff")), Err(EnvelopeError::Malformed(_))));
        let empty = WireEnvelope { version: 1, ..WireEnvelope::default() };
        assert_eq!(Envelope::decode(&empty.encode_to_vec().into()), Err(EnvelopeError::Field("to")));
    }

    #[test]
    fn a_list_of_recipients_is_as_it_must_be() {
        let recipient = |name: &str| WireRecipient { id: Bytes::copy_from_slice(&[1; 16]), name: name.to_owned() };
        let read = |version, kind, recipients: &[WireRecipient]| {
            let to = Some(WireDestination { kind, ..WireDestination::default() });
            let wire = WireEnvelope { version, to, recipients: recipients.to_vec(), ..WireEnvelope::default() };
            // What comes after the list is missing, too.
            Envelope::decode(&wire.encode_to_vec().into()).unwrap_err()
        };
        let two = [recipient("a"), recipient("b")];
        assert_eq!(read(LIST, 5, &two), EnvelopeError::Field("id"));
        assert_eq!(read(LIST, 5, &two[..1]), EnvelopeError::Field("recipients"));
        assert_eq!(read(LIST, 5, &[recipient("a"), recipient("a")]), EnvelopeError::Field("recipients"));
        assert_eq!(read(LIST, 5, &vec![recipient("a"); 65]), EnvelopeError::Field("recipients"));
        assert_eq!(read(LIST, 1, &two), EnvelopeError::Field("to.kind"));
        assert_eq!(read(VERSION, 5, &two), EnvelopeError::Field("to.kind"));
        let nameless = WireRecipient { id: Bytes::new(), name: "b".to_owned() };
        assert_eq!(read(LIST, 5, &[recipient("a"), nameless]), EnvelopeError::Field("recipients.id"));
    }
}
