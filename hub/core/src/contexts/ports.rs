//! The ports that keep contexts.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;

use super::{
    audience::Access,
    chunk::{Chunk, Layout, Stored},
    context::{Context, ContextId, Description, UploadId},
    visibility::Viewer,
};
use crate::{directory::agent::AgentId, fault::Fault};

/// What a create found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is made.
    New,
    /// The creator has made it before, with the same idempotency key. Without its payload.
    Before(Box<Context>),
}

/// Knows who may read contexts now.
#[async_trait]
pub trait AccessStore: Send + Sync + 'static {
    /// The access of those of the contexts that are there.
    async fn access(&self, ids: &[ContextId]) -> Result<Vec<(ContextId, Access)>, Fault>;
}

/// Keeps contexts. Each change is written in one transaction with its event for the outbox, and is durable before the call resolves.
#[async_trait]
pub trait ContextStore: AccessStore {
    /// Makes one.
    async fn create(&self, context: &Context, idempotency_key: Option<&str>, event: Bytes) -> Result<Created, Fault>;
    /// One that has not expired, without its payload.
    async fn get(&self, id: ContextId) -> Result<Option<Context>, Fault>;
    /// The inline payload of this version. `None` where that is not the current one any more.
    async fn payload(&self, id: ContextId, version: u64) -> Result<Option<Bytes>, Fault>;
    /// Replaces version `context.version - 1` with this one. False where that is not the current one any more. `expires_at`: where the update says when it
    /// expires; otherwise it expires when it did before, to the microsecond, however often it is updated.
    async fn update(&self, context: &Context, expires_at: Option<OffsetDateTime>, event: Bytes) -> Result<bool, Fault>;
    /// The same, where only the access is another one: the payload stays as it is.
    async fn set_access(&self, context: &Context, event: Bytes) -> Result<bool, Fault>;
    /// Removes this version, expired or not. False where it is not the current one any more.
    async fn delete(&self, id: ContextId, version: u64, event: Bytes) -> Result<bool, Fault>;
    /// Those that the viewer sees, unexpired, without payloads, in the order of their ids: at most `limit`, of no more than [`LOOKED_AT`] contexts.
    async fn list(&self, viewer: &Viewer, filter: ListFilter<'_>, limit: u32) -> Result<Listed, Fault>;
    /// Some that have expired, without payloads, in the order of their expiry, `after` a place of that order.
    async fn expired(&self, after: Option<Expiry>, limit: u32) -> Result<ExpiredContexts, Fault>;
    /// The expired one that holds an idempotency key.
    async fn expired_with_key(&self, creator: AgentId, idempotency_key: &str) -> Result<Option<Context>, Fault>;
    /// The one that holds an idempotency key, expired or not, without its payload.
    async fn with_key(&self, creator: AgentId, idempotency_key: &str) -> Result<Option<Context>, Fault>;
    /// What is kept on these accounts, or on all: with what is on its way in.
    async fn kept(&self, accounts: Option<&[AgentId]>) -> Result<Kept, Fault>;
}

/// Contexts, and the bytes of their payloads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// How many there are. A context with many versions is one.
    pub contexts: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Kept {
    /// One context of this size.
    #[must_use]
    pub const fn one(bytes: u64) -> Self {
        Self { contexts: 1, bytes }
    }

    /// Those and these.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self { contexts: self.contexts.saturating_add(other.contexts), bytes: self.bytes.saturating_add(other.bytes) }
    }
}

/// A place in the order of expiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// By the clock of the store. Only the store knows what it means: by another clock, and back, it would be another place.
    pub at: OffsetDateTime,
    /// Of those that expired at that time.
    pub id: ContextId,
}

/// Some contexts that have expired.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpiredContexts {
    /// In the order of their expiry, without payloads.
    pub contexts: Vec<Context>,
    /// Where the look goes on, where there may be others.
    pub next: Option<Expiry>,
}

/// The most contexts that one step of a list looks at, whoever sees them.
pub const LOOKED_AT: u32 = 1024;

/// A step of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// In the order of their ids.
    pub contexts: Vec<Context>,
    /// The last one that was looked at, where there may be others after it. `None`: all were looked at.
    pub until: Option<ContextId>,
}

/// Which contexts to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListFilter<'a> {
    /// Of this type.
    pub kind: Option<&'a str>,
    /// After this one.
    pub after: Option<ContextId>,
}

/// A payload on its way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Its id.
    pub id: UploadId,
    /// Whose it is.
    pub agent: AgentId,
    /// On whose account it is, where that is not its agent's: who has registered it.
    pub account: Option<AgentId>,
    /// What the context will be.
    pub description: Description,
    /// How it is cut.
    pub layout: Layout,
    /// Set once it is finished.
    pub context: Option<ContextId>,
}

impl Upload {
    /// The first thing, named, in which the request for this upload differs from a later one with its id.
    pub(crate) fn differs_in(&self, other: &Self) -> Option<&'static str> {
        let (ours, theirs) = (&self.description, &other.description);
        // As exact as it is stored.
        let millis = |description: &Description| description.ttl.map(|ttl| ttl.as_millis().max(1));
        let same = [
            ("size", self.layout.size == other.layout.size),
            ("type", ours.kind == theirs.kind),
            ("access", ours.access == theirs.access),
            ("time to live", millis(ours) == millis(theirs)),
            ("content type", ours.content_type == theirs.content_type),
            ("metadata", ours.metadata == theirs.metadata),
        ];
        same.into_iter().find_map(|(what, same)| (!same).then_some(what))
    }
}

/// What finishing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The context is made.
    New,
    /// It was made before.
    Before(ContextId),
    /// The upload is gone.
    NoUpload,
}

/// Keeps uploads.
#[async_trait]
pub trait UploadStore: Send + Sync + 'static {
    /// Makes one, unless there is one with its id already (of whoever): then that one is returned.
    async fn begin(&self, upload: &Upload) -> Result<Upload, Fault>;
    /// Finds one.
    async fn find(&self, id: UploadId) -> Result<Option<Upload>, Fault>;
    /// Takes note that it is not abandoned.
    async fn touch(&self, id: UploadId) -> Result<(), Fault>;
    /// Makes the context of an upload, and its event, in one transaction.
    async fn finish(&self, id: UploadId, context: &Context, event: Bytes) -> Result<Finished, Fault>;
    /// Removes unfinished ones that were not touched for this long, and says how many.
    async fn remove_abandoned(&self, untouched: Duration) -> Result<u64, Fault>;
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is stored, by this call or by an earlier one with the same content.
    Stored,
    /// Another content is stored under this index.
    Differs,
    /// There is no such upload (any more).
    NoUpload,
}

/// Keeps chunks: rows now, objects where the platform has them.
///
/// - A chunk is durable before [`put`](Self::put) resolves, and never changes after.
/// - Chunks go when their upload goes.
#[async_trait]
pub trait ChunkStore: Send + Sync + 'static {
    /// Stores one. The caller has verified its checksum.
    async fn put(&self, upload: UploadId, chunk: &Chunk) -> Result<Put, Fault>;
    /// Reads one.
    async fn get(&self, upload: UploadId, index: u32) -> Result<Option<Chunk>, Fault>;
    /// Which there are.
    async fn stored(&self, upload: UploadId) -> Result<Stored, Fault>;
}
