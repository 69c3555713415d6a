//! Create, update, delete, expiry, idempotency and the outbox.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use acb_hub_core::{
    contexts::{
        audience::Access,
        catalog::{ContextUpdate, Listing, NewContext},
        chunk::Chunk,
        context::{Context, ContextId, Payload, UploadId},
        parts::{ContextConfig, ContextStores},
        ports::{AccessStore, ContextStore, Created, ExpiredContexts, Expiry, Kept, ListFilter, Listed},
        subscription::StartPosition,
        upload::StartUpload,
        visibility::Viewer,
    },
    directory::{agent::AgentId, schema::SchemaRef},
    fault::{Code, Fault},
    log::bus::TopicName,
};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::{
    outbox::claim,
    world::{DEADLINE, World, brief, describe, new, reason},
};

pub(crate) fn update(context: &acb_hub_core::contexts::context::Context, payload: &str) -> ContextUpdate {
    ContextUpdate {
        id: context.id,
        version: context.version,
        payload: payload.to_owned().into(),
        metadata: std::collections::BTreeMap::new(),
        content_type: "text/plain".into(),
        ttl: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_seen_in_order_on_the_other_replica() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let (one, two) = (world.replica().await, world.replica().await);
    let mut events = two.contexts.subscribe(&two.agent(bob), "notes", "", &StartPosition::Now).await.unwrap();
    assert_eq!(brief(&mut events).await, "subscribed");

    let mut context = one.share(alice, "first", Access::public()).await;
    let sha256: [u8; 32] = Sha256::digest("first").into();
    assert_eq!((context.version, context.size, context.sha256), (1, 5, sha256));
    let read = two.contexts.get(&two.agent(bob), context.id).await.unwrap().0;
    assert_eq!(read, context);
    for (version, payload) in [(2, "second"), (3, "third"), (4, "fourth")] {
        // By turns on both replicas, so that both relay.
        let replica = if version % 2 == 0 { &two } else { &one };
        context = replica.contexts.update(&replica.agent(alice), update(&context, payload)).await.unwrap();
        assert_eq!(context.version, version);
    }
    one.contexts.delete(&one.agent(alice), context.id).await.unwrap();
    for expected in ["Created 1 first", "Updated 2 second", "Updated 3 third", "Updated 4 fourth", "Deleted 5 -"] {
        assert_eq!(brief(&mut events).await, expected);
    }
    assert_eq!(reason(one.contexts.get(&one.agent(alice), context.id).await), "CONTEXT_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_current_version_is_updated_and_only_by_its_creator() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let one = world.replica().await;
    let first = one.share(alice, "first", Access::public()).await;
    let creator = one.agent(alice);
    let results =
        tokio::join!(one.contexts.update(&creator, update(&first, "a")), one.contexts.update(&creator, update(&first, "b")));
    let mut reasons = [reason(results.0), reason(results.1)];
    reasons.sort_unstable();
    assert_eq!(reasons, ["CONTEXT_VERSION_CONFLICT", "fine"]);
    let current = one.contexts.get(&one.agent(bob), first.id).await.unwrap().0;
    assert_eq!(reason(one.contexts.update(&one.agent(bob), update(&current, "c")).await), "CONTEXT_NOT_OWNED");
    assert_eq!(reason(one.contexts.delete(&one.agent(bob), first.id).await), "CONTEXT_NOT_OWNED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_create_finds_the_first_context() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let (one, two) = (world.replica().await, world.replica().await);
    let keyed = |payload| NewContext { idempotency_key: "k".into(), ..new(payload, Access::public()) };
    let first = one.contexts.create(&one.agent(alice), keyed("x")).await.unwrap();
    let again = two.contexts.create(&two.agent(alice), keyed("x")).await.unwrap();
    assert_eq!(again, Context { payload: Payload::Unread, ..first.clone() }, "who sends it again has its payload");
    assert_eq!(reason(two.contexts.create(&two.agent(alice), keyed("y")).await), "IDEMPOTENCY_KEY_REUSED");
    assert_ne!(two.contexts.create(&two.agent(bob), keyed("x")).await.unwrap().id, first.id, "a key is its creator's");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_gone_at_once_and_deleted_soon() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let config = ContextConfig { expiry_poll: Duration::from_millis(300), ..ContextConfig::default() };
    let (one, two) = (world.replica_with(config.clone(), true).await, world.replica_with(config, true).await);
    let mut events = two.contexts.subscribe(&two.agent(alice), "notes", "", &StartPosition::Now).await.unwrap();
    let mut short = new("short", Access::public());
    short.description.ttl = Some(Duration::from_millis(700));
    short.idempotency_key = "k".into();
    let context = one.contexts.create(&one.agent(alice), short.clone()).await.unwrap();
    for expected in ["subscribed", "Created 1 short", "Deleted 2 -"] {
        assert_eq!(brief(&mut events).await, expected);
    }
    assert_eq!(reason(two.contexts.get(&two.agent(alice), context.id).await), "CONTEXT_NOT_FOUND");
    assert_eq!(two.contexts.list(&two.agent(alice), Listing::default()).await.unwrap().contexts, []);
    // The key is free again, and there was one deletion although both replicas look.
    let again = one.contexts.create(&one.agent(alice), short).await.unwrap();
    assert_ne!(again.id, context.id);
    assert_eq!(brief(&mut events).await, "Created 1 short");
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_meet_the_schema_of_their_type() {
    let world = World::new().await;
    let schema = serde_json::json!({"id": "note", "version": "1", "schema": {"type": "object", "required": ["title"]}});
    world.tenant.context_type_with("notes", 2, Some(schema)).await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let agent = one.agent(alice);
    let create = async |payload: &str| one.contexts.create(&agent, new(payload, Access::public())).await;
    assert_eq!(reason(create("{}").await), "PAYLOAD_VIOLATES_SCHEMA");
    assert_eq!(reason(create("not json").await), "PAYLOAD_NOT_JSON");
    let context = create(r#"{"title": "a"}"#).await.unwrap();
    let note = |version: &str| Some(SchemaRef { id: "note".into(), version: version.into() });
    assert_eq!(one.contexts.get(&agent, context.id).await.unwrap().0.schema, note("1"));
    assert_eq!(reason(one.contexts.update(&agent, update(&context, "[]")).await), "PAYLOAD_VIOLATES_SCHEMA");
    let updated = one.contexts.update(&agent, update(&context, r#"{"title": "b"}"#)).await.unwrap();
    assert_eq!(updated.schema, note("1"));

    let stream = async |payload: &str| {
        let (data, id) = (Bytes::copy_from_slice(payload.as_bytes()), UploadId(uuid::Uuid::new_v4()));
        let sha256: [u8; 32] = Sha256::digest(&data).into();
        let start = StartUpload { id, size: data.len() as u64, description: describe(Access::public()) };
        let mut session = one.uploads.start(&agent, start).await?;
        session.put(Chunk { index: 0, sha256, data }).await?;
        session.finish(sha256).await
    };
    assert_eq!(reason(stream("{}").await), "PAYLOAD_VIOLATES_SCHEMA");
    let streamed = stream(r#"{"title": "c"}"#).await.unwrap();
    assert_eq!(one.contexts.get(&agent, streamed.id).await.unwrap().0.schema, note("1"));
    assert_eq!(reason(stream(&" ".repeat(1024 * 1024 + 1)).await), "PAYLOAD_NOT_CHECKABLE");
}

/// A store that deletes all contexts but one, and counts how often it was to delete that.
struct Stuck(Arc<dyn ContextStore>, Arc<OnceLock<ContextId>>, Arc<AtomicU32>);

#[async_trait]
impl AccessStore for Stuck {
    async fn access(&self, ids: &[ContextId]) -> Result<Vec<(ContextId, Access)>, Fault> {
        self.0.access(ids).await
    }
}

#[async_trait]
impl ContextStore for Stuck {
    async fn create(&self, context: &Context, idempotency_key: Option<&str>, event: Bytes) -> Result<Created, Fault> {
        self.0.create(context, idempotency_key, event).await
    }

    async fn get(&self, id: ContextId) -> Result<Option<Context>, Fault> {
        self.0.get(id).await
    }

    async fn payload(&self, id: ContextId, version: u64) -> Result<Option<Bytes>, Fault> {
        self.0.payload(id, version).await
    }

    async fn update(&self, context: &Context, expires_at: Option<OffsetDateTime>, event: Bytes) -> Result<bool, Fault> {
        self.0.update(context, expires_at, event).await
    }

    async fn set_access(&self, context: &Context, event: Bytes) -> Result<bool, Fault> {
        self.0.set_access(context, event).await
    }

    async fn delete(&self, id: ContextId, version: u64, event: Bytes) -> Result<bool, Fault> {
        if self.1.get() == Some(&id) {
            self.2.fetch_add(1, Ordering::Relaxed);
            return Err(Fault::new(Code::Internal, "STORE_FAILED", "this one can't be deleted"));
        }
        self.0.delete(id, version, event).await
    }

    async fn list(&self, viewer: &Viewer, filter: ListFilter<'_>, limit: u32) -> Result<Listed, Fault> {
        self.0.list(viewer, filter, limit).await
    }

    async fn expired(&self, after: Option<Expiry>, limit: u32) -> Result<ExpiredContexts, Fault> {
        self.0.expired(after, limit).await
    }

    async fn expired_with_key(&self, creator: AgentId, idempotency_key: &str) -> Result<Option<Context>, Fault> {
        self.0.expired_with_key(creator, idempotency_key).await
    }

    async fn with_key(&self, creator: AgentId, idempotency_key: &str) -> Result<Option<Context>, Fault> {
        self.0.with_key(creator, idempotency_key).await
    }

    async fn kept(&self, accounts: Option<&[AgentId]>) -> Result<Kept, Fault> {
        self.0.kept(accounts).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_can_not_be_deleted_holds_up_no_other() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let config = ContextConfig { expiry_poll: Duration::from_millis(100), ..ContextConfig::default() };
    let (stuck, tries) = (Arc::new(OnceLock::new()), Arc::new(AtomicU32::new(0)));
    let one = world
        .replica_on(config, true, |stores| {
            let contexts: Arc<dyn ContextStore> = Arc::new(Stuck(stores.contexts.clone(), stuck.clone(), tries.clone()));
            ContextStores { contexts, ..stores }
        })
        .await;
    let short = |payload: &str| {
        let mut short = new(payload, Access::public());
        short.description.ttl = Some(Duration::from_millis(1));
        short
    };
    // The first of them all, in every round.
    let mut first = short("first");
    first.description.ttl = Some(Duration::from_millis(300));
    let first = one.contexts.create(&one.agent(alice), first).await.unwrap();
    stuck.set(first.id).unwrap();
    let mut connection = world.tenant.connect().await;
    let expired =
        sqlx::query("UPDATE acb.context SET expires_at = now() - interval '1 day' WHERE context_id = $1").bind(first.id.0);
    expired.execute(&mut connection).await.unwrap();
    for number in 0..5 {
        one.contexts.create(&one.agent(alice), short(&number.to_string())).await.unwrap();
    }
    let left = async {
        loop {
            let left: Vec<uuid::Uuid> =
                sqlx::query_scalar("SELECT context_id FROM acb.context").fetch_all(&mut connection).await.unwrap();
            if left == [first.id.0] {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, left).await.expect("all but one are deleted");
    // A few rounds more.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(tries.load(Ordering::Relaxed), 1, "it is tried again only after a while");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_survives_a_crash_before_the_log_has_it() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let two = world.replica().await;
    let mut events = two.contexts.subscribe(&two.agent(alice), "notes", "", &StartPosition::Now).await.unwrap();
    assert_eq!(brief(&mut events).await, "subscribed");

    // It commits, and dies before it relays.
    let dying = world.replica_with(ContextConfig::default(), false).await;
    let context = dying.share(alice, "first", Access::public()).await;
    dying.contexts.update(&dying.agent(alice), update(&context, "second")).await.unwrap();
    drop(dying);
    assert_eq!(brief(&mut events).await, "Created 1 first");
    assert_eq!(brief(&mut events).await, "Updated 2 second");

    // It appends, and dies before it says so: the log has the change twice, and subscribers see it once.
    let dying = world.replica_with(ContextConfig::default(), false).await;
    drop(two);
    let repeated = dying.share(alice, "repeated", Access::public()).await;
    let claim = claim(&dying).await.unwrap();
    let record = acb_hub_core::contexts::change::record(claim.entries()[0].content.clone()).unwrap();
    let topic = TopicName::context(world.tenant.name(), "notes");
    let partition = acb_hub_core::log::partition::partition_of(repeated.id.0, 2);
    dying.bus.append(&topic, partition, record).await.unwrap().await.unwrap();
    drop(claim);
    let three = world.replica().await;
    let mut events = three.contexts.subscribe(&three.agent(alice), "notes", "", &StartPosition::Start).await.unwrap();
    let wait = async {
        while three.bus.bounds(&topic).await.unwrap().iter().map(|bounds| bounds.next).sum::<u64>() < 4 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the change is in the log twice");
    // Of the same context, so that it comes after both copies: events of different partitions come in any order.
    let last = three.contexts.update(&three.agent(alice), update(&repeated, "last")).await.unwrap();
    let mut seen = Vec::new();
    while seen.last().is_none_or(|event| event != "Updated 2 last") {
        seen.push(brief(&mut events).await);
    }
    assert_eq!(seen.iter().filter(|event| *event == "Created 1 repeated").count(), 1);
    assert_eq!(last.payload, Payload::Inline("last".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_the_log_does_not_take_hold_up_no_others() {
    let world = World::new().await;
    world.tenant.context_type("lost", 1).await;
    let alice = world.agent("alice", &[]).await;
    let publishes = || vec!["notes".to_owned(), "lost".to_owned()];
    world.change(alice, "alice", |row| row.publishes = publishes()).await;
    let idle = world.replica_with(ContextConfig::default(), false).await;
    for number in 0..40 {
        let mut lost = new(&number.to_string(), Access::public());
        lost.description.kind = "lost".into();
        idle.contexts.create(&idle.agent(alice), lost).await.unwrap();
    }
    idle.share(alice, "behind them", Access::public()).await;
    // Its type is still there.
    let topic = TopicName::context(world.tenant.name(), "lost");
    sqlx::query("DELETE FROM acb.bus_topic WHERE tenant_id = $1 AND topic = $2")
        .bind(world.tenant.id_bytes().as_slice())
        .bind(topic.as_str())
        .execute(&mut acb_testbed::Postgres::shared().await.superuser().await)
        .await
        .unwrap();
    let works = world.replica().await;
    let mut events = works.contexts.subscribe(&works.agent(alice), "notes", "", &StartPosition::Start).await.unwrap();
    assert_eq!(brief(&mut events).await, "subscribed");
    assert_eq!(brief(&mut events).await, "Created 1 behind them");

    world.tenant.ensure_topic("lost", 1).await;
    let all = async {
        while works.bus.bounds(&topic).await.unwrap()[0].next < 40 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("in the end they are taken");
}
