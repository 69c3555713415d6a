//! The ports that keep contexts and their unlogged changes.

use async_trait::async_trait;
use bytes::Bytes;
use time::OffsetDateTime;

use crate::{
    agent::AgentId,
    context::{Context, ContextId, Viewer},
    fault::Fault,
};

/// What a create found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is made.
    New,
    /// The creator has made it before, with the same idempotency key.
    Before(Box<Context>),
}

/// Keeps contexts. Each change is written in one transaction with its event for the outbox, and is durable before the call resolves.
#[async_trait]
pub trait ContextStore: Send + Sync + 'static {
    /// Makes one.
    async fn create(&self, context: &Context, idempotency_key: Option<&str>, event: Bytes) -> Result<Created, Fault>;
    /// One that has not expired, with its payload.
    async fn get(&self, id: ContextId) -> Result<Option<Context>, Fault>;
    /// Replaces version `context.version - 1` with this one. False where that is not the current one any more.
    async fn update(&self, context: &Context, event: Bytes) -> Result<bool, Fault>;
    /// Removes this version, expired or not. False where it is not the current one any more.
    async fn delete(&self, id: ContextId, version: u64, event: Bytes) -> Result<bool, Fault>;
    /// Those that the viewer sees, unexpired, without payloads, in the order of their ids.
    async fn list(&self, viewer: &Viewer, filter: ListFilter<'_>, limit: u32) -> Result<Vec<Context>, Fault>;
    /// Some that have expired, without payloads, in the order of their expiry, `after` a place of that order.
    async fn expired(&self, after: Option<Expiry>, limit: u32) -> Result<Vec<Context>, Fault>;
    /// The expired one that holds an idempotency key.
    async fn expired_with_key(&self, creator: AgentId, idempotency_key: &str) -> Result<Option<Context>, Fault>;
    /// Bytes of all payloads.
    async fn stored_bytes(&self) -> Result<u64, Fault>;
}

/// A place in the order of expiry.
pub type Expiry = (OffsetDateTime, ContextId);

/// Which contexts to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListFilter<'a> {
    /// Of this type.
    pub kind: Option<&'a str>,
    /// After this one.
    pub after: Option<ContextId>,
}

/// A change that the log may not have yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlogged {
    /// Its place among the changes of its context.
    pub sequence: i64,
    /// Of which context.
    pub context: ContextId,
    /// Of which type.
    pub kind: String,
    /// As encoded by [`context_event`](crate::context_event).
    pub event: Bytes,
}

/// Some unlogged changes, claimed: while this lives no other replica gets a change of these contexts. Dropping it gives them back.
#[async_trait]
pub trait Claim: Send {
    /// The changes, in the order in which they must be logged for each context: for each the oldest that there is, without a gap.
    fn changes(&self) -> &[Unlogged];
    /// Forgets what the log has.
    async fn done(self: Box<Self>, sequences: &[i64]) -> Result<(), Fault>;
}

/// Keeps unlogged changes.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Claims some, of other contexts than these. `None` where nothing of those is unclaimed.
    async fn claim(&self, passed_over: &[ContextId]) -> Result<Option<Box<dyn Claim>>, Fault>;
}
