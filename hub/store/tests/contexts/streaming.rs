//! Uploads and downloads, over two replicas.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use acb_hub_core::{
    contexts::{
        audience::{Access, Scope},
        chunk::{CHUNK_BYTES, Chunk, Stored},
        context::{Payload, UploadId},
        parts::{ContextConfig, ContextStores},
        ports::{ChunkStore, Put},
        subscription::StartPosition,
        upload::{Chunks, StartUpload, UploadSession},
    },
    fault::Fault,
};
use acb_testbed::{Postgres, Version};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, time::sleep};
use uuid::Uuid;

use crate::world::{DEADLINE, Replica, World, access, brief, describe, reason};

struct File(Bytes);

impl File {
    /// Different in every chunk.
    fn of(size: usize) -> Self {
        Self(
            (0..size)
                .map(|at| u8::try_from((at * 31 + at / 4096 * 7 + at / 1_048_576) % 251).unwrap())
                .collect::<Vec<_>>()
                .into(),
        )
    }

    fn chunk(&self, index: u32) -> Chunk {
        let start = index as usize * CHUNK_BYTES as usize;
        let data = self.0.slice(start..(start + CHUNK_BYTES as usize).min(self.0.len()));
        Chunk { index, sha256: Sha256::digest(&data).into(), data }
    }

    fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    fn start(&self, id: UploadId, access: Access) -> StartUpload {
        StartUpload { id, size: self.0.len() as u64, description: describe(access) }
    }
}

fn id() -> UploadId {
    UploadId(Uuid::new_v4())
}

async fn put(session: &mut UploadSession, chunk: Chunk) -> &'static str {
    while !session.has_room() {
        session.stored().await.unwrap().unwrap();
    }
    reason(session.put(chunk).await)
}

async fn settle(session: &mut UploadSession) {
    while let Some(stored) = session.stored().await {
        stored.unwrap();
    }
}

async fn download(
    replica: &Replica,
    agent: acb_hub_core::directory::agent::AgentId,
    id: acb_hub_core::contexts::context::ContextId,
    from: u32,
) -> Vec<u8> {
    let (_, mut chunks) = replica.uploads.receive(&replica.agent(agent), id, from).await.unwrap();
    let (mut bytes, mut index) = (Vec::new(), from);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        assert_eq!((chunk.index, chunk.sha256), (index, Sha256::digest(&chunk.data).into()));
        index += 1;
        bytes.extend_from_slice(&chunk.data);
    }
    bytes
}

/// Writes and reads when it is let, and no sooner.
struct Slow {
    chunks: Arc<dyn ChunkStore>,
    may_write: Semaphore,
    may_read: Semaphore,
    asked: AtomicUsize,
    reads: AtomicUsize,
}

impl Slow {
    fn new(chunks: Arc<dyn ChunkStore>, writes: usize, reads: usize) -> Self {
        let (may_write, may_read) = (Semaphore::new(writes), Semaphore::new(reads));
        Self { chunks, may_write, may_read, asked: AtomicUsize::new(0), reads: AtomicUsize::new(0) }
    }
}

#[async_trait]
impl ChunkStore for Slow {
    async fn put(&self, upload: UploadId, chunk: &Chunk) -> Result<Put, Fault> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let _permit = self.may_write.acquire().await.unwrap();
        self.chunks.put(upload, chunk).await
    }
    async fn get(&self, upload: UploadId, index: u32) -> Result<Option<Chunk>, Fault> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let _permit = self.may_read.acquire().await.unwrap();
        self.chunks.get(upload, index).await
    }
    async fn stored(&self, upload: UploadId) -> Result<Stored, Fault> {
        self.chunks.stored(upload).await
    }
}

/// Bytes, and a handle that lives as long as they do.
struct Counted(Bytes, #[expect(dead_code, reason = "it counts")] Arc<()>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

async fn until(what: &str, is: &dyn Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < DEADLINE, "not in time: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_the_store_is_forgotten_with_its_stream_and_what_is_being_written_is_not() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let mut slow = None;
    let config = ContextConfig { chunk_operations: 1, ..ContextConfig::default() };
    let replica = world.replica_on(config, false, |stores| {
        let chunks = stores.chunks.clone();
        let chunks = slow.insert(Arc::new(Slow::new(chunks, 0, 1))).clone();
        ContextStores { chunks, ..stores }
    });
    let (replica, slow) = (replica.await, slow.unwrap());
    let agent = replica.agent(alice);

    let (file, first, second) = (File::of(3 * CHUNK_BYTES as usize), id(), id());
    let mut writing = replica.uploads.start(&agent, file.start(first, Access::public())).await.unwrap();
    assert_eq!(put(&mut writing, file.chunk(0)).await, "fine");
    until("a write", &|| slow.asked.load(Ordering::SeqCst) == 1).await;

    let held = Arc::new(());
    for _ in 0..50 {
        let mut session = replica.uploads.start(&agent, file.start(second, Access::public())).await.unwrap();
        let mut chunk = file.chunk(0);
        chunk.data = Bytes::from_owner(Counted(chunk.data, held.clone()));
        assert_eq!(put(&mut session, chunk).await, "fine");
    }
    drop(writing);
    until("nothing waits", &|| Arc::strong_count(&held) == 1).await;
    assert_eq!(slow.asked.load(Ordering::SeqCst), 1);

    slow.may_write.add_permits(1);
    let mut session = replica.uploads.resume(&agent, second).await.unwrap();
    assert_eq!(session.progress().stored.next(), 0);
    for index in 0..3 {
        assert_eq!(put(&mut session, file.chunk(index)).await, "fine");
    }
    session.finish(file.sha256()).await.unwrap();
    assert_eq!(replica.uploads.progress(&agent, first).await.unwrap().stored.next(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_ends_with_the_right_to_it() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let (one, two) = (world.replica().await, world.replica().await);
    let file = File::of(6 * CHUNK_BYTES as usize);
    let to = |name: &str| access(Scope::Shared, &[], &[name]);
    let mut session = one.uploads.start(&one.agent(alice), file.start(id(), to("bob"))).await.unwrap();
    for index in 0..6 {
        assert_eq!(put(&mut session, file.chunk(index)).await, "fine");
    }
    settle(&mut session).await;
    let context = session.finish(file.sha256()).await.unwrap();

    let (_, mut bobs) = one.uploads.receive(&one.agent(bob), context.id, 0).await.unwrap();
    let (_, mut alices) = one.uploads.receive(&one.agent(alice), context.id, 0).await.unwrap();
    assert_eq!(bobs.next().await.unwrap().unwrap().index, 0);
    assert_eq!(alices.next().await.unwrap().unwrap().index, 0);
    // At the other replica: this one has to look.
    let withdrawn = two.contexts.set_access(&two.agent(alice), context.id, None, to("carol")).await.unwrap();
    assert_eq!((withdrawn.version, withdrawn.payload), (2, context.payload));
    sleep(Duration::from_millis(1001)).await;
    assert_eq!(reason(bobs.next().await.unwrap()), "CONTEXT_NOT_FOUND");
    for index in 1..6 {
        assert_eq!(alices.next().await.unwrap().unwrap().index, index, "its creator reads on");
    }
    assert_eq!(download(&two, alice, context.id, 0).await, file.0);
    assert_eq!(reason(two.uploads.receive(&two.agent(bob), context.id, 0).await), "CONTEXT_NOT_FOUND");
}

/// The reads that cancelled downloads had asked for come before nobody.
#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_were_cancelled_leave_the_queue_for_chunks() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let mut slow = None;
    let config = ContextConfig { chunk_operations: 1, ..ContextConfig::default() };
    let replica = world.replica_on(config, false, |stores| {
        let chunks = slow.insert(Arc::new(Slow::new(stores.chunks.clone(), 100, 0))).clone();
        ContextStores { chunks, ..stores }
    });
    let (replica, slow) = (replica.await, slow.unwrap());
    let agent = replica.agent(alice);
    let file = File::of(3 * CHUNK_BYTES as usize);
    let mut session = replica.uploads.start(&agent, file.start(id(), Access::public())).await.unwrap();
    for index in 0..3 {
        assert_eq!(put(&mut session, file.chunk(index)).await, "fine");
    }
    let context = session.finish(file.sha256()).await.unwrap();

    let open = async || replica.uploads.receive(&agent, context.id, 0).await.unwrap().1;
    let read = |mut chunks: Chunks| tokio::spawn(async move { chunks.next().await.unwrap() });
    let reading = read(open().await);
    until("a read", &|| slow.reads.load(Ordering::SeqCst) == 1).await;
    for _ in 0..100 {
        let cancelled = read(open().await);
        tokio::task::yield_now().await;
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
    }
    let honest = read(open().await);
    slow.may_read.add_permits(1);
    assert_eq!(reading.await.unwrap().unwrap().index, 0);
    assert_eq!(honest.await.unwrap().unwrap().data, file.chunk(0).data);
    // Two downloads with two chunks each, and whatever a cancelled one had begun to read: nothing of what only waited.
    let reads = slow.reads.load(Ordering::SeqCst);
    assert!(reads <= 6, "{reads} chunks were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_at_another_replica() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let (one, two) = (world.replica().await, world.replica().await);
    let mut events = two.contexts.subscribe(&two.agent(bob), "notes", "", &StartPosition::Now).await.unwrap();
    let (file, upload) = (File::of(7 * 1024 * 1024 + 12_345), id());
    let mut session = one.uploads.start(&one.agent(alice), file.start(upload, Access::public())).await.unwrap();
    assert_eq!((session.progress().stored.next(), session.progress().layout.count()), (0, 8));
    for index in 0..5 {
        assert_eq!(put(&mut session, file.chunk(index)).await, "fine");
    }
    // Its replica dies with chunks on their way: those that were acknowledged are durable.
    let acknowledged = session.progress().stored.next();
    drop((session, one));
    let agent = two.agent(alice);
    let mut session = two.uploads.resume(&agent, upload).await.unwrap();
    let next = session.progress().stored.next();
    assert!((acknowledged..=5).contains(&next), "{acknowledged} {next}");
    for index in next..8 {
        assert_eq!(put(&mut session, file.chunk(index)).await, "fine");
    }
    let context = session.finish(file.sha256()).await.unwrap();
    assert_eq!((context.size, context.sha256, &context.payload), (file.0.len() as u64, file.sha256(), &Payload::Chunks(upload)));
    // Again, as where the answer was lost.
    let session = two.uploads.resume(&agent, upload).await.unwrap();
    assert_eq!((session.progress().context, session.progress().stored.next()), (Some(context.id), 8));
    assert_eq!(session.finish(file.sha256()).await.unwrap(), context);
    assert_eq!(brief(&mut events).await, "subscribed");
    assert_eq!(brief(&mut events).await, "Created 1 chunks");

    assert_eq!(download(&two, bob, context.id, 0).await, file.0);
    assert_eq!(download(&two, bob, context.id, 6).await, file.0.slice(6 * CHUNK_BYTES as usize..));
    assert_eq!(download(&two, bob, context.id, 8).await, b"");
    assert_eq!(reason(two.uploads.receive(&two.agent(bob), context.id, 9).await), "CHUNK_INDEX_OUT_OF_RANGE");
    two.contexts.delete(&agent, context.id).await.unwrap();
    assert_eq!(reason(two.uploads.resume(&agent, upload).await), "UPLOAD_NOT_FOUND", "its chunks went with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_the_upload_stays() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let one = world.replica().await;
    let agent = one.agent(alice);
    let (file, upload) = (File::of(2 * 1024 * 1024 + 5), id());
    let mut session = one.uploads.start(&agent, file.start(upload, Access::public())).await.unwrap();
    assert_eq!(put(&mut session, Chunk { sha256: [1; 32], ..file.chunk(0) }).await, "CHUNK_CHECKSUM_MISMATCH");
    assert_eq!(put(&mut session, file.chunk(1)).await, "CHUNK_OUT_OF_ORDER");
    assert_eq!(put(&mut session, Chunk { index: 3, ..file.chunk(0) }).await, "CHUNK_INDEX_OUT_OF_RANGE");
    assert_eq!(put(&mut session, Chunk { data: Bytes::from_static(b"x"), ..file.chunk(0) }).await, "CHUNK_SIZE_INVALID");
    assert_eq!(put(&mut session, file.chunk(0)).await, "fine");
    settle(&mut session).await;
    assert_eq!(put(&mut session, file.chunk(0)).await, "fine", "the same again changes nothing");
    settle(&mut session).await;
    assert_eq!(reason(session.finish(file.sha256()).await), "UPLOAD_INCOMPLETE");

    assert_eq!(reason(one.uploads.resume(&one.agent(bob), upload).await), "UPLOAD_NOT_FOUND");
    assert_eq!(reason(one.uploads.progress(&one.agent(bob), upload).await), "UPLOAD_NOT_FOUND");
    assert_eq!(reason(one.uploads.start(&one.agent(bob), file.start(upload, Access::public())).await), "UPLOAD_NOT_FOUND");
    let other_size = StartUpload { size: 7, ..file.start(upload, Access::public()) };
    assert_eq!(reason(one.uploads.start(&agent, other_size).await), "UPLOAD_ID_REUSED");
    let mut other_life = file.start(upload, Access::public());
    other_life.description.ttl = Some(Duration::from_secs(3600));
    assert_eq!(reason(one.uploads.start(&agent, other_life).await), "UPLOAD_ID_REUSED");
    let private = Access { scope: Scope::Private, ..Access::public() };
    assert_eq!(reason(one.uploads.start(&agent, file.start(upload, private)).await), "UPLOAD_ID_REUSED");
    let too_large = StartUpload { size: 100 * 1024 * 1024 + 1, ..file.start(id(), Access::public()) };
    assert_eq!(reason(one.uploads.start(&agent, too_large).await), "UPLOAD_SIZE_INVALID");

    // Two connections write the same upload, one of them something else.
    let mut first = one.uploads.start(&agent, file.start(upload, Access::public())).await.unwrap();
    let mut second = one.uploads.resume(&agent, upload).await.unwrap();
    assert_eq!(put(&mut first, file.chunk(1)).await, "fine");
    settle(&mut first).await;
    let forged = Chunk { index: 1, ..File::of(1024 * 1024).chunk(0) };
    assert_eq!(put(&mut second, forged).await, "fine");
    assert_eq!(reason(second.stored().await.unwrap()), "CHUNK_CONFLICT");
    assert_eq!(put(&mut first, file.chunk(2)).await, "fine");
    assert_eq!(reason(first.finish([9; 32]).await), "PAYLOAD_CHECKSUM_MISMATCH");
    // It is read again, since no session has seen all of it.
    let context = one.uploads.resume(&agent, upload).await.unwrap().finish(file.sha256()).await.unwrap();
    assert_eq!(download(&one, bob, context.id, 0).await, file.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_for_those_who_see_the_context() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let one = world.replica().await;
    let (file, upload) = (File::of(3), id());
    let start = file.start(upload, access(Scope::Private, &[], &[]));
    let mut session = one.uploads.start(&one.agent(alice), start).await.unwrap();
    assert_eq!(put(&mut session, file.chunk(0)).await, "fine");
    let context = session.finish(file.sha256()).await.unwrap();
    assert_eq!(reason(one.uploads.receive(&one.agent(bob), context.id, 0).await), "CONTEXT_NOT_FOUND");
    assert_eq!(download(&one, alice, context.id, 0).await, file.0);
    // A new version inline takes the place of the chunks.
    let update = acb_hub_core::contexts::catalog::ContextUpdate {
        id: context.id,
        version: 1,
        payload: "short".into(),
        metadata: std::collections::BTreeMap::new(),
        content_type: String::new(),
        ttl: None,
    };
    one.contexts.update(&one.agent(alice), update).await.unwrap();
    assert_eq!(download(&one, alice, context.id, 0).await, b"short");
    assert_eq!(reason(one.uploads.progress(&one.agent(alice), upload).await), "UPLOAD_NOT_FOUND");
    let inline = one.share(alice, "inline", Access::public()).await;
    assert_eq!(download(&one, bob, inline.id, 0).await, b"inline");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_upload_is_removed() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let config = ContextConfig {
        expiry_poll: Duration::from_millis(50),
        upload_lifetime: Duration::from_millis(1),
        ..ContextConfig::default()
    };
    let idle = world.replica_with(ContextConfig::default(), false).await;
    let (file, upload) = (File::of(5), id());
    let agent = idle.agent(alice);
    drop(idle.uploads.start(&agent, file.start(upload, Access::public())).await.unwrap());
    let _janitor = world.replica_with(config, true).await;
    let gone = async { while idle.uploads.progress(&agent, upload).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, gone).await.expect("the upload is removed");
}

/// The store takes nothing: whoever streams meanwhile waits, and the hub's memory does not grow with their number.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_wait_for_the_store_hold_few_chunks() {
    const STREAMS: usize = 20;
    // One of its own, since its lock would hold up others.
    let server = Postgres::start(Version::Installed).await;
    let tenant = server.tenant("acme").await;
    tenant.context_type("notes", 2).await;
    let world = World::of(tenant);
    let alice = world.agent("alice", &[]).await;
    let replica = world.replica().await;
    let file = File::of(6 * CHUNK_BYTES as usize);
    let mut locked = server.superuser().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE acb.chunk IN EXCLUSIVE MODE").execute(&mut locked).await.unwrap();
    let mut sessions = Vec::new();
    let mut held = 0;
    for _ in 0..STREAMS {
        let start = file.start(id(), access(Scope::Public, &[], &[]));
        let mut session = replica.uploads.start(&replica.agent(alice), start).await.unwrap();
        let mut taken = 0;
        while session.has_room() {
            session.put(file.chunk(taken)).await.unwrap();
            taken += 1;
        }
        assert!(taken >= 1, "a stream that holds nothing may always go on");
        held += taken as usize;
        sessions.push(session);
    }
    assert!(held <= 32 + STREAMS, "{held} chunks are in memory");
    sqlx::raw_sql("ROLLBACK").execute(&mut locked).await.unwrap();
    for session in &mut sessions {
        settle(session).await;
    }
    for index in 0..6 {
        if index >= sessions[0].progress().stored.next() {
            assert_eq!(put(&mut sessions[0], file.chunk(index)).await, "fine");
        }
    }
    let first = sessions.remove(0);
    first.finish(file.sha256()).await.unwrap();
}
