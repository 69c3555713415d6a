//! Lists and subscriptions with a filter, and from a time.

use std::{collections::BTreeMap, time::Duration};

use acb_hub_core::{
    contexts::{
        audience::{Access, Scope},
        catalog::{ContextUpdate, Listing},
        context::{Context, ContextId},
        subscription::{Notice, StartPosition, Subscription},
    },
    directory::agent::AgentId,
};
use time::OffsetDateTime;

use crate::world::{Replica, World, access, new, next, reason};

const HIGH: &str = r#"context.metadata["priority"] == "high""#;

fn priority(value: &str) -> BTreeMap<String, String> {
    [("priority".to_owned(), value.to_owned())].into()
}

async fn share(replica: &Replica, agent: AgentId, value: &str, access: Access) -> Context {
    let mut new = new(value, access);
    new.description.metadata = priority(value);
    replica.contexts.create(&replica.agent(agent), new).await.unwrap()
}

async fn update(replica: &Replica, agent: AgentId, context: &Context, value: &str) -> Context {
    let update = ContextUpdate {
        id: context.id,
        version: context.version,
        payload: value.to_owned().into(),
        metadata: priority(value),
        content_type: "text/plain".to_owned(),
        ttl: None,
    };
    replica.contexts.update(&replica.agent(agent), update).await.unwrap()
}

/// What comes next, of which context: bookmarks aside.
async fn told(events: &mut Subscription) -> (String, Option<ContextId>) {
    loop {
        match next(events).await.unwrap() {
            Notice::Bookmark { .. } => {}
            Notice::Subscribed { .. } => return ("subscribed".to_owned(), None),
            Notice::Change { event, .. } => {
                let context = event.context;
                return (format!("{:?} {}", event.change, context.version), Some(context.id));
            }
            Notice::Left { context, version, .. } => return (format!("Left {version}"), Some(context)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_hears_what_matches_and_what_no_longer_does() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let (one, two) = (world.replica().await, world.replica().await);
    let begun = OffsetDateTime::now_utc();
    let mut events = two.contexts.subscribe(&two.agent(bob), "notes", HIGH, &StartPosition::Now).await.unwrap();
    assert_eq!(told(&mut events).await.0, "subscribed");

    share(&one, alice, "low", Access::public()).await;
    // Matches, and is not for bob.
    let hidden = share(&one, alice, "high", access(Scope::Private, &[], &[])).await;
    update(&one, alice, &hidden, "low").await;
    let mut wanted = Vec::new();
    let mut context = share(&one, alice, "low", Access::public()).await;
    for value in ["middle", "high", "high", "low", "middle", "high"] {
        context = update(&one, alice, &context, value).await;
    }
    wanted.extend(["Updated 3", "Updated 4", "Left 5", "Updated 7"].map(|what| (what.to_owned(), Some(context.id))));
    one.contexts.delete(&one.agent(alice), context.id).await.unwrap();
    wanted.push(("Deleted 8".to_owned(), Some(context.id)));
    let mut all = Vec::new();
    for _ in &wanted {
        all.push(told(&mut events).await);
    }
    assert_eq!(all, wanted);

    // A deletion is told of by what was deleted.
    let low = share(&one, alice, "low", Access::public()).await;
    one.contexts.delete(&one.agent(alice), low.id).await.unwrap();
    // What has no such entry matches neither the filter nor its opposite.
    one.share(alice, "without metadata", Access::public()).await;
    let last = share(&one, alice, "high", Access::public()).await;
    assert_eq!(told(&mut events).await, ("Created 1".to_owned(), Some(last.id)));

    // From a time: all of it once more, in the order of each context.
    let mut again = one.contexts.subscribe(&one.agent(bob), "notes", HIGH, &StartPosition::At(begun)).await.unwrap();
    assert_eq!(told(&mut again).await.0, "subscribed");
    let mut all = Vec::new();
    while all.len() < wanted.len() + 1 {
        all.push(told(&mut again).await);
    }
    assert!(all.contains(&("Created 1".to_owned(), Some(last.id))));
    all.retain(|(_, id)| *id == Some(context.id));
    assert_eq!(all, wanted);
    // Beyond the end it is from now on.
    let later = OffsetDateTime::now_utc() + Duration::from_secs(3600);
    let mut later = one.contexts.subscribe(&one.agent(bob), "notes", "", &StartPosition::At(later)).await.unwrap();
    assert_eq!(told(&mut later).await.0, "subscribed");
    let newest = share(&one, alice, "low", Access::public()).await;
    assert_eq!(told(&mut later).await, ("Created 1".to_owned(), Some(newest.id)));
}

/// One that skips what was there already: the log's times, and not the contexts', say where it begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_from_a_time_has_nothing_older() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let mut events = one.contexts.subscribe(&one.agent(alice), "notes", "", &StartPosition::Now).await.unwrap();
    assert_eq!(told(&mut events).await.0, "subscribed");
    for _ in 0..10 {
        let old = one.share(alice, "old", Access::public()).await;
        assert_eq!(told(&mut events).await.1, Some(old.id), "the log has it");
    }
    // The log's clock is PostgreSQL's, which is this machine's.
    let between = OffsetDateTime::now_utc();
    let young = one.share(alice, "young", Access::public()).await;
    let mut since = one.contexts.subscribe(&one.agent(alice), "notes", "", &StartPosition::At(between)).await.unwrap();
    assert_eq!(told(&mut since).await.0, "subscribed");
    assert_eq!(told(&mut since).await.1, Some(young.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selective_list_takes_bounded_work_for_each_page() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let mut wanted = vec![share(&one, alice, "high", Access::public()).await.id];
    let many = (0..1100).map(|_| share(&one, alice, "low", Access::public()));
    futures::future::join_all(many).await;
    // Ids of one millisecond have no order.
    tokio::time::sleep(Duration::from_millis(2)).await;
    for _ in 0..3 {
        wanted.push(share(&one, alice, "high", Access::public()).await.id);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (mut listed, mut pages, mut token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let which = Listing { kind: "notes", filter: HIGH, page_size: 2, page_token: &token };
        let page = one.contexts.list(&one.agent(alice), which).await.unwrap();
        pages.push(page.contexts.len());
        listed.extend(page.contexts.iter().map(|context| context.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, wanted);
    assert!(pages.len() >= 3 && pages.iter().all(|found| *found <= 2), "{pages:?}");
    let all = Listing { kind: "notes", filter: "true", page_size: 1000, ..Listing::default() };
    assert_eq!(one.contexts.list(&one.agent(alice), all).await.unwrap().contexts.len(), 1000);
}

/// As one does who sees little among much of others: one call looks at 8 times 1,024 contexts at most.
#[tokio::test(flavor = "multi_thread")]
async fn who_sees_little_has_bounded_work_done_for_each_page() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let one = world.replica().await;
    let first = share(&one, bob, "high", access(Scope::Private, &[], &[])).await.id;
    tokio::time::sleep(Duration::from_millis(2)).await;
    let template = share(&one, alice, "low", access(Scope::Private, &[], &[])).await.id;
    // Others, after that one and before the next.
    let others = "INSERT INTO acb.context (tenant_id, context_id, type, creator, creator_name, scope, payload, size, sha256)
                  SELECT tenant_id, (substr(context_id::text, 1, 14) || '7fff-8000-' || lpad(to_hex(n), 12, '0'))::uuid, type, creator,
                         creator_name, scope, payload, size, sha256 FROM acb.context, generate_series(1, 10000) AS n WHERE context_id = $1";
    let mut connection = world.tenant.connect().await;
    sqlx::query(others).bind(template.0).execute(&mut connection).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    let last = share(&one, bob, "high", access(Scope::Private, &[], &[])).await.id;
    for kind in ["", "notes"] {
        let (mut listed, mut pages, mut token) = (Vec::new(), 0, String::new());
        loop {
            let which = Listing { kind, page_token: &token, ..Listing::default() };
            let page = one.contexts.list(&one.agent(bob), which).await.unwrap();
            pages += 1;
            listed.extend(page.contexts.iter().map(|context| context.id));
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(listed, [first, last], "of type {kind:?}");
        assert!(pages >= 2, "{pages} pages of type {kind:?}");
        let whole = Listing { kind, page_size: 1000, ..Listing::default() };
        assert_eq!(one.contexts.list(&one.agent(alice), whole).await.unwrap().contexts.len(), 1000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_none_is_refused_before_anything_is_read() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let alice = one.agent(alice);
    for filter in ["context.", "message.topic == 'x'", "context.size", &"(".repeat(2000), &"x".repeat(5000)] {
        let listed = one.contexts.list(&alice, Listing { filter, ..Listing::default() }).await;
        assert_eq!(reason(listed), "FILTER_INVALID", "{filter:.50}");
        assert_eq!(reason(one.contexts.subscribe(&alice, "notes", filter, &StartPosition::Now).await), "FILTER_INVALID");
    }
    assert_eq!(one.contexts.tails(), 0);
    // Who may not follow the type learns nothing of the filter first.
    assert_eq!(reason(one.contexts.subscribe(&alice, "plans", "(", &StartPosition::Now).await), "CONTEXT_TYPE_NOT_SUBSCRIBED");
}
