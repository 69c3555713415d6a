//! How much agents may keep.

use acb_hub_core::{
    contexts::{
        audience::{Access, Scope},
        catalog::{ContextUpdate, NewContext},
        context::{Context, UploadId},
        upload::StartUpload,
    },
    directory::{agent::AgentId, limits::LimitUsage, presence::Registration},
    door::{api_key::NewKey, ports::RegistrationStore as _},
    fault::Fault,
};
use acb_testbed::Postgres;
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::world::{DEADLINE, Replica, World, access, describe, new, reason};

fn public() -> Access {
    access(Scope::Public, &[], &[])
}

async fn create(replica: &Replica, agent: AgentId, payload: &str) -> Result<Context, Fault> {
    replica.contexts.create(&replica.agent(agent), new(payload, public())).await
}

fn update(context: &Context, payload: &str) -> ContextUpdate {
    ContextUpdate {
        id: context.id,
        version: context.version,
        payload: payload.to_owned().into(),
        metadata: context.metadata.clone(),
        content_type: context.content_type.clone(),
        ttl: None,
    }
}

async fn limit(world: &World, id: AgentId, name: &str, storage_bytes: u64) {
    world.change(id, name, |row| row.limits = json!({ "storageBytes": storage_bytes })).await;
}

async fn limit_contexts(world: &World, id: AgentId, name: &str, contexts: u64) {
    world.change(id, name, |row| row.limits = json!({ "contexts": contexts })).await;
}

async fn limit_tenant(world: &World, limits: serde_json::Value) {
    let mut superuser = Postgres::shared().await.superuser().await;
    let changed = sqlx::query("UPDATE acb.tenant SET limits = $2 WHERE tenant_id = $1");
    changed.bind(world.tenant.id_bytes().to_vec()).bind(limits).execute(&mut superuser).await.unwrap();
}

#[tokio::test]
async fn an_agent_keeps_as_much_as_it_may() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    limit(&world, alice, "alice", 10).await;
    let replica = world.replica().await;
    let keyed = |payload: &str| NewContext { idempotency_key: "k".to_owned(), ..new(payload, public()) };
    let first = replica.contexts.create(&replica.agent(alice), keyed("12345")).await.unwrap();
    let second = create(&replica, alice, "1234").await.unwrap();
    let refused = create(&replica, alice, "12").await.unwrap_err();
    let exhausted = refused.exhausted.unwrap();
    assert_eq!(refused.reason, "STORAGE_LIMIT_EXCEEDED");
    assert_eq!((exhausted.subject.as_str(), exhausted.limit, exhausted.most), ("agent alice", "storageBytes", 10));
    assert_eq!(exhausted.retry_after, None);
    // Others have limits of their own.
    create(&replica, bob, "123456789012345").await.unwrap();
    // What was made before is told, and not refused.
    assert_eq!(replica.contexts.create(&replica.agent(alice), keyed("12345")).await.unwrap().id, first.id);
    // A version counts by what it adds.
    assert_eq!(reason(replica.contexts.update(&replica.agent(alice), update(&second, "123456")).await), "STORAGE_LIMIT_EXCEEDED");
    let second = replica.contexts.update(&replica.agent(alice), update(&second, "12345")).await.unwrap();
    let second = replica.contexts.update(&replica.agent(alice), update(&second, "1")).await.unwrap();
    let used = replica.contexts.storage_usage(&replica.agent(alice)).await.unwrap();
    assert_eq!((used[0].subject.as_str(), used[0].most), ("agent alice", Some(10)));
    assert_eq!((used[2].subject.as_str(), used[2].most), (format!("tenant {}", world.tenant.name()).as_str(), None));
    // What is deleted makes room, soon.
    replica.contexts.delete(&replica.agent(alice), first.id).await.unwrap();
    replica.contexts.delete(&replica.agent(alice), second.id).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    while let Err(fault) = create(&replica, alice, "1234567890").await {
        assert!(Instant::now() < deadline, "{fault}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_another_replica_stored_counts_and_so_does_what_is_on_its_way_in() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    limit(&world, alice, "alice", 100).await;
    let (one, two) = (world.replica().await, world.replica().await);
    create(&one, alice, "1234567890").await.unwrap();
    let start = |id, size| StartUpload { id, size, description: describe(public()) };
    let (first, second) = (UploadId(Uuid::new_v4()), UploadId(Uuid::new_v4()));
    two.uploads.start(&two.agent(alice), start(first, 80)).await.unwrap();
    assert_eq!(reason(two.uploads.start(&two.agent(alice), start(second, 11)).await), "STORAGE_LIMIT_EXCEEDED");
    // One that was begun goes on, however little room is left.
    two.uploads.start(&two.agent(alice), start(first, 80)).await.unwrap();
    let three = world.replica().await;
    assert_eq!(reason(create(&three, alice, "12345678901").await), "STORAGE_LIMIT_EXCEEDED");
    // So it does where something else was known before, soon.
    let deadline = Instant::now() + DEADLINE;
    while one.contexts.storage_usage(&one.agent(alice)).await.unwrap()[0].used != 90 {
        assert!(Instant::now() < deadline);
        sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn all_agents_together_keep_as_much_as_the_tenant_may() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    limit_tenant(&world, json!({"storageBytes": 10})).await;
    let replica = world.replica().await;
    create(&replica, alice, "123456").await.unwrap();
    let refused = create(&replica, bob, "12345").await.unwrap_err();
    assert_eq!(refused.exhausted.unwrap().subject, format!("tenant {}", world.tenant.name()));
    create(&replica, bob, "1234").await.unwrap();
}

/// An agent does not pass its limit by others that it registers, lets store and unregisters.
#[tokio::test]
async fn what_a_registered_agent_kept_stays_on_its_registrars_account() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    limit(&world, alice, "alice", 20).await;
    let replica = world.replica().await;
    let helper = Registration { name: "alice.helper".to_owned(), ..Registration::default() };
    let key = NewKey { prefix: "key1".to_owned(), hmac: [7; 32], by_key: "k1".to_owned() };
    replica.store.register(alice, &helper, &key, None).await.unwrap();
    replica.refresh().await;
    let registered = replica.directory.snapshot().agent_named("alice.helper").unwrap().id;
    create(&replica, registered, "12345").await.unwrap();
    let upload = UploadId(Uuid::new_v4());
    let start = StartUpload { id: upload, size: 5, description: describe(public()) };
    replica.uploads.start(&replica.agent(registered), start).await.unwrap();
    // Made by a hub of an earlier version.
    let mut superuser = Postgres::shared().await.superuser().await;
    let old = create(&replica, registered, "123").await.unwrap();
    let unsaid = sqlx::query("UPDATE acb.context SET account = NULL WHERE context_id = $1").bind(old.id.0);
    unsaid.execute(&mut superuser).await.unwrap();
    // Another replica has not heard of the end yet.
    let late = world.replica().await;
    assert!(replica.store.unregister(Some(alice), "alice.helper").await.unwrap());
    create(&late, registered, "1").await.unwrap();
    replica.refresh().await;
    let other = world.replica().await;
    let used = other.contexts.storage_usage(&other.agent(alice)).await.unwrap();
    assert_eq!((used[0].subject.as_str(), used[0].used), ("agent alice", 14));
    assert_eq!(reason(create(&other, alice, "1234567").await), "STORAGE_LIMIT_EXCEEDED");
}

#[tokio::test]
async fn what_an_administrator_adds_to_another_s_context_is_the_creator_s() {
    let world = World::new().await;
    let (alice, root) = (world.agent("alice", &[]).await, world.agent_as("root", &[], "admin", &["notes"]).await);
    limit(&world, alice, "alice", 10).await;
    let replica = world.replica().await;
    let made = create(&replica, alice, "1").await.unwrap();
    let refused = replica.contexts.update(&replica.agent(root), update(&made, "12345678901")).await.unwrap_err();
    assert_eq!((refused.reason, refused.exhausted.unwrap().subject.as_str()), ("STORAGE_LIMIT_EXCEEDED", "agent alice"));
    let made = replica.contexts.update(&replica.agent(root), update(&made, "1234567890")).await.unwrap();
    // The administrator's own limit has nothing to do with it.
    world
        .change(root, "root", |row| {
            row.role = "admin".to_owned();
            row.limits = json!({ "storageBytes": 1 });
        })
        .await;
    replica.refresh().await;
    replica.contexts.update(&replica.agent(root), update(&made, "123456789")).await.unwrap();
    let used = replica.contexts.storage_usage(&replica.agent(root)).await.unwrap();
    assert_eq!(used[0].used, 0);
}

#[tokio::test]
async fn an_agent_has_as_many_contexts_as_it_may() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    limit_contexts(&world, alice, "alice", 2).await;
    let replica = world.replica().await;
    let keyed = |payload: &str| NewContext { idempotency_key: "k".to_owned(), ..new(payload, public()) };
    let first = replica.contexts.create(&replica.agent(alice), keyed("1")).await.unwrap();
    // However little is in it.
    let second = create(&replica, alice, "").await.unwrap();
    let refused = create(&replica, alice, "").await.unwrap_err();
    let exhausted = refused.exhausted.unwrap();
    assert_eq!((refused.reason, exhausted.retry_after), ("CONTEXT_LIMIT_EXCEEDED", None));
    assert_eq!((exhausted.subject.as_str(), exhausted.limit, exhausted.most), ("agent alice", "contexts", 2));
    create(&replica, bob, "1").await.unwrap();
    // What was made before is told, and versions of it are no contexts of their own, also where the limit got smaller.
    assert_eq!(replica.contexts.create(&replica.agent(alice), keyed("1")).await.unwrap().id, first.id);
    limit_contexts(&world, alice, "alice", 0).await;
    replica.refresh().await;
    let mut last = second;
    for payload in ["12", "123", "1234"] {
        last = replica.contexts.update(&replica.agent(alice), update(&last, payload)).await.unwrap();
    }
    let of = |used: &[LimitUsage], whose: &str| {
        let found = used.iter().find(|usage| usage.subject == whose && usage.limit == "contexts").unwrap();
        (found.most, found.used)
    };
    let used = replica.contexts.storage_usage(&replica.agent(alice)).await.unwrap();
    assert_eq!((of(&used, "agent alice"), of(&used, &format!("tenant {}", world.tenant.name()))), ((Some(0), 2), (None, 3)));
    assert_eq!(reason(create(&replica, alice, "").await), "CONTEXT_LIMIT_EXCEEDED");
    // What is deleted makes room, soon; and so does a limit that is raised.
    limit_contexts(&world, alice, "alice", 2).await;
    replica.refresh().await;
    assert_eq!(reason(create(&replica, alice, "").await), "CONTEXT_LIMIT_EXCEEDED");
    replica.contexts.delete(&replica.agent(alice), last.id).await.unwrap();
    let deadline = Instant::now() + DEADLINE;
    while let Err(fault) = create(&replica, alice, "").await {
        assert!(Instant::now() < deadline, "{fault}");
        sleep(std::time::Duration::from_millis(50)).await;
    }
    limit_contexts(&world, alice, "alice", 1 << 62).await;
    replica.refresh().await;
    create(&replica, alice, "").await.unwrap();
}

#[tokio::test]
async fn a_context_on_its_way_in_is_one_and_the_tenant_s_limit_is_for_all() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    limit_tenant(&world, json!({"contexts": 2})).await;
    let (one, two) = (world.replica().await, world.replica().await);
    let start = |id| StartUpload { id, size: 3, description: describe(public()) };
    let (first, second) = (UploadId(Uuid::new_v4()), UploadId(Uuid::new_v4()));
    one.uploads.start(&one.agent(alice), start(first)).await.unwrap();
    create(&one, bob, "1").await.unwrap();
    let refused = create(&two, bob, "1").await.unwrap_err().exhausted.unwrap();
    assert_eq!((refused.subject, refused.limit), (format!("tenant {}", world.tenant.name()), "contexts"));
    assert_eq!(reason(two.uploads.start(&two.agent(bob), start(second)).await), "CONTEXT_LIMIT_EXCEEDED");
    // One that was begun goes on.
    two.uploads.start(&two.agent(alice), start(first)).await.unwrap();
}
