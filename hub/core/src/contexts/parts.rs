//! What the services of contexts share: the stores, the directory, the schemas, and the two steps that all of them take.

use std::{sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    change::{self, Change},
    context::{Context, ContextId, Payload},
    filter::ContextFilter,
    ports::{ChunkStore, ContextStore, Kept, UploadStore},
    schema_check::SchemaChecks,
    storage::Storage,
    visibility::Viewer,
};
use crate::{
    directory::{
        agent::{Agent, AgentId},
        limits::LimitUsage,
        snapshot::Directory,
    },
    fault::{Code, Fault},
    kit::{
        budget::{Budget, Room, Shares},
        clock::now,
    },
    log::outbox::relay::Committed,
    metrics::contexts::ContextMetrics,
};

const MIB: usize = 1024 * 1024;

/// What the contexts of all calls hold at one time, beside their request bodies, and those of one agent's calls.
const CALLS: (usize, usize) = (64 * MIB, 8 * MIB);

/// The same of what subscribers read from the log.
const READS: (usize, usize) = (32 * MIB, 8 * MIB);

/// How long a call waits for room.
const WAIT: Duration = Duration::from_secs(5);

/// How often what another change overtook is tried again, where the caller named no version.
pub(crate) const RETRIES: usize = 10;

/// What contexts are kept in.
#[derive(Clone)]
pub struct ContextStores {
    /// Contexts.
    pub contexts: Arc<dyn ContextStore>,
    /// Uploads.
    pub uploads: Arc<dyn UploadStore>,
    /// Their chunks.
    pub chunks: Arc<dyn ChunkStore>,
    /// Tells the relay that a change was committed.
    pub committed: Committed,
}

/// Times and bounds.
#[derive(Clone, Debug)]
pub struct ContextConfig {
    /// How often to look for what has expired.
    pub expiry_poll: Duration,
    /// After how long without a chunk an upload is abandoned.
    pub upload_lifetime: Duration,
    /// How many changes of a type are held in memory for its subscribers.
    pub window_events: usize,
    /// And how many bytes of them.
    pub window_bytes: usize,
    /// How often a subscriber that sees nothing is told where it stands.
    pub bookmark_every: Duration,
    /// Chunks that go to or come from the store at the same time, over all streams of this replica.
    pub chunk_operations: usize,
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self {
            expiry_poll: Duration::from_secs(10),
            upload_lifetime: Duration::from_secs(24 * 60 * 60),
            window_events: 1024,
            window_bytes: 8 * 1024 * 1024,
            bookmark_every: Duration::from_secs(30),
            chunk_operations: 3,
        }
    }
}

/// What the services of one replica share.
pub(crate) struct Parts {
    /// The tenant's name.
    pub(crate) tenant: String,
    pub(crate) stores: ContextStores,
    pub(crate) directory: Directory,
    pub(crate) schemas: SchemaChecks,
    pub(crate) config: ContextConfig,
    pub(crate) metrics: ContextMetrics,
    /// What agents keep.
    storage: Storage,
    /// Payloads and events of calls.
    calls: Shares<AgentId>,
    /// Records that subscribers read.
    pub(crate) reads: Arc<Shares<AgentId>>,
}

impl Parts {
    pub(crate) fn new(
        tenant: String,
        stores: ContextStores,
        directory: Directory,
        config: ContextConfig,
        metrics: ContextMetrics,
    ) -> Self {
        Self {
            tenant,
            storage: Storage::default(),
            stores,
            directory,
            schemas: SchemaChecks::default(),
            config,
            metrics,
            calls: Shares::queues(Budget::new(CALLS.0), CALLS.1),
            reads: Arc::new(Shares::strict(Budget::new(READS.0), READS.1)),
        }
    }

    /// What all calls hold.
    pub(crate) fn memory(&self) -> Budget {
        self.calls.whole().clone()
    }

    /// Takes note that so much more is about to be kept for an agent, where its limits and the tenant's leave it.
    pub(crate) async fn keep(&self, agent: AgentId, more: Kept) -> Result<(), Fault> {
        let snapshot = self.directory.snapshot();
        let kept = self.storage.take(&*self.stores.contexts, &snapshot, (&self.tenant, agent), more).await;
        kept.inspect_err(|fault| self.metrics.limited(fault))
    }

    /// On whose account it is what an agent keeps, where that is not its own. It is so for good: an agent that was registered may be unregistered.
    pub(crate) fn account_of(&self, agent: AgentId) -> Option<AgentId> {
        self.directory.snapshot().registered_by(agent).map(|registrar| registrar.id)
    }

    /// The limits of what this account and the tenant keep, and what they do.
    pub(crate) async fn kept(&self, account: &Agent) -> Result<Vec<LimitUsage>, Fault> {
        self.storage.usage(&*self.stores.contexts, &self.directory.snapshot(), (&self.tenant, account)).await
    }

    /// Room for what a call of this agent holds.
    pub(crate) async fn room(&self, agent: AgentId, bytes: usize) -> Result<Room, Fault> {
        timeout(WAIT, self.calls.wait(agent, bytes)).await.map_err(|_| {
            let why =
                "contexts of this agent hold as many bytes as they may on this replica: try again when some calls have ended";
            Fault::new(Code::ResourceExhausted, "TOO_MANY_CONTEXT_BYTES", why)
        })
    }

    /// Compiles a filter; `None` for an empty one.
    pub(crate) fn filter(&self, source: &str) -> Result<Option<ContextFilter>, Fault> {
        ContextFilter::compile(source).map_err(|problem| {
            self.metrics.filter_refused(problem.cause);
            problem.fault(source)
        })
    }

    /// A context that the caller may see, without its payload.
    pub(crate) async fn get(&self, caller: &Agent, id: ContextId) -> Result<Context, Fault> {
        let context = self.stores.contexts.get(id).await?.filter(|context| context.seen_by(&Viewer::of(caller)));
        context.ok_or_else(|| not_found(id))
    }

    /// The same with its payload, and the room that this takes.
    pub(crate) async fn get_whole(&self, caller: &Agent, id: ContextId) -> Result<(Context, Option<Room>), Fault> {
        for _ in 0..RETRIES {
            let context = self.get(caller, id).await?;
            if context.payload != Payload::Unread {
                return Ok((context, None));
            }
            // Only what the caller may see is loaded, and only where there is room for it.
            let room = self.room(caller.id, usize::try_from(context.size).unwrap_or(usize::MAX)).await?;
            if let Some(payload) = self.stores.contexts.payload(id, context.version).await? {
                return Ok((Context { payload: Payload::Inline(payload), ..context }, Some(room)));
            }
        }
        Err(busy(id))
    }

    /// Deletes this version. False where it is not the current one any more.
    pub(crate) async fn remove(&self, context: &Context) -> Result<bool, Fault> {
        let tombstone = Context { version: context.version + 1, updated_at: now(), ..context.clone() };
        let event = change::encode(Change::Deleted, &tombstone, None)?;
        let removed = self.stores.contexts.delete(context.id, context.version, event).await?;
        if removed {
            self.stores.committed.tell();
        }
        Ok(removed)
    }
}

pub(crate) fn busy(id: ContextId) -> Fault {
    Fault::new(Code::Aborted, "CONTEXT_BUSY", format!("context {id} changes all the time: try again"))
}

pub(crate) fn not_found(id: ContextId) -> Fault {
    Fault::not_found("CONTEXT_NOT_FOUND", format!("there is no context {id} that you may see"))
}
