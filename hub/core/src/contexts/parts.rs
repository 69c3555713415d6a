//! What the services of contexts share: the stores, the directory, the schemas, and the two steps that all of them take.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;

use super::{
    audience::Viewer,
    change::{self, Change},
    context::{Context, ContextId},
    ports::{ChunkStore, ContextStore, Outbox, UploadStore},
    schema_check::SchemaChecks,
};
use crate::{
    directory::{agent::Agent, snapshot::Directory},
    fault::Fault,
    kit::clock::now,
};

/// What contexts are kept in.
#[derive(Clone)]
pub struct ContextStores {
    /// Contexts.
    pub contexts: Arc<dyn ContextStore>,
    /// Changes that the log may not have yet.
    pub outbox: Arc<dyn Outbox>,
    /// Uploads.
    pub uploads: Arc<dyn UploadStore>,
    /// Their chunks.
    pub chunks: Arc<dyn ChunkStore>,
}

/// Times and bounds.
#[derive(Clone, Debug)]
pub struct ContextConfig {
    /// How often to look for changes that another replica did not get to the log.
    pub relay_poll: Duration,
    /// How often to look for what has expired.
    pub expiry_poll: Duration,
    /// After how long without a chunk an upload is abandoned.
    pub upload_lifetime: Duration,
    /// How many changes of a type are held in memory for its subscribers.
    pub window_events: usize,
    /// And how many bytes of them.
    pub window_bytes: usize,
    /// Chunks that go to or come from the store at the same time, over all streams of this replica.
    pub chunk_operations: usize,
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self {
            relay_poll: Duration::from_secs(5),
            expiry_poll: Duration::from_secs(10),
            upload_lifetime: Duration::from_secs(24 * 60 * 60),
            window_events: 1024,
            window_bytes: 8 * 1024 * 1024,
            chunk_operations: 3,
        }
    }
}

/// What the services of one replica share.
pub(crate) struct Parts {
    pub(crate) stores: ContextStores,
    pub(crate) directory: Directory,
    pub(crate) schemas: SchemaChecks,
    pub(crate) config: ContextConfig,
    /// Wakes the relay: a change was committed.
    pub(crate) committed: Arc<Notify>,
}

impl Parts {
    /// A context that the caller may see.
    pub(crate) async fn get(&self, caller: &Agent, id: ContextId) -> Result<Context, Fault> {
        let context = self.stores.contexts.get(id).await?.filter(|context| context.seen_by(&Viewer::of(caller)));
        context.ok_or_else(|| not_found(id))
    }

    /// Deletes this version. False where it is not the current one any more.
    pub(crate) async fn remove(&self, context: &Context) -> Result<bool, Fault> {
        let tombstone = Context { version: context.version + 1, updated_at: now(), ..context.clone() };
        let event = change::encode(Change::Deleted, &tombstone)?;
        let removed = self.stores.contexts.delete(context.id, context.version, event).await?;
        if removed {
            self.committed.notify_one();
        }
        Ok(removed)
    }
}

pub(crate) fn not_found(id: ContextId) -> Fault {
    Fault::not_found("CONTEXT_NOT_FOUND", format!("there is no context {id} that you may see"))
}
