//! Where a subscription begins, and what becomes of a slow one.

use acb_hub_core::{
    contexts::{
        audience::Access,
        parts::ContextConfig,
        subscription::{Notice, StartPosition, Subscription},
    },
    log::position::LogPosition,
};

use crate::world::{World, brief, next, reason};

async fn payload_and_position(events: &mut Subscription) -> (String, Option<LogPosition>) {
    match next(events).await.unwrap() {
        Notice::Subscribed { .. } | Notice::Bookmark { .. } | Notice::Left { .. } => (String::new(), None),
        Notice::Change { position, event } => match event.context.payload {
            acb_hub_core::contexts::context::Payload::Inline(payload) => {
                (String::from_utf8(payload.to_vec()).unwrap(), Some(position))
            }
            other => panic!("{other:?}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_goes_on_where_it_broke() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let (one, two) = (world.replica().await, world.replica().await);
    let mut events = one.contexts.subscribe(&one.agent(alice), "notes", "", &StartPosition::Now).await.unwrap();
    let Notice::Subscribed { after } = next(&mut events).await.unwrap() else { panic!("the first says where it begins") };
    let mut positions = after;
    for number in 0..10 {
        one.share(alice, &number.to_string(), Access::public()).await;
    }
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (payload, position) = payload_and_position(&mut events).await;
        seen.push(payload);
        positions.extend(position);
    }
    drop(events);
    for number in 10..14 {
        one.share(alice, &number.to_string(), Access::public()).await;
    }
    let mut events =
        two.contexts.subscribe(&two.agent(alice), "notes", "", &StartPosition::After(positions.clone())).await.unwrap();
    assert_eq!(brief(&mut events).await, "subscribed");
    for _ in 0..10 {
        seen.push(payload_and_position(&mut events).await.0);
    }
    seen.sort_by_key(|payload| payload.parse::<u32>().unwrap());
    assert_eq!(seen, (0..14).map(|number| number.to_string()).collect::<Vec<_>>());

    for position in &mut positions {
        position.epoch += 1;
    }
    let stale = two.contexts.subscribe(&two.agent(alice), "notes", "", &StartPosition::After(positions)).await;
    assert_eq!(reason(stale), "LOG_EPOCH_CHANGED");
}

/// One that takes nothing while 400 changes pass through a window of 16 gets all of them, from the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_misses_nothing_and_holds_up_nobody() {
    let world = World::new().await;
    let alice = world.agent("alice", &[]).await;
    let config = ContextConfig { window_events: 16, ..ContextConfig::default() };
    let one = world.replica_with(config, true).await;
    let agent = one.agent(alice);
    let mut slow = one.contexts.subscribe(&agent, "notes", "", &StartPosition::Now).await.unwrap();
    let mut quick = one.contexts.subscribe(&agent, "notes", "", &StartPosition::Now).await.unwrap();
    assert_eq!((brief(&mut slow).await, brief(&mut quick).await), ("subscribed".into(), "subscribed".into()));
    assert_eq!(one.contexts.tails(), 1, "one tail for both");
    let mut expected = Vec::new();
    for number in 0..400 {
        one.share(alice, &number.to_string(), Access::public()).await;
        expected.push(brief(&mut quick).await);
    }
    let mut seen = Vec::new();
    for _ in 0..400 {
        seen.push(brief(&mut slow).await);
    }
    expected.sort_unstable();
    seen.sort_unstable();
    assert_eq!(seen, expected);
    // Back in the window, it is prompt again.
    one.share(alice, "new", Access::public()).await;
    assert_eq!(brief(&mut slow).await, "Created 1 new");
    drop((slow, quick));
    assert_eq!(one.contexts.tails(), 0);
}

/// The relay is rung at the commit: nothing waits for its poll, which would come after the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_told_at_once() {
    let world = World { relay_poll: std::time::Duration::from_secs(600), ..World::new().await };
    let alice = world.agent("alice", &[]).await;
    let one = world.replica().await;
    let mut events = one.contexts.subscribe(&one.agent(alice), "notes", "", &StartPosition::Now).await.unwrap();
    assert_eq!(brief(&mut events).await, "subscribed");
    for number in 0..20 {
        one.share(alice, &number.to_string(), Access::public()).await;
        assert_eq!(brief(&mut events).await, format!("Created 1 {number}"));
    }
}
