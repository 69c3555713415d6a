//! Contexts: what they are, and who may see them.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    audience::{Access, may_publish},
    visibility::Viewer,
};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        schema::SchemaRef,
    },
    fault::Fault,
    kit::{clock::now, labels::check_metadata, quoted::quoted},
};

/// The most that a context may have inline, with its envelope.
pub const MAX_INLINE_BYTES: usize = 1024 * 1024;

/// The longest time to live: ten years.
const MAX_TTL: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// A context's id, a UUIDv7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextId(pub Uuid);

impl ContextId {
    /// From its text. What is no id can't name a context either.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        Uuid::parse_str(text)
            .map(Self)
            .map_err(|_| Fault::invalid("CONTEXT_ID_INVALID", format!("context id {} is not a UUID", quoted(text))))
    }
}

impl fmt::Display for ContextId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An upload's id, chosen by its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UploadId(pub Uuid);

impl UploadId {
    /// From its text.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match Uuid::parse_str(text) {
            Ok(id) if !id.is_nil() => Ok(Self(id)),
            _ => Err(Fault::invalid("UPLOAD_ID_INVALID", "an upload id is a UUID that the sender chooses")),
        }
    }
}

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Here.
    Inline(Bytes),
    /// In the chunks of this upload.
    Chunks(UploadId),
    /// Inline in the store, and not read.
    Unread,
}

/// A typed, versioned payload with a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Its id.
    pub id: ContextId,
    /// Its type, one of the tenant's.
    pub kind: String,
    /// Who made it.
    pub creator: AgentId,
    /// The creator's name at that time.
    pub creator_name: String,
    /// On whose account it is kept, where that is not its creator's: who had registered the creator. Only the store says so.
    pub account: Option<AgentId>,
    /// Who may see it.
    pub access: Access,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// From 1; one more at each update.
    pub version: u64,
    /// Media type of the payload.
    pub content_type: String,
    /// The JSON Schema that the payload met, where its type had one when this version was made.
    pub schema: Option<SchemaRef>,
    /// The payload.
    pub payload: Payload,
    /// Bytes of the payload.
    pub size: u64,
    /// SHA-256 of the payload.
    pub sha256: [u8; 32],
    /// Since when it is there.
    pub created_at: OffsetDateTime,
    /// When this version was made.
    pub updated_at: OffsetDateTime,
    /// From when on it is gone.
    pub expires_at: Option<OffsetDateTime>,
}

impl Context {
    /// Whether it is gone.
    #[must_use]
    pub fn expired(&self, now: OffsetDateTime) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether this agent may see it.
    #[must_use]
    pub fn seen_by(&self, viewer: &Viewer) -> bool {
        viewer.sees(&self.kind, self.creator, &self.access)
    }
}

/// What a caller gives to make a context, without its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The type.
    pub kind: String,
    /// Anything else.
    pub metadata: BTreeMap<String, String>,
    /// Media type of the payload.
    pub content_type: String,
    /// How long it lives; `None`: until deleted.
    pub ttl: Option<Duration>,
    /// Who may see it.
    pub access: Access,
}

impl Description {
    /// Whether this agent may make such a context. `types` says whether the tenant has the type.
    pub fn validate(&self, creator: &Agent, known_type: bool) -> Result<(), Fault> {
        may_publish(creator, &self.kind, known_type)?;
        validate_labels(&self.metadata, &self.content_type)?;
        validate_ttl(self.ttl)?;
        self.access.validate()
    }

    /// The context that this makes.
    #[must_use]
    pub fn context(self, creator: &Agent, schema: Option<SchemaRef>, payload: Payload, size: u64, sha256: [u8; 32]) -> Context {
        let now = now();
        Context {
            id: ContextId(Uuid::now_v7()),
            kind: self.kind,
            creator: creator.id,
            creator_name: creator.name.clone(),
            account: None,
            access: self.access,
            metadata: self.metadata,
            version: 1,
            content_type: self.content_type,
            schema,
            payload,
            size,
            sha256,
            created_at: now,
            updated_at: now,
            expires_at: self.ttl.map(|ttl| now + ttl),
        }
    }
}

/// Refuses what the store can't keep, and more than a page of a list could hold.
pub fn validate_labels(metadata: &BTreeMap<String, String>, content_type: &str) -> Result<(), Fault> {
    if content_type.len() > 255 || content_type.contains(char::is_control) {
        return Err(Fault::invalid("CONTENT_TYPE_INVALID", "a content type has at most 255 bytes, without control characters"));
    }
    check_metadata(metadata)
}

/// Refuses a time to live that is nothing or beyond what a date can say.
pub fn validate_ttl(ttl: Option<Duration>) -> Result<(), Fault> {
    match ttl {
        Some(ttl) if ttl.is_zero() || ttl > MAX_TTL => {
            Err(Fault::invalid("TTL_INVALID", "a time to live is more than nothing and at most ten years"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{contexts::audience::tests::agent, directory::agent::Role, kit::labels::MAX_METADATA_BYTES};

    #[test]
    fn a_type_must_be_the_tenants_and_published() {
        let describe = |kind: &str, ttl| Description {
            kind: kind.into(),
            metadata: BTreeMap::new(),
            content_type: String::new(),
            ttl,
            access: Access::public(),
        };
        let full = agent("a", Role::Full, &[], &[]);
        let reason = |result: Result<(), Fault>| result.map_err(|fault| fault.reason);
        assert_eq!(describe("notes", None).validate(&full, true), Ok(()));
        assert_eq!(reason(describe("notes", None).validate(&full, false)), Err("CONTEXT_TYPE_UNKNOWN"));
        assert_eq!(reason(describe("plans", None).validate(&full, true)), Err("CONTEXT_TYPE_NOT_PUBLISHED"));
        assert_eq!(describe("plans", None).validate(&agent("b", Role::Admin, &[], &[]), true), Ok(()));
        assert_eq!(reason(describe("notes", Some(Duration::ZERO)).validate(&full, true)), Err("TTL_INVALID"));
        assert_eq!(reason(describe("notes", Some(Duration::MAX)).validate(&full, true)), Err("TTL_INVALID"));
        let labels = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(validate_labels(&labels("a", "b\nc"), "text/plain"), Ok(()));
        assert_eq!(reason(validate_labels(&labels("a", "\0"), "")), Err("METADATA_INVALID"));
        assert_eq!(reason(validate_labels(&labels("", "b"), "")), Err("METADATA_INVALID"));
        assert_eq!(reason(validate_labels(&labels("a", &"b".repeat(MAX_METADATA_BYTES)), "")), Err("METADATA_INVALID"));
        assert_eq!(reason(validate_labels(&BTreeMap::new(), "text\0")), Err("CONTENT_TYPE_INVALID"));
    }
}
