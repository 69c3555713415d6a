//! Large contexts on their way in: chunk by chunk, each durable before it is acknowledged, resumable on any replica.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    audience::may_publish,
    catalog::Contexts,
    change::{self, Change},
    chunk::{CHUNK_BYTES, Chunk, Layout, MAX_STREAMED_BYTES, Stored, check_place},
    context::{Context, ContextId, Description, Payload, UploadId},
    parts::{Parts, not_found},
    ports::{Finished, Kept, Put, Upload},
    schema_check::check_size,
    visibility::Viewer,
};
use crate::{
    directory::agent::Agent,
    fault::{Code, Fault},
    kit::budget::{Budget, Queue, Room},
    metrics::contexts::ContextMetrics,
};

/// How old what is known of a context's access may be while it is read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Chunks of one stream on their way to the store.
const WINDOW: usize = 4;

/// Chunks of one stream read ahead of their reader.
const READ_AHEAD: usize = 2;

/// Chunks on their way, in and out, of all streams of a replica. A stream that has none may always take one.
const CHUNKS_IN_MEMORY: usize = 32;

/// How often a busy upload says that it is not abandoned.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which upload.
    pub upload: UploadId,
    /// Its shape.
    pub layout: Layout,
    /// What is stored of it.
    pub stored: Stored,
    /// Set once it is finished.
    pub context: Option<ContextId>,
}

/// What the sender of an upload says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartUpload {
    /// The id that it chose.
    pub id: UploadId,
    /// Bytes of the payload.
    pub size: u64,
    /// What the context will be.
    pub description: Description,
}

/// The streaming service of one replica.
#[derive(Clone)]
pub struct Uploads {
    parts: Arc<Parts>,
    metrics: ContextMetrics,
    operations: Arc<Semaphore>,
    memory: Budget,
}

impl Uploads {
    /// Streams for these contexts.
    #[must_use]
    pub fn new(contexts: &Contexts, metrics: ContextMetrics) -> Self {
        let parts = contexts.parts().clone();
        let operations = Arc::new(Semaphore::new(parts.config.chunk_operations.max(1)));
        let memory = Budget::new(CHUNKS_IN_MEMORY * CHUNK_BYTES as usize);
        Self { parts, metrics, operations, memory }
    }

    /// What chunks hold on their way in and out.
    #[must_use]
    pub fn memory(&self) -> Budget {
        self.memory.clone()
    }

    /// Begins an upload, or goes on with the one that has its id.
    pub async fn start(&self, agent: &Agent, start: StartUpload) -> Result<UploadSession, Fault> {
        if start.size == 0 || start.size > MAX_STREAMED_BYTES {
            return Err(Fault::invalid(
                "UPLOAD_SIZE_INVALID",
                format!("an upload has 1 to {MAX_STREAMED_BYTES} bytes, and this one {}", start.size),
            ));
        }
        start.description.validate(agent, self.knows(&start.description.kind))?;
        check_size(&self.parts.directory.snapshot(), &start.description.kind, start.size)?;
        let layout = Layout { size: start.size, chunk_size: CHUNK_BYTES };
        let account = self.parts.account_of(agent.id);
        let wanted = Upload { id: start.id, agent: agent.id, account, description: start.description, layout, context: None };
        // What can't become a context must be known now, not after a hundred chunks.
        let draft = wanted.description.clone().context(agent, None, Payload::Chunks(wanted.id), start.size, [0; 32]);
        change::encode(Change::Created, &draft, None)?;
        // One that was begun goes on: it counts as a whole from its beginning.
        if let Err(fault) = self.parts.keep(agent.id, Kept::one(start.size)).await
            && self.parts.stores.uploads.find(wanted.id).await?.is_none()
        {
            return Err(fault);
        }
        let upload = self.parts.stores.uploads.begin(&wanted).await?;
        if upload.agent != agent.id {
            return Err(upload_not_found(upload.id));
        }
        // The first request defines the context. A different one is refused now: its caller would find out only from who can read the context.
        if let Some(other) = upload.differs_in(&wanted) {
            return Err(Fault::new(
                Code::AlreadyExists,
                "UPLOAD_ID_REUSED",
                format!("upload {} was begun with another {other}: give the same, or choose a new id", upload.id),
            ));
        }
        self.session(agent, upload).await
    }

    /// Goes on with an upload.
    pub async fn resume(&self, agent: &Agent, id: UploadId) -> Result<UploadSession, Fault> {
        let upload = self.own(agent, id).await?;
        if upload.context.is_none() {
            may_publish(agent, &upload.description.kind, self.knows(&upload.description.kind))?;
        }
        self.session(agent, upload).await
    }

    /// How far an upload is.
    pub async fn progress(&self, agent: &Agent, id: UploadId) -> Result<Progress, Fault> {
        let upload = self.own(agent, id).await?;
        let stored = self.parts.stores.chunks.stored(id).await?;
        Ok(Progress { upload: id, layout: upload.layout, stored, context: upload.context })
    }

    /// A context and its chunks, from one on.
    pub async fn receive(&self, agent: &Agent, id: ContextId, from_chunk: u32) -> Result<(Context, Chunks), Fault> {
        let (context, room) = self.parts.get_whole(agent, id).await?;
        let layout = Layout { size: context.size, chunk_size: CHUNK_BYTES };
        if from_chunk > layout.count() {
            return Err(Fault::new(
                Code::OutOfRange,
                "CHUNK_INDEX_OUT_OF_RANGE",
                format!("there is no chunk {from_chunk}: context {id} has {} chunks", layout.count()),
            ));
        }
        let chunks = Chunks {
            uploads: self.clone(),
            agent: agent.clone(),
            context: context.clone(),
            looked_at: Instant::now(),
            next: from_chunk,
            count: layout.count(),
            memory: self.memory.queue(READ_AHEAD * CHUNK_BYTES as usize),
            _room: room,
            ahead: VecDeque::new(),
        };
        Ok((context, chunks))
    }

    fn knows(&self, kind: &str) -> bool {
        self.parts.directory.snapshot().context_types.contains_key(kind)
    }

    async fn own(&self, agent: &Agent, id: UploadId) -> Result<Upload, Fault> {
        let upload = self.parts.stores.uploads.find(id).await?;
        upload.filter(|upload| upload.agent == agent.id).ok_or_else(|| upload_not_found(id))
    }

    async fn session(&self, agent: &Agent, upload: Upload) -> Result<UploadSession, Fault> {
        self.parts.stores.uploads.touch(upload.id).await?;
        let stored = self.parts.stores.chunks.stored(upload.id).await?;
        let next = stored.next();
        let gone = CancellationToken::new();
        Ok(UploadSession {
            uploads: self.clone(),
            agent: agent.clone(),
            hash: (next == 0).then(Sha256::new),
            expected: next,
            touched: Instant::now(),
            memory: self.memory.queue(WINDOW * CHUNK_BYTES as usize),
            pending: FuturesUnordered::new(),
            gone: gone.clone(),
            _gone_with_this: gone.drop_guard(),
            stored,
            upload,
        })
    }

    fn get_chunk(&self, upload: UploadId, index: u32) -> Reading {
        let (operations, chunks) = (self.operations.clone(), self.parts.stores.chunks.clone());
        let gone = CancellationToken::new();
        let waits = gone.clone();
        // Spawned, so that the read goes on while its reader sends the chunk before it. A read whose reader left gives up its place in the
        // queue. Otherwise downloads that are opened and cancelled would hold up all others.
        let task = tokio::spawn(async move {
            match waits.run_until_cancelled(operations.acquire_owned()).await {
                Some(Ok(_permit)) => chunks.get(upload, index).await,
                Some(Err(_)) | None => Err(stopping()),
            }
        });
        let gone = gone.drop_guard();
        async move {
            let _gone = gone;
            task.await.map_err(|_| stopping())?
        }
        .boxed()
    }
}

/// One connection's part of an upload.
pub struct UploadSession {
    uploads: Uploads,
    agent: Agent,
    upload: Upload,
    stored: Stored,
    /// The next new chunk.
    expected: u32,
    /// Of all chunks below `expected`, while this session has seen them all.
    hash: Option<Sha256>,
    touched: Instant,
    memory: Queue,
    pending: FuturesUnordered<JoinHandle<(u32, Result<Put, Fault>)>>,
    /// Nobody waits for its chunks any more.
    gone: CancellationToken,
    _gone_with_this: DropGuard,
}

impl UploadSession {
    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { upload: self.upload.id, layout: self.upload.layout, stored: self.stored, context: self.upload.context }
    }

    /// Whether another chunk may be taken before one is stored. Asked before it is read: what waits for the store must not pile up here,
    /// and a sender that takes its time must not hold what others wait for.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.pending.is_empty() || self.pending.len() < WINDOW && self.memory.fits(CHUNK_BYTES as usize)
    }

    /// Whether chunks are on their way to the store.
    #[must_use]
    pub fn busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Verifies a chunk and sends it on its way to the store. To be called only while there is room.
    pub async fn put(&mut self, chunk: Chunk) -> Result<(), Fault> {
        check_place(self.upload.layout, self.expected, &chunk)?;
        // Where nothing of this upload waits for the store, others may hold all there is.
        let room = self.memory.wait(chunk.data.len()).await;
        let new = chunk.index == self.expected;
        let hash = self.hash.take();
        // A chunk takes a millisecond or more to hash: too long for a thread that serves others.
        let hashed = tokio::task::spawn_blocking(move || {
            let intact = <[u8; 32]>::from(Sha256::digest(&chunk.data)) == chunk.sha256;
            let hash = hash.map(|hash| if intact && new { hash.chain_update(&chunk.data) } else { hash });
            (chunk, intact, hash)
        });
        let (chunk, intact, hash) = hashed.await.map_err(|_| stopping())?;
        self.hash = hash;
        if !intact {
            return Err(Fault::new(
                Code::DataLoss,
                "CHUNK_CHECKSUM_MISMATCH",
                format!("chunk {} is damaged: its SHA-256 is not what it says; resume the upload and send it again", chunk.index),
            ));
        }
        if new {
            self.expected += 1;
        }
        if self.touched.elapsed() >= TOUCH_EVERY {
            self.touched = Instant::now();
            self.uploads.parts.stores.uploads.touch(self.upload.id).await?;
        }
        self.uploads.metrics.streamed(&self.agent.name, "in", chunk.data.len());
        let (operations, chunks) = (self.uploads.operations.clone(), self.uploads.parts.stores.chunks.clone());
        let (id, index) = (self.upload.id, chunk.index);
        let gone = self.gone.clone();
        // Spawned: a chunk that is half-way to the store gets there even where the connection breaks. One that waits for its turn is
        // forgotten then, or a sender that comes again and again would leave more and more of them.
        self.pending.push(tokio::spawn(async move {
            let _room = room;
            match gone.run_until_cancelled(operations.acquire_owned()).await {
                Some(Ok(_permit)) => (index, chunks.put(id, &chunk).await),
                Some(Err(_)) | None => (index, Err(stopping())),
            }
        }));
        Ok(())
    }

    /// Waits until one more chunk is stored. `None` where none is on its way.
    pub async fn stored(&mut self) -> Option<Result<Progress, Fault>> {
        let Ok((index, put)) = self.pending.next().await? else { return Some(Err(stopping())) };
        Some(match put {
            Ok(Put::Stored) => {
                self.stored.insert(index);
                Ok(self.progress())
            }
            Ok(Put::Differs) => Err(Fault::new(
                Code::Aborted,
                "CHUNK_CONFLICT",
                format!("another content is stored as chunk {index} of upload {}: start a new upload", self.upload.id),
            )),
            Ok(Put::NoUpload) => Err(upload_not_found(self.upload.id)),
            Err(fault) => Err(fault),
        })
    }

    /// Makes the context. To be called when no chunk is on its way any more; may be repeated.
    pub async fn finish(mut self, sha256: [u8; 32]) -> Result<Context, Fault> {
        while let Some(stored) = self.stored().await {
            stored?;
        }
        let id = self.upload.id;
        if let Some(context) = self.upload.context {
            return self.finished_before(context, sha256).await;
        }
        // The stream may have begun long ago.
        let snapshot = self.uploads.parts.directory.snapshot();
        let kind = &self.upload.description.kind.clone();
        let agent = snapshot.acting_as(self.agent.id, self.agent.role)?;
        may_publish(&agent, kind, snapshot.context_types.contains_key(kind))?;
        // Another connection may have stored chunks of this upload, too.
        self.stored = self.uploads.parts.stores.chunks.stored(id).await?;
        let (next, count) = (self.stored.next(), self.upload.layout.count());
        if next < count {
            return Err(Fault::new(
                Code::FailedPrecondition,
                "UPLOAD_INCOMPLETE",
                format!("chunk {next} of upload {id} is missing: send it and the following ones, then finish"),
            ));
        }
        let whole: [u8; 32] = match self.hash.take().filter(|_| self.expected == count) {
            Some(hash) => hash.finalize().into(),
            None => self.read_again().await?,
        };
        if whole != sha256 {
            return Err(checksum_mismatch(id));
        }
        check_size(&snapshot, kind, self.upload.layout.size)?;
        let schema = if snapshot.context_types.get(kind).is_some_and(|kind| kind.schema.is_some()) {
            // What can be checked has one chunk.
            let chunk = self.uploads.get_chunk(id, 0).await?.ok_or_else(|| upload_not_found(id))?;
            self.uploads.parts.schemas.check(&snapshot, kind, &chunk.data).await?
        } else {
            None
        };
        let payload = Payload::Chunks(id);
        let context = self.upload.description.clone().context(&self.agent, schema, payload, self.upload.layout.size, whole);
        let context = Context { account: self.upload.account, ..context };
        let event = change::encode(Change::Created, &context, None)?;
        match self.uploads.parts.stores.uploads.finish(id, &context, event).await? {
            Finished::New => {
                self.uploads.parts.stores.committed.tell();
                Ok(context)
            }
            Finished::Before(first) => self.finished_before(first, sha256).await,
            Finished::NoUpload => Err(upload_not_found(id)),
        }
    }

    async fn finished_before(self, id: ContextId, sha256: [u8; 32]) -> Result<Context, Fault> {
        let context = self.uploads.parts.stores.contexts.get(id).await?.ok_or_else(|| not_found(id))?;
        if context.payload == Payload::Chunks(self.upload.id) && context.sha256 != sha256 {
            return Err(checksum_mismatch(self.upload.id));
        }
        Ok(context)
    }

    /// The SHA-256 of what is stored.
    async fn read_again(&mut self) -> Result<[u8; 32], Fault> {
        let mut hash = Sha256::new();
        let id = self.upload.id;
        let mut chunks = futures::stream::iter(0..self.upload.layout.count())
            .map(|index| self.uploads.get_chunk(id, index))
            .buffered(READ_AHEAD);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?.ok_or_else(|| upload_not_found(id))?;
            hash = tokio::task::spawn_blocking(move || hash.chain_update(&chunk.data)).await.map_err(|_| stopping())?;
        }
        Ok(hash.finalize().into())
    }
}

/// A chunk that is being read.
type Reading = BoxFuture<'static, Result<Option<Chunk>, Fault>>;

/// The chunks of a context, read a little ahead.
pub struct Chunks {
    uploads: Uploads,
    agent: Agent,
    /// As it was when it was looked at last.
    context: Context,
    looked_at: Instant,
    next: u32,
    count: u32,
    memory: Queue,
    /// Of an inline payload.
    _room: Option<Room>,
    ahead: VecDeque<(Room, Reading)>,
}

impl Chunks {
    /// The next one, in order; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Chunk, Fault>> {
        while self.ahead.len() < READ_AHEAD && self.next < self.count {
            let room = match self.memory.take(CHUNK_BYTES as usize) {
                Some(room) => room,
                None if self.ahead.is_empty() => self.memory.wait(CHUNK_BYTES as usize).await,
                None => break,
            };
            let index = self.next;
            self.next += 1;
            let chunk = match &self.context.payload {
                Payload::Chunks(upload) => self.uploads.get_chunk(*upload, index),
                Payload::Inline(payload) => {
                    let sha256 = Sha256::digest(payload).into();
                    let chunk = Chunk { index, sha256, data: payload.clone() };
                    async move { Ok(Some(chunk)) }.boxed()
                }
                Payload::Unread => async { Ok(None) }.boxed(),
            };
            self.ahead.push_back((room, chunk));
        }
        let chunk = (&mut self.ahead.front_mut()?.1).await;
        self.ahead.pop_front();
        Some(self.given(chunk).await)
    }

    async fn given(&mut self, chunk: Result<Option<Chunk>, Fault>) -> Result<Chunk, Fault> {
        let chunk = chunk?.ok_or_else(|| not_found(self.context.id))?;
        self.still_seen().await?;
        self.uploads.metrics.streamed(&self.agent.name, "out", chunk.data.len());
        Ok(chunk)
    }

    /// Refuses where the reader may not see the context any more: a long read outlives changes of its groups, and of who the context is for.
    async fn still_seen(&mut self) -> Result<(), Fault> {
        let parts = &self.uploads.parts;
        let id = self.context.id;
        if self.looked_at.elapsed() >= LOOK_AGAIN {
            let now = parts.stores.contexts.get(id).await?.ok_or_else(|| not_found(id))?;
            self.context.access = now.access;
            self.looked_at = Instant::now();
        }
        let snapshot = parts.directory.snapshot();
        let agent = snapshot.acting_as(self.agent.id, self.agent.role);
        if agent.is_ok_and(|agent| self.context.seen_by(&Viewer::of(&agent))) { Ok(()) } else { Err(not_found(id)) }
    }
}

fn upload_not_found(id: UploadId) -> Fault {
    Fault::not_found("UPLOAD_NOT_FOUND", format!("you have no upload {id}: start it"))
}

fn checksum_mismatch(id: UploadId) -> Fault {
    Fault::new(
        Code::DataLoss,
        "PAYLOAD_CHECKSUM_MISMATCH",
        format!("the SHA-256 of upload {id} is not what is stored: check the file, then finish again or start a new upload"),
    )
}

fn stopping() -> Fault {
    Fault::unavailable("HUB_STOPPING", "this replica stops: resume on another one")
}
