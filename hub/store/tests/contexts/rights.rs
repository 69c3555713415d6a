//! What lasts ends with the right to it: subscriptions, uploads, and changes of contexts that were made before.

use acb_hub_core::{
    contexts::{
        audience::Access, catalog::ContextUpdate, chunk::Chunk, context::UploadId, subscription::StartPosition,
        upload::StartUpload,
    },
    log::bus::TopicName,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::world::{World, brief, describe, next, reason};

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_a_type_no_more_changes_none_of_it() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let context = one.share(alice, "first", Access::public()).await;
    let update = || ContextUpdate {
        id: context.id,
        version: 1,
        payload: Bytes::from_static(b"second"),
        metadata: std::collections::BTreeMap::new(),
        content_type: String::new(),
        ttl: None,
    };
    let payload = Bytes::from_static(b"streamed");
    let sha256: [u8; 32] = Sha256::digest(&payload).into();
    let id = UploadId(Uuid::new_v4());
    let start = StartUpload { id, size: payload.len() as u64, description: describe(Access::public()) };
    let mut session = one.uploads.start(&one.agent(alice), start).await.unwrap();
    session.put(Chunk { index: 0, sha256, data: payload }).await.unwrap();
    session.stored().await.unwrap().unwrap();

    world.change(alice, "alice", |row| row.publishes.clear()).await;
    one.refresh().await;
    assert_eq!(reason(one.contexts.update(&one.agent(alice), update()).await), "CONTEXT_TYPE_NOT_PUBLISHED");
    assert_eq!(reason(session.finish(sha256).await), "CONTEXT_TYPE_NOT_PUBLISHED");
    assert_eq!(reason(one.uploads.resume(&one.agent(alice), id).await), "CONTEXT_TYPE_NOT_PUBLISHED");

    world.change(alice, "alice", |_| {}).await;
    one.refresh().await;
    one.contexts.update(&one.agent(alice), update()).await.unwrap();
    let session = one.uploads.resume(&one.agent(alice), id).await.unwrap();
    world.change(alice, "alice", |row| row.suspended = true).await;
    one.refresh().await;
    assert_eq!(reason(session.finish(sha256).await), "AGENT_GONE");
    world.change(alice, "alice", |_| {}).await;
    one.refresh().await;
    one.uploads.resume(&one.agent(alice), id).await.unwrap().finish(sha256).await.unwrap();

    // What it made it may still remove, and ask what became of its upload.
    world.change(alice, "alice", |row| row.publishes.clear()).await;
    one.refresh().await;
    one.uploads.resume(&one.agent(alice), id).await.unwrap().finish(sha256).await.unwrap();
    one.contexts.delete(&one.agent(alice), context.id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_subscription_ends_when_its_agent_may_not_subscribe_any_more() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    for (changed, expected) in [("type", "CONTEXT_TYPE_NOT_SUBSCRIBED"), ("role", "ROLE_LACKS_PERMISSION")] {
        let mut events = one.contexts.subscribe(&one.agent(alice), "notes", "", &StartPosition::Now).await.unwrap();
        assert_eq!(brief(&mut events).await, "subscribed");
        let change = async {
            world
                .change(alice, "alice", |row| match changed {
                    "type" => (row.publishes, row.subscribes) = (Vec::new(), Vec::new()),
                    _ => row.role = "agent-producer".to_owned(),
                })
                .await;
            one.refresh().await;
        };
        // It waits for a change, and none comes.
        let (ended, ()) = tokio::join!(next(&mut events), change);
        assert_eq!(reason(ended), expected);
        world.change(alice, "alice", |_| {}).await;
        one.refresh().await;
    }
    let topic = TopicName::context(world.tenant.name(), "notes");
    assert!(one.bus.bounds(&topic).await.unwrap().iter().all(|bounds| bounds.next == 0));
}
