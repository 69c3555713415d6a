//! Who sees what: by id, in lists and in subscriptions.

use acb_hub_core::contexts::{
    audience::{Access, Scope},
    catalog::Listing,
    context::ContextId,
    subscription::StartPosition,
    visibility::Viewer,
};

use crate::world::{Replica, World, access, brief, new, reason};

/// Clients take answers of 4 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_ends_by_bytes_too_and_none_is_lost() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let mut made = Vec::new();
    for _ in 0..150 {
        let mut large = new("x", Access::public());
        large.description.metadata.insert("note".to_owned(), "x".repeat(16_000));
        made.push(one.contexts.create(&one.agent(alice), large).await.unwrap().id);
    }
    let (mut listed, mut pages, mut token) = (Vec::new(), 0, String::new());
    while pages == 0 || !token.is_empty() {
        let page = one
            .contexts
            .list(&one.agent(alice), Listing { kind: "notes", page_size: u32::MAX, page_token: &token, ..Listing::default() })
            .await
            .unwrap();
        assert!(page.contexts.len() < 70, "{}", page.contexts.len());
        listed.extend(page.contexts.iter().map(|context| context.id));
        (pages, token) = (pages + 1, page.next_page_token);
    }
    assert_eq!((listed, pages), (made, 3));
}

/// The query and the decision agree for every agent and every scope, and paging neither leaks nor loses.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_shows_what_get_shows_and_nothing_else() {
    let world = World::new().await;
    world.tenant.context_type("plans", 1).await;
    let alice = world.agent("alice", &["red"]).await;
    let mut viewers = vec![alice];
    for (name, groups, role, subscribes) in [
        ("member", &["red"][..], "agent-full", &["notes"][..]),
        ("stranger", &["blue"], "agent-full", &["notes"]),
        ("elsewhere", &["red"], "agent-full", &["plans"]),
        ("nobody", &["red"], "agent-consumer", &[]),
        ("observer", &["red"], "observer", &["notes"]),
        ("producer", &["red"], "agent-producer", &["notes"]),
        ("admin", &[], "admin", &[]),
    ] {
        viewers.push(world.agent_as(name, groups, role, subscribes).await);
    }
    let one = world.replica().await;
    let mut all: Vec<ContextId> = Vec::new();
    for creator in [alice, viewers[2]] {
        for access in [
            Access::public(),
            access(Scope::Private, &[], &[]),
            access(Scope::Group, &["red", "green"], &[]),
            access(Scope::Shared, &[], &["stranger", "observer", "nobody"]),
        ] {
            all.push(one.share(creator, "x", access).await.id);
        }
    }
    for viewer in viewers {
        let viewer = one.agent(viewer);
        let mut visible = Vec::new();
        for id in &all {
            if one.contexts.get(&viewer, *id).await.is_ok() {
                visible.push(*id);
            }
        }
        for kind in ["", "notes"] {
            let (mut listed, mut token) = (Vec::new(), String::new());
            loop {
                let page = one
                    .contexts
                    .list(&viewer, Listing { kind, page_size: 3, page_token: &token, ..Listing::default() })
                    .await
                    .unwrap();
                assert!(page.contexts.len() <= 3);
                listed.extend(page.contexts.iter().map(|context| context.id));
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            assert_eq!(listed, visible, "{} {kind:?} {:?}", viewer.name, Viewer::of(&viewer));
        }
        assert_eq!(one.contexts.list(&viewer, Listing { kind: "plans", ..Listing::default() }).await.unwrap().contexts, []);
        assert_eq!(
            reason(one.contexts.list(&viewer, Listing { page_token: "' OR true", ..Listing::default() }).await),
            "PAGE_TOKEN_INVALID"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_hears_of_what_it_may_see_at_that_time() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &["red"]).await, world.agent("bob", &["blue"]).await);
    let one = world.replica().await;
    let mut events = one.contexts.subscribe(&one.agent(bob), "notes", "", &StartPosition::Now).await.unwrap();
    assert_eq!(brief(&mut events).await, "subscribed");
    one.share(alice, "private", access(Scope::Private, &[], &[])).await;
    one.share(alice, "red", access(Scope::Group, &["red"], &[])).await;
    let hidden = one.share(alice, "for carol", access(Scope::Shared, &[], &["carol"])).await;
    one.contexts.delete(&one.agent(alice), hidden.id).await.unwrap();
    one.share(alice, "blue", access(Scope::Group, &["blue"], &[])).await;
    one.share(alice, "for bob", access(Scope::Shared, &[], &["bob"])).await;
    one.share(alice, "public", Access::public()).await;
    let mut seen = vec![brief(&mut events).await, brief(&mut events).await, brief(&mut events).await];
    // Order is per context only.
    seen.sort_unstable();
    assert_eq!(seen, ["Created 1 blue", "Created 1 for bob", "Created 1 public"]);

    // Bob moves to another group while he is subscribed.
    let mut row = world.tenant.agent_row("bob");
    row.id = bob.to_string();
    row.groups = vec!["red".into()];
    row.subscribes = vec!["notes".into()];
    world.tenant.project(&row).await;
    one.refresh().await;
    one.share(alice, "blue again", access(Scope::Group, &["blue"], &[])).await;
    one.share(alice, "red again", access(Scope::Group, &["red"], &[])).await;
    // The first one to red may have been on its way still: it is Bob's to see now, too.
    let mut seen = brief(&mut events).await;
    if seen == "Created 1 red" {
        seen = brief(&mut events).await;
    }
    assert_eq!(seen, "Created 1 red again");

    // And is removed.
    world.tenant.remove(bob.0).await;
    one.refresh().await;
    one.share(alice, "too late", Access::public()).await;
    assert_eq!(reason(crate::world::next(&mut events).await), "AGENT_GONE");
}

/// Who reads a context is its creator's to say, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_shared_is_withdrawn_and_given_to_another() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let (carol, stranger) = (world.agent("carol", &[]).await, world.agent("stranger", &[]).await);
    let (one, two) = (world.replica().await, world.replica().await);
    let subscribe = async |agent, filter: &str| {
        let mut events = one.contexts.subscribe(&one.agent(agent), "notes", filter, &StartPosition::Now).await.unwrap();
        assert_eq!(brief(&mut events).await, "subscribed");
        events
    };
    let (mut bobs, mut carols, mut strangers) =
        (subscribe(bob, "").await, subscribe(carol, "").await, subscribe(stranger, "").await);
    let mut filtered = subscribe(bob, "context.content_type == 'application/json'").await;
    let to = |name: &str| access(Scope::Shared, &[], &[name]);
    let plan = one.share(alice, "plan", to("bob")).await;
    assert_eq!(brief(&mut bobs).await, "Created 1 plan");

    let set = async |replica: &Replica, agent, version, access| {
        replica.contexts.set_access(&replica.agent(agent), plan.id, version, access).await
    };
    assert_eq!(reason(set(&two, bob, None, to("stranger")).await), "CONTEXT_NOT_OWNED");
    assert_eq!(reason(set(&two, carol, None, to("carol")).await), "CONTEXT_NOT_FOUND");
    assert_eq!(reason(set(&two, alice, Some(7), to("carol")).await), "CONTEXT_VERSION_CONFLICT");
    assert_eq!(reason(set(&two, alice, None, access(Scope::Shared, &[], &[])).await), "ACCESS_INVALID");
    let given = set(&two, alice, Some(1), to("carol")).await.unwrap();
    assert_eq!((given.version, &given.access, given.sha256), (2, &to("carol"), plan.sha256));
    assert_eq!(set(&two, alice, None, to("carol")).await.unwrap().version, 2, "said again, it is what it is");

    assert_eq!(brief(&mut bobs).await, "Left 2");
    assert_eq!(brief(&mut carols).await, "Updated 2 plan");
    assert_eq!(reason(one.contexts.get(&one.agent(bob), plan.id).await), "CONTEXT_NOT_FOUND");
    let (read, _) = one.contexts.get(&one.agent(carol), plan.id).await.unwrap();
    assert_eq!((read.version, read.payload), (2, plan.payload));
    let listed = one.contexts.list(&one.agent(bob), Listing { kind: "notes", ..Listing::default() }).await.unwrap();
    assert_eq!(listed.contexts, []);

    // Those who never saw it, or asked for others, hear nothing of it.
    one.share(alice, "last", Access::public()).await;
    assert_eq!(brief(&mut strangers).await, "Created 1 last");
    let mut json = new("{}", Access::public());
    json.description.content_type = "application/json".to_owned();
    one.contexts.create(&one.agent(alice), json).await.unwrap();
    assert_eq!(brief(&mut filtered).await, "Created 1 {}");
}

/// A payload that leaves no room in the log for a longer list of names.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_context_is_withdrawn_too() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let one = world.replica().await;
    let fits = one.share(alice, "x", access(Scope::Shared, &[], &["bob"])).await;
    let mut bytes = 1024 * 1024;
    let large = loop {
        let new = new(&"x".repeat(bytes), access(Scope::Shared, &[], &["bob"]));
        match one.contexts.create(&one.agent(alice), new).await {
            Ok(context) => break context,
            Err(fault) => assert_eq!(fault.reason, "CONTEXT_TOO_LARGE"),
        }
        bytes -= 16;
    };
    let many: Vec<String> = (0..100).map(|number| format!("agent-{number}")).collect();
    let many = Access { scope: Scope::Shared, groups: Vec::new(), agents: many };
    for context in [fits, large] {
        let changed = one.contexts.set_access(&one.agent(alice), context.id, None, many.clone()).await.unwrap();
        assert_eq!(changed.version, 2);
        assert_eq!(reason(one.contexts.get(&one.agent(bob), context.id).await), "CONTEXT_NOT_FOUND");
        assert_eq!(one.contexts.get(&one.agent(alice), context.id).await.unwrap().0.size, context.size);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_are_those_of_the_tenant_and_of_the_agent() {
    let world = World::new().await;
    world.tenant.context_type("plans", 1).await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let alice = one.agent(alice);
    let subscribe = async |kind: &str| reason(one.contexts.subscribe(&alice, kind, "", &StartPosition::Now).await);
    assert_eq!(subscribe("notes").await, "fine");
    assert_eq!(subscribe("plans").await, "CONTEXT_TYPE_NOT_SUBSCRIBED");
    assert_eq!(subscribe("sys.messages").await, "CONTEXT_TYPE_NOT_SUBSCRIBED");
    let create = async |kind: &str| {
        let mut new = crate::world::new("x", Access::public());
        new.description.kind = kind.into();
        reason(one.contexts.create(&alice, new).await)
    };
    assert_eq!(create("plans").await, "CONTEXT_TYPE_NOT_PUBLISHED");
    assert_eq!(create("sys.messages").await, "CONTEXT_TYPE_UNKNOWN");
    let large = crate::world::new(&"x".repeat(1024 * 1024), Access::public());
    assert_eq!(reason(one.contexts.create(&alice, large).await), "CONTEXT_TOO_LARGE");
}

/// An agent that asks for much at once waits for its own answers, and keeps nobody else waiting.
#[tokio::test(flavor = "multi_thread")]
async fn what_answers_hold_is_counted_for_each_caller() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let one = world.replica().await;
    let large = one.share(alice, &"x".repeat(1_000_000), Access::public()).await;
    let mut answers = Vec::new();
    let refused = loop {
        match one.contexts.get(&one.agent(alice), large.id).await {
            Ok(answer) => answers.push(answer),
            Err(fault) => break fault.reason,
        }
    };
    assert_eq!((refused, answers.len()), ("TOO_MANY_CONTEXT_BYTES", 8));
    one.contexts.get(&one.agent(bob), large.id).await.unwrap();
    // What it may not see, or changes, needs no room.
    assert_eq!(reason(one.contexts.delete(&one.agent(bob), large.id).await), "CONTEXT_NOT_OWNED");
    answers.pop();
    one.contexts.get(&one.agent(alice), large.id).await.unwrap();
}

/// What the log has from before a withdrawal is not read after it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_withdrawn_is_not_read_from_the_log() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice", &[]).await, world.agent("bob", &[]).await);
    let one = world.replica().await;
    let withdrawn = one.share(alice, "secret", access(Scope::Shared, &[], &["bob"])).await;
    let stays = one.share(alice, "plan", access(Scope::Shared, &[], &["bob"])).await;
    one.contexts.set_access(&one.agent(alice), withdrawn.id, None, access(Scope::Private, &[], &[])).await.unwrap();
    // A subscription takes what is younger than this for what it still is.
    tokio::time::sleep(std::time::Duration::from_millis(1001)).await;
    let mut events = one.contexts.subscribe(&one.agent(bob), "notes", "", &StartPosition::Start).await.unwrap();
    assert_eq!(brief(&mut events).await, "subscribed");
    let mut seen = vec![brief(&mut events).await, brief(&mut events).await];
    seen.sort_unstable();
    assert_eq!(seen, ["Created 1 plan", "Left 2"]);
    // Its creator reads all of it.
    let mut own = one.contexts.subscribe(&one.agent(alice), "notes", "", &StartPosition::Start).await.unwrap();
    let mut all = Vec::new();
    for _ in 0..4 {
        all.push(brief(&mut own).await);
    }
    all.sort_unstable();
    assert_eq!(all, ["Created 1 plan", "Created 1 secret", "Updated 2 secret", "subscribed"]);
    assert_eq!(stays.version, 1);
}

/// To give a context to more readers is to publish; to take it back is its creator's always.
#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_a_type_no_more_may_only_withdraw() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let shared = access(Scope::Shared, &[], &["bob", "carol"]);
    let context = one.share(alice, "plan", shared).await;
    world.change(alice, "alice", |row| row.publishes.clear()).await;
    one.refresh().await;
    let set = async |access| reason(one.contexts.set_access(&one.agent(alice), context.id, None, access).await);
    assert_eq!(set(Access::public()).await, "CONTEXT_TYPE_NOT_PUBLISHED");
    assert_eq!(set(access(Scope::Shared, &[], &["dave"])).await, "CONTEXT_TYPE_NOT_PUBLISHED");
    assert_eq!(set(access(Scope::Shared, &[], &["carol"])).await, "fine");
    assert_eq!(set(access(Scope::Private, &[], &[])).await, "fine");
}
