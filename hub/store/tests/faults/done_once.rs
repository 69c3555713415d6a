//! What a hub carries out once more, where it heard nothing: it is done once. Contexts and their events, the outbox, dead letters, credentials,
//! registrations, keys, sums of usage and the audit trail, each with a connection that breaks at every place.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use acb_hub_core::{
    audit::ports::{AuditStore as _, Growth, Leaf, SignedCheckpoint, TreePosition},
    contexts::{
        audience::{Access, Scope},
        chunk::{Chunk, Layout},
        context::{Context, ContextId, Description, Payload, UploadId},
        ports::{ChunkStore as _, ContextStore as _, Created, Finished, Put, Upload, UploadStore as _},
    },
    directory::{agent::AgentId, encryption_keys::EncryptionKeyStore as _, presence::Registration},
    door::{
        api_key::NewKey,
        ports::{CredentialStore as _, RegistrationStore as _},
        refresh_token::{NewFamily, REFRESH_TOKEN_LIFE, Rotation, TokenHash},
    },
    fault::Fault,
    log::{outbox::ports::Outbox as _, position::LogPosition},
    messages::{
        letter::{DeadLetter, LetterId, LetterReason, LetterState},
        letter_store::LetterStore as _,
        message::MessageType,
        ports::{MailboxAddress, Moved},
        sent::Sent,
        usage_store::{UsageAdvance, UsageStore as _, UsageSum},
    },
};
use acb_hub_store::{contexts::context::PgContexts, log::outbox::PgOutbox};
use acb_testbed::TestAgent;
use bytes::Bytes;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

use crate::breaking::Breaking;

const EPOCH: u64 = 7;
const NOW: OffsetDateTime = datetime!(2026-11-27 12:00 UTC);
/// Events for the log that have this id as their content.
const EVENTS: &str = "SELECT count(*) FROM acb.outbox WHERE content = uuid_send($1)";

/// Content that names what it is about.
fn content(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// Twice the id.
fn bytes32(id: Uuid) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(id.as_bytes());
    bytes[16..].copy_from_slice(id.as_bytes());
    bytes
}

fn context(id: Uuid, payload: Payload) -> Context {
    Context {
        id: ContextId(id),
        kind: "notes".to_owned(),
        creator: AgentId(Uuid::from_u128(1)),
        creator_name: "planner".to_owned(),
        account: None,
        access: everyone(),
        metadata: BTreeMap::new(),
        version: 1,
        content_type: "text/plain".to_owned(),
        schema: None,
        payload,
        size: 4,
        sha256: [0; 32],
        created_at: NOW,
        updated_at: NOW,
        expires_at: None,
    }
}

fn everyone() -> Access {
    Access { scope: Scope::Public, groups: Vec::new(), agents: Vec::new() }
}

fn inline() -> Payload {
    Payload::Inline(Bytes::from_static(b"text"))
}

/// A context without an event of its own.
async fn made(contexts: &PgContexts) -> Uuid {
    let id = Uuid::now_v7();
    Breaking::ask_again(async || contexts.create(&context(id, inline()), None, Bytes::new()).await).await;
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_and_its_event_are_made_once() {
    let world = Breaking::start(EPOCH).await;
    let contexts = PgContexts::new(&world.store);
    let create = async |key: &Uuid| {
        // Each call of an agent makes a context of its own, until the key says that it was made before.
        let created = contexts.create(&context(Uuid::now_v7(), inline()), Some(&key.to_string()), content(*key)).await?;
        assert!(matches!(created, Created::New | Created::Before(_)));
        Ok(())
    };
    let times = async |key: &Uuid| {
        let rows = world.count("SELECT count(*) FROM acb.context WHERE idempotency_key = $1::text", *key).await;
        vec![rows, world.count(EVENTS, *key).await]
    };
    world.at_each_place("create", async || Uuid::new_v4(), create, times).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_is_updated_shared_and_deleted_once() {
    let world = Breaking::start(EPOCH).await;
    let contexts = PgContexts::new(&world.store);
    let prepare = async || made(&contexts).await;
    // False where it was done before: there is no such version any more.
    let update = async |id: &Uuid| {
        let context = Context { version: 2, metadata: [("k".to_owned(), "v".to_owned())].into(), ..context(*id, inline()) };
        contexts.update(&context, None, content(*id)).await.map(drop)
    };
    let updated = async |id: &Uuid| {
        let rows = world.count("SELECT count(*) FROM acb.context WHERE context_id = $1 AND version = 2 AND metadata ? 'k'", *id);
        vec![rows.await, world.count(EVENTS, *id).await]
    };
    world.at_each_place("update", &prepare, update, updated).await;

    let share = async |id: &Uuid| {
        let access = Access { scope: Scope::Group, groups: vec!["crew".to_owned()], agents: Vec::new() };
        contexts.set_access(&Context { version: 2, access, ..context(*id, inline()) }, content(*id)).await.map(drop)
    };
    let shared = async |id: &Uuid| {
        let rows =
            world.count("SELECT count(*) FROM acb.context WHERE context_id = $1 AND version = 2 AND 'crew' = ANY (groups)", *id);
        vec![rows.await, world.count(EVENTS, *id).await]
    };
    world.at_each_place("set_access", &prepare, share, shared).await;

    let delete = async |id: &Uuid| contexts.delete(ContextId(*id), 1, content(*id)).await.map(drop);
    let deleted = async |id: &Uuid| {
        let rows = world.count("SELECT count(*) FROM acb.context WHERE context_id = $1", *id).await;
        vec![1 - rows, world.count(EVENTS, *id).await]
    };
    world.at_each_place("delete", &prepare, delete, deleted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_is_stored_once_and_an_upload_makes_one_context() {
    let world = Breaking::start(EPOCH).await;
    let contexts = PgContexts::new(&world.store);
    let begin = async |id: &Uuid| {
        let description = Description {
            kind: "notes".to_owned(),
            metadata: BTreeMap::new(),
            content_type: "text/plain".to_owned(),
            ttl: None,
            access: everyone(),
        };
        let (agent, layout) = (AgentId(Uuid::from_u128(1)), Layout { size: 4, chunk_size: 4 });
        let upload = Upload { id: UploadId(*id), agent, account: None, description, layout, context: None };
        contexts.begin(&upload).await.map(|found| assert_eq!(found, upload))
    };
    let begun = async |id: &Uuid| vec![world.count("SELECT count(*) FROM acb.upload WHERE upload_id = $1", *id).await];
    world.at_each_place("begin", async || Uuid::new_v4(), &begin, begun).await;

    let upload = async || {
        let id = Uuid::new_v4();
        Breaking::ask_again(async || begin(&id).await).await;
        id
    };
    let put = async |id: &Uuid| {
        let chunk = Chunk { index: 0, sha256: [7; 32], data: Bytes::from_static(b"text") };
        contexts.put(UploadId(*id), &chunk).await.map(|put| assert_eq!(put, Put::Stored))
    };
    let stored = async |id: &Uuid| vec![world.count("SELECT count(*) FROM acb.chunk WHERE upload_id = $1", *id).await];
    world.at_each_place("put", &upload, put, stored).await;

    let finish = async |id: &Uuid| {
        let context = context(Uuid::now_v7(), Payload::Chunks(UploadId(*id)));
        let finished = contexts.finish(UploadId(*id), &context, content(*id)).await?;
        assert!(matches!(finished, Finished::New | Finished::Before(_)), "{finished:?}");
        Ok(())
    };
    let finished = async |id: &Uuid| {
        let rows = world
            .count("SELECT count(*) FROM acb.context JOIN acb.upload USING (upload_id, context_id) WHERE upload_id = $1", *id);
        vec![rows.await, world.count(EVENTS, *id).await]
    };
    world.at_each_place("finish", &upload, finish, finished).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_has_leaves_the_outbox() {
    let world = Breaking::start(EPOCH).await;
    let (contexts, outbox) = (PgContexts::new(&world.store), PgOutbox::new(&world.store));
    let waits = async |id: &Uuid| world.count("SELECT count(*) FROM acb.outbox WHERE instance = $1", *id).await;
    let relay = async |id: &Uuid| {
        while let Some(claim) = outbox.claim(&["context"], None, &[]).await? {
            let sequences: Vec<i64> = claim.entries().iter().map(|entry| entry.sequence).collect();
            claim.done(&sequences).await?;
        }
        // The server may hold the claim of a connection that is gone for a moment yet.
        let held = || Fault::unavailable("HELD", "it is somebody else's");
        if waits(id).await == 0 { Ok(()) } else { Err(held()) }
    };
    world.at_each_place("done", async || made(&contexts).await, relay, async |id: &Uuid| vec![1 - waits(id).await]).await;
}

fn letter(id: Uuid) -> DeadLetter {
    DeadLetter {
        id: LetterId(id),
        message_id: id,
        reason: LetterReason::Expired,
        attempts: 0,
        sender: AgentId(Uuid::from_u128(1)),
        sender_name: "planner".to_owned(),
        recipient: MailboxAddress::All,
        recipient_name: String::new(),
        topic: String::new(),
        kind: MessageType::Event,
        size: 1,
        sent_at: NOW,
        expires_at: NOW,
        dead_at: NOW,
        place: LogPosition { epoch: EPOCH, partition: 0, offset: 1 },
        state: LetterState::Open,
        settled_at: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_indexed_and_settled_once() {
    let world = Breaking::start(EPOCH).await;
    let index = async |id: &Uuid| world.store.index_letters(EPOCH, 0, 2, &[letter(*id)]).await;
    let indexed = async |id: &Uuid| vec![world.count("SELECT count(*) FROM acb.dead_letter WHERE letter_id = $1", *id).await];
    world.at_each_place("index_letters", async || Uuid::new_v4(), &index, indexed).await;

    let open = async || {
        let id = Uuid::new_v4();
        Breaking::ask_again(async || index(&id).await).await;
        id
    };
    // What was said first stays, and is the answer.
    let replay = async |id: &Uuid| {
        let kept = world.store.settle_letter(LetterId(*id), LetterState::Replayed(Uuid::new_v4())).await?;
        let kept_here = world.straight.letter(LetterId(*id)).await.unwrap().unwrap().state;
        assert_eq!(kept, Some(kept_here));
        Ok(())
    };
    let replayed = async |id: &Uuid| {
        let sql =
            "SELECT count(*) FROM acb.dead_letter WHERE letter_id = $1 AND replayed_as IS NOT NULL AND settled_at IS NOT NULL";
        vec![world.count(sql, *id).await]
    };
    world.at_each_place("replay", &open, replay, replayed).await;

    let discard = async |id: &Uuid| {
        let kept = world.store.settle_letter(LetterId(*id), LetterState::Dropped).await?;
        assert_eq!(kept, Some(LetterState::Dropped));
        Ok(())
    };
    let discarded = async |id: &Uuid| {
        let sql = "SELECT count(*) FROM acb.dead_letter WHERE letter_id = $1 AND dropped AND settled_at IS NOT NULL";
        vec![world.count(sql, *id).await]
    };
    world.at_each_place("drop", &open, discard, discarded).await;
}

fn prefix(agent: &TestAgent) -> String {
    agent.api_key.split('_').nth(1).unwrap().to_owned()
}

/// A family of refresh tokens, and its first two.
struct Family {
    id: Uuid,
    hash: TokenHash,
    successor: TokenHash,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_has_one_successor_and_is_revoked() {
    let world = Breaking::start(EPOCH).await;
    let agent = world.tenant.agent("planner").await;
    let family = async || {
        let family = Family { id: Uuid::new_v4(), hash: bytes32(Uuid::new_v4()), successor: bytes32(Uuid::new_v4()) };
        let new = NewFamily { id: family.id, agent: AgentId(agent.id), key: prefix(&agent), life: REFRESH_TOKEN_LIFE };
        Breaking::ask_again(async || match world.store.insert_refresh(family.hash, &new).await {
            // It is there, and was not heard of.
            Err(_) if world.count("SELECT count(*) FROM acb.refresh_token WHERE family = $1", new.id).await == 1 => Ok(()),
            other => other,
        })
        .await;
        family
    };
    let rotate = async |family: &Family| {
        let rotation = world.store.rotate_refresh(family.hash, family.successor).await?;
        assert!(matches!(rotation, Rotation::Successor { .. }), "{rotation:?}");
        Ok(())
    };
    let rotated = async |family: &Family| {
        let used =
            world.count("SELECT count(*) FROM acb.refresh_token WHERE family = $1 AND used_at IS NOT NULL", family.id).await;
        vec![used, world.count("SELECT count(*) - 1 FROM acb.refresh_token WHERE family = $1 AND NOT revoked", family.id).await]
    };
    world.at_each_place("rotate_refresh", &family, rotate, rotated).await;

    let revoke = async |family: &Family| world.store.revoke_refresh(family.hash).await.map(drop);
    let revoked = async |family: &Family| {
        vec![world.count("SELECT count(*) FROM acb.refresh_token WHERE family = $1 AND revoked", family.id).await]
    };
    world.at_each_place("revoke_refresh", &family, revoke, revoked).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_is_registered_and_unregistered_once() {
    const AGENTS: &str = "SELECT count(*) FROM acb.registered_agent WHERE name = $1::text";
    const KEYS: &str =
        "SELECT count(*) FROM acb.registered_key JOIN acb.registered_agent USING (tenant_id, agent_id) WHERE name = $1::text";
    let world = Breaking::start(EPOCH).await;
    let registrar = world.tenant.agent("planner").await;
    let by = AgentId(registrar.id);
    let register = async |name: &Uuid| {
        let registration = Registration { name: name.to_string(), kind: "test".to_owned(), ..Registration::default() };
        let fresh = Uuid::new_v4();
        let key = NewKey { prefix: fresh.simple().to_string(), hmac: bytes32(fresh), by_key: prefix(&registrar) };
        world.store.register(by, &registration, &key, None).await?;
        // The key that its registrar is shown is the one that works.
        let works = "SELECT count(*) FROM acb.registered_key WHERE hmac = uuid_send($1) || uuid_send($1)";
        assert_eq!(world.count(works, fresh).await, 1);
        Ok(())
    };
    let registered = async |name: &Uuid| vec![world.count(AGENTS, *name).await, world.count(KEYS, *name).await];
    world.at_each_place("register", async || Uuid::new_v4(), &register, registered).await;

    let there = async || {
        let name = Uuid::new_v4();
        Breaking::ask_again(async || register(&name).await).await;
        name
    };
    let unregister = async |name: &Uuid| world.store.unregister(Some(by), &name.to_string()).await.map(drop);
    let unregistered = async |name: &Uuid| vec![1 - world.count(AGENTS, *name).await, 1 - world.count(KEYS, *name).await];
    world.at_each_place("unregister", there, unregister, unregistered).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_public_key_is_published_and_withdrawn_once() {
    const KEYS: &str = "SELECT count(*) FROM acb.encryption_key WHERE key_id = uuid_send($1) || uuid_send($1)";
    let world = Breaking::start(EPOCH).await;
    let agent = AgentId(world.tenant.agent("planner").await.id);
    let fresh = async || {
        for key in world.straight.keys(&[agent]).await.unwrap().remove(&agent).unwrap_or_default() {
            world.straight.withdraw(agent, key.id).await.unwrap();
        }
        Uuid::new_v4()
    };
    // Of one that may be there the second time is no second one.
    let publish = async |id: &Uuid| {
        let published = world.store.publish(agent, bytes32(*id), "suite", &[1; 32], 1).await?;
        assert!(published);
        Ok(())
    };
    let published = async |id: &Uuid| vec![world.count(KEYS, *id).await];
    world.at_each_place("publish", &fresh, &publish, published).await;

    let there = async || {
        let id = fresh().await;
        Breaking::ask_again(async || publish(&id).await).await;
        id
    };
    let withdraw = async |id: &Uuid| world.store.withdraw(agent, bytes32(*id)).await.map(drop);
    world.at_each_place("withdraw", there, withdraw, async |id: &Uuid| vec![1 - world.count(KEYS, *id).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_summed_once() {
    let world = Breaking::start(EPOCH).await;
    world.straight.begin(EPOCH, &[0], NOW).await.unwrap();
    let next = AtomicU64::new(0);
    let prepare = async || (Uuid::new_v4(), next.fetch_add(1, Ordering::Relaxed));
    let add = async |(agent, from): &(Uuid, u64)| {
        let sent = Sent { messages: 1, bytes: 1 };
        let hours = vec![UsageSum { starts_at: NOW, agent: AgentId(*agent), name: "planner".to_owned(), sent }];
        let advance = UsageAdvance { partition: 0, from: *from, to: from + 1, hours, latest: Some((NOW, *from)), missing: 0 };
        let (moved, _) = world.store.add(EPOCH, &[advance]).await?;
        assert!(moved == [Moved::Won] || moved == [Moved::Lost(from + 1)], "{moved:?}");
        Ok(())
    };
    let times = async |(agent, _): &(Uuid, u64)| {
        let hour = "SELECT coalesce(sum(messages), 0)::bigint FROM acb.usage_sum WHERE agent_id = $1 AND period = 'hour'";
        let month = "SELECT coalesce(sum(bytes), 0)::bigint FROM acb.usage_sum WHERE agent_id = $1 AND period = 'month'";
        vec![world.count(hour, *agent).await, world.count(month, *agent).await]
    };
    world.at_each_place("add", prepare, add, times).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_trail_grows_once_and_keeps_one_checkpoint() {
    let world = Breaking::start(EPOCH).await;
    let growth = async || {
        let mut tree = world.straight.head().await.unwrap().tree;
        let (id, first) = (Uuid::new_v4(), tree.size());
        let record = content(id);
        let nodes = tree.push(acb_tlog::tree::leaf_hash(&record));
        let leaf = Leaf { record, at: NOW, agent: "planner".to_owned(), operation: id.to_string() };
        let place = TreePosition { epoch: EPOCH, next: tree.size() };
        (id, Growth { first, leaves: vec![leaf], nodes, place, acts: Vec::new() })
    };
    // False where it was done before: the tree is larger.
    let grow = async |(_, growth): &(Uuid, Growth)| world.store.grow(growth).await.map(drop);
    let grown = async |(id, growth): &(Uuid, Growth)| {
        let rows = world.count("SELECT count(*) FROM acb.audit_record WHERE operation = $1::text", *id).await;
        let size = world.straight.size().await.unwrap();
        // A tree that cannot be read any more is damaged.
        world.straight.head().await.unwrap();
        vec![rows, i64::try_from(size - growth.first).unwrap()]
    };
    world.at_each_place("grow", &growth, &grow, grown).await;

    let larger = async || {
        let (id, growth) = growth().await;
        Breaking::ask_again(async || grow(&(id, growth.clone())).await).await;
        (id, growth.first + 1)
    };
    let keep = async |(id, size): &(Uuid, u64)| {
        let checkpoint = SignedCheckpoint { size: *size, verifier: id.to_string(), note: String::new(), at: NOW };
        world.store.keep_checkpoint(&checkpoint).await.map(drop)
    };
    let kept = async |(id, _): &(Uuid, u64)| {
        vec![world.count("SELECT count(*) FROM acb.audit_checkpoint WHERE verifier = $1::text", *id).await]
    };
    world.at_each_place("keep_checkpoint", larger, keep, kept).await;

    // Who builds the tree is not kept from it by an answer that was lost.
    let holder = Uuid::new_v4();
    for bytes in (0..1_500).step_by(50) {
        if world.ask(bytes, world.store.hold_sink(holder, Duration::from_secs(3600))).await.is_none() {
            assert!(Breaking::ask_again(async || world.store.hold_sink(holder, Duration::from_secs(3600)).await).await);
        }
    }
}
