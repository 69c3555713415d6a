//! What the log holds about contexts.
//!
//! A record of topic `acb.<tenant>.<context-type>` has the context id as its key (16 bytes) and a [`ContextChange`] as its value. A
//! deletion is a tombstone, so that compaction may forget the context: its change is in header [`DELETED`] instead.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    audience::{Access, Scope},
    context::{Context, ContextId, MAX_INLINE_BYTES, Payload, UploadId},
    visibility::Viewer,
};
use crate::{
    directory::{agent::AgentId, schema::SchemaRef},
    fault::{Code, Fault},
    kit::clock::{from_micros, to_micros},
    log::bus::Record,
};

/// The header of a tombstone that holds the [`ContextChange`] of a deletion.
pub const DELETED: &str = "acb-deleted";

/// The version of [`ContextChange`] that this hub writes, and the newest that it reads.
///
/// A change that an older hub would misread gets a new one. Older hubs then stop at it: passed over, it would be missed.
const FORMAT: u32 = 1;

/// Why a record of a newer hub is not read.
pub(crate) const NEWER: &str = "LOG_RECORD_NEWER";

/// Why a change is not written.
pub(crate) const TOO_LARGE: &str = "CONTEXT_TOO_LARGE";

/// Where chunks are: in PostgreSQL.
const BACKEND: &str = "postgres";

/// One change of one context, as the log holds it. Field numbers are forever.
///
/// ```proto
/// message ContextChange {
///   uint32 kind = 1;              // 1 created, 2 updated, 3 deleted
///   bytes id = 2;                 // 16 bytes
///   string type = 3;
///   bytes creator = 4;            // 16 bytes
///   string creator_name = 5;
///   uint64 version = 6;           // a deletion's is one more than the last version's
///   string scope = 7;             // public, private, group, shared
///   repeated string groups = 8;
///   repeated string agents = 9;
///   map<string, string> metadata = 10;
///   string content_type = 11;
///   optional bytes payload = 12;  // inline
///   bytes upload = 13;            // or in the chunks of this upload, 16 bytes
///   uint64 size = 14;
///   bytes sha256 = 15;            // 32 bytes
///   int64 created_at = 16;        // microseconds since 1970
///   int64 updated_at = 17;
///   optional int64 expires_at = 18;
///   string schema_id = 19;        // the JSON Schema that the payload met; both empty without one
///   string schema_version = 20;
///   uint32 format = 21;           // 1; in every version of this message under this number
///   Labels previous = 22;         // of an update: what the version before it had
///   string backend = 23;          // with `upload`: where its chunks are; postgres
///
///   message Labels {
///     map<string, string> metadata = 1;
///     string content_type = 2;
///     uint64 size = 3;
///     string scope = 4;
///     repeated string groups = 5;
///     repeated string agents = 6;
///   }
/// }
/// ```
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ContextChange {
    /// What happened: see [`Change`].
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    /// To which context.
    #[prost(bytes = "bytes", tag = "2")]
    pub id: Bytes,
    /// Its type.
    #[prost(string, tag = "3")]
    pub context_type: String,
    /// Its creator's UID.
    #[prost(bytes = "bytes", tag = "4")]
    pub creator: Bytes,
    /// Its creator's name.
    #[prost(string, tag = "5")]
    pub creator_name: String,
    /// One more at each change.
    #[prost(uint64, tag = "6")]
    pub version: u64,
    /// Who may see it.
    #[prost(string, tag = "7")]
    pub scope: String,
    /// Which groups.
    #[prost(string, repeated, tag = "8")]
    pub groups: Vec<String>,
    /// Which agents.
    #[prost(string, repeated, tag = "9")]
    pub agents: Vec<String>,
    /// Anything else.
    #[prost(btree_map = "string, string", tag = "10")]
    pub metadata: BTreeMap<String, String>,
    /// Media type.
    #[prost(string, tag = "11")]
    pub content_type: String,
    /// The payload, where inline.
    #[prost(bytes = "bytes", optional, tag = "12")]
    pub payload: Option<Bytes>,
    /// Or where its chunks are.
    #[prost(bytes = "bytes", tag = "13")]
    pub upload: Bytes,
    /// Bytes of the payload.
    #[prost(uint64, tag = "14")]
    pub size: u64,
    /// SHA-256 of the payload.
    #[prost(bytes = "bytes", tag = "15")]
    pub sha256: Bytes,
    /// Microseconds since 1970.
    #[prost(int64, tag = "16")]
    pub created_at: i64,
    /// Microseconds since 1970.
    #[prost(int64, tag = "17")]
    pub updated_at: i64,
    /// Microseconds since 1970.
    #[prost(int64, optional, tag = "18")]
    pub expires_at: Option<i64>,
    /// Which JSON Schema the payload met.
    #[prost(string, tag = "19")]
    pub schema_id: String,
    /// In which version.
    #[prost(string, tag = "20")]
    pub schema_version: String,
    /// See [`FORMAT`].
    #[prost(uint32, tag = "21")]
    pub format: u32,
    /// Of an update: what the version before it had.
    #[prost(message, optional, tag = "22")]
    pub previous: Option<WireLabels>,
    /// Where the chunks are.
    #[prost(string, tag = "23")]
    pub backend: String,
}

/// What a filter may go by, beside what never changes.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WireLabels {
    /// Anything else.
    #[prost(btree_map = "string, string", tag = "1")]
    pub metadata: BTreeMap<String, String>,
    /// Media type.
    #[prost(string, tag = "2")]
    pub content_type: String,
    /// Bytes of the payload.
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Who may see it.
    #[prost(string, tag = "4")]
    pub scope: String,
    /// Which groups.
    #[prost(string, repeated, tag = "5")]
    pub groups: Vec<String>,
    /// Which agents.
    #[prost(string, repeated, tag = "6")]
    pub agents: Vec<String>,
}

/// Read before anything else of a record.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct Format {
    #[prost(uint32, tag = "21")]
    format: u32,
}

fn read(event: &Bytes) -> Result<ContextChange, Fault> {
    let Format { format } = Format::decode(event.clone()).map_err(damaged)?;
    match format {
        FORMAT => ContextChange::decode(event.clone()).map_err(damaged),
        0 => Err(damaged("it has no format")),
        newer => Err(Fault::unavailable(
            NEWER,
            format!(
                "a change of a context is of format {newer}, and this replica knows up to {FORMAT}: use a replica that is newer"
            ),
        )),
    }
}

/// What happened to a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was made.
    Created,
    /// It has a new version.
    Updated,
    /// It was deleted, or expired.
    Deleted,
}

impl Change {
    /// As the log and the outbox have it.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Created => 1,
            Self::Updated => 2,
            Self::Deleted => 3,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        [Self::Created, Self::Updated, Self::Deleted].into_iter().find(|change| change.number() == number)
    }
}

/// What may change of a context beside its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// Media type of the payload.
    pub content_type: String,
    /// Bytes of the payload.
    pub size: u64,
    /// Who may see it. Groups and agents are empty in what was written before access could change.
    pub access: Access,
}

/// A change, decoded. For a deletion the context is what it last was, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub change: Change,
    /// The context after it.
    pub context: Context,
    /// Of an update: what the version before it had.
    pub previous: Option<Labels>,
}

impl Event {
    /// Whether the viewer might see the version before this one. To be asked where it may not see this one.
    pub(crate) fn withdrawn_from(&self, viewer: &Viewer) -> bool {
        let context = &self.context;
        self.previous.as_ref().is_some_and(|previous| viewer.sees(&context.kind, context.creator, &previous.access))
    }
}

/// The log's form of a change, for the outbox. Refuses one that the log would not take. `previous`: what an update replaces.
pub fn encode(change: Change, context: &Context, previous: Option<&Context>) -> Result<Bytes, Fault> {
    let deleted = change == Change::Deleted;
    let message = ContextChange {
        kind: change.number(),
        id: Bytes::copy_from_slice(context.id.0.as_bytes()),
        context_type: context.kind.clone(),
        creator: Bytes::copy_from_slice(context.creator.0.as_bytes()),
        creator_name: context.creator_name.clone(),
        version: context.version,
        scope: context.access.scope.as_str().to_owned(),
        groups: context.access.groups.clone(),
        agents: context.access.agents.clone(),
        metadata: context.metadata.clone(),
        content_type: context.content_type.clone(),
        payload: match &context.payload {
            Payload::Inline(payload) if !deleted => Some(payload.clone()),
            _ => None,
        },
        upload: match context.payload {
            Payload::Chunks(upload) if !deleted => Bytes::copy_from_slice(upload.0.as_bytes()),
            _ => Bytes::new(),
        },
        size: context.size,
        sha256: Bytes::copy_from_slice(&context.sha256),
        created_at: to_micros(context.created_at),
        updated_at: to_micros(context.updated_at),
        expires_at: context.expires_at.map(to_micros),
        schema_id: context.schema.as_ref().map(|schema| schema.id.clone()).unwrap_or_default(),
        schema_version: context.schema.as_ref().map(|schema| schema.version.clone()).unwrap_or_default(),
        format: FORMAT,
        previous: previous.map(|previous| WireLabels {
            metadata: previous.metadata.clone(),
            content_type: previous.content_type.clone(),
            size: previous.size,
            scope: previous.access.scope.as_str().to_owned(),
            groups: previous.access.groups.clone(),
            agents: previous.access.agents.clone(),
        }),
        backend: match context.payload {
            Payload::Chunks(_) if !deleted => BACKEND.to_owned(),
            _ => String::new(),
        },
    };
    let size = message.encoded_len();
    if size > MAX_INLINE_BYTES {
        return Err(Fault::new(
            Code::ResourceExhausted,
            TOO_LARGE,
            format!("the context has {size} bytes with its envelope, and at most {MAX_INLINE_BYTES} fit: stream it instead"),
        ));
    }
    Ok(message.encode_to_vec().into())
}

/// The record that carries an encoded change.
pub fn record(event: Bytes) -> Result<Record, Fault> {
    let change = read(&event)?;
    let id = ContextId(uuid(&change.id)?);
    Ok(record_of(id, change.kind == Change::Deleted.number(), event))
}

/// The same, of this context, without a look into the change.
pub(crate) fn record_of(id: ContextId, deleted: bool, event: Bytes) -> Record {
    Record {
        key: Some(Bytes::copy_from_slice(id.0.as_bytes())),
        headers: if deleted { vec![(DELETED.to_owned(), event.clone())] } else { Vec::new() },
        value: (!deleted).then_some(event),
    }
}

/// The same change without its payload: for a topic that does not take so large a record. Readers get the payload by the id.
pub fn without_payload(event: Bytes) -> Result<Bytes, Fault> {
    let mut change = read(&event)?;
    change.payload = None;
    Ok(change.encode_to_vec().into())
}

/// What a record says. `None` for one that is no change of a context.
pub fn decode(record: &Record) -> Result<Option<Event>, Fault> {
    let value = match &record.value {
        Some(value) => value,
        None => match record.headers.iter().find(|(name, _)| name == DELETED) {
            Some((_, value)) => value,
            None => return Ok(None),
        },
    };
    let change = read(value)?;
    if !change.upload.is_empty() && change.backend != BACKEND {
        return Err(damaged("its payload is in an unknown backend"));
    }
    let previous = change.previous.map(|labels| {
        let scope = labels.scope.parse::<Scope>().map_err(damaged)?;
        let access = Access { scope, groups: labels.groups, agents: labels.agents };
        Ok::<_, Fault>(Labels { metadata: labels.metadata, content_type: labels.content_type, size: labels.size, access })
    });
    let kind = Change::from_number(change.kind).ok_or_else(|| damaged("unknown kind of change"))?;
    Ok(Some(Event {
        change: kind,
        previous: previous.transpose()?,
        context: Context {
            id: ContextId(uuid(&change.id)?),
            kind: change.context_type,
            creator: AgentId(uuid(&change.creator)?),
            creator_name: change.creator_name,
            account: None,
            access: Access {
                scope: change.scope.parse::<Scope>().map_err(damaged)?,
                groups: change.groups,
                agents: change.agents,
            },
            metadata: change.metadata,
            version: change.version,
            content_type: change.content_type,
            // A schema's id is never empty.
            schema: (!change.schema_id.is_empty()).then_some(SchemaRef { id: change.schema_id, version: change.schema_version }),
            payload: match (change.payload, change.upload.is_empty()) {
                (Some(payload), _) => Payload::Inline(payload),
                (None, false) => Payload::Chunks(UploadId(uuid(&change.upload)?)),
                (None, true) => Payload::Unread,
            },
            size: change.size,
            sha256: change.sha256.as_ref().try_into().map_err(damaged)?,
            created_at: date(change.created_at)?,
            updated_at: date(change.updated_at)?,
            expires_at: change.expires_at.map(date).transpose()?,
        },
    }))
}

fn damaged(why: impl std::fmt::Display) -> Fault {
    Fault::new(Code::DataLoss, "CONTEXT_RECORD_DAMAGED", format!("a record of the log is no change of a context: {why}"))
}

fn uuid(bytes: &[u8]) -> Result<Uuid, Fault> {
    Uuid::from_slice(bytes).map_err(damaged)
}

fn date(micros: i64) -> Result<OffsetDateTime, Fault> {
    from_micros(micros).ok_or_else(|| damaged("a time beyond what a date can say"))
}

#[cfg(test)]
pub(crate) mod tests;
