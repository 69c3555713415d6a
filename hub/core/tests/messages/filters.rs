//! Sessions that receive some of the messages: the others stay unread.

use acb_hub_core::messages::{
    cursor::MAX_EXCEPTIONS,
    message::{Address, OutgoingMessage},
    service::Messages,
    session::{Session, SessionEvent, SessionOptions},
};
use time::OffsetDateTime;

use crate::world::{World, deliveries, delivery, event, eventually, silent, text, to};

async fn receive(world: &World, replica: &Messages, filter: &str) -> Session {
    let options = SessionOptions { receive: true, max_unacknowledged: 10, ..SessionOptions::default() };
    replica.open_session_matching(world.agent("b"), options, filter).await.unwrap()
}

fn of_topic(topic: &str, text: &str) -> OutgoingMessage {
    OutgoingMessage { topic: topic.to_owned(), ..to("b", text) }
}

async fn acknowledge(session: &Session, all: &[acb_hub_core::messages::delivery::Delivery]) {
    session.input.ack(all.iter().map(|delivery| delivery.id).collect()).await.unwrap();
}

/// Before, while and after it is open.
pub(crate) async fn what_a_session_does_not_want_stays_unread(world: &World) {
    let replica = world.replica("one").await;
    let a = world.agent("a");
    let send = async |topic: &str, text: &str| replica.send(&a, of_topic(topic, text)).await.unwrap();
    send("orders", "1").await;
    send("news", "2").await;
    let mut session = receive(world, &replica, "message.topic == 'orders' && message.from == 'a'").await;
    send("orders", "3").await;
    send("news", "4").await;
    let urgent = OutgoingMessage { metadata: [("urgent".to_owned(), "yes".to_owned())].into(), ..of_topic("orders", "5") };
    replica.send(&a, urgent).await.unwrap();
    let group =
        OutgoingMessage { topic: "orders".to_owned(), ..OutgoingMessage::new(Address::Group("pair".into()), "orders", "6") };
    replica.send(&a, group).await.unwrap();
    let wanted = deliveries(&mut session, 4).await;
    assert_eq!(wanted.iter().map(text).collect::<Vec<_>>(), ["1", "3", "5", "6"]);
    assert!(silent(&mut session).await);
    acknowledge(&session, &wanted).await;
    world.acknowledged("b", &wanted).await;
    drop(session);
    replica.drain().await;

    // Metadata that is not there matches nothing.
    let replica = world.replica("two").await;
    let mut session = receive(world, &replica, "message.metadata.urgent == 'no'").await;
    assert!(silent(&mut session).await);
    drop(session);
    replica.drain().await;

    // Nobody has had them: nothing is a repetition, and no attempt was made.
    let replica = world.replica("three").await;
    let mut session = receive(world, &replica, "").await;
    let rest = deliveries(&mut session, 2).await;
    assert_eq!(rest.iter().map(text).collect::<Vec<_>>(), ["2", "4"]);
    assert!(rest.iter().all(|delivery| !delivery.redelivered && delivery.attempt == 1), "{rest:?}");
    acknowledge(&session, &rest).await;
    world.acknowledged("b", &rest).await;
    assert!(silent(&mut session).await);
}

/// They take none of the places of what may be unacknowledged, up to the bound of a cursor; and they are free again however they went.
pub(crate) async fn what_is_not_wanted_holds_a_partition_back_at_the_bound_only(world: &World) {
    let replica = world.replica("one").await;
    let a = world.agent("a");
    let mut session = receive(world, &replica, "message.topic == 'orders'").await;
    let send = async |topic: &str, text: &str| replica.send(&a, of_topic(topic, text)).await.unwrap();
    for number in 0..MAX_EXCEPTIONS {
        send("news", &number.to_string()).await;
    }
    send("orders", "in time").await;
    let last = delivery(&mut session).await;
    assert_eq!(text(&last), "in time");
    acknowledge(&session, &[last]).await;
    send("news", "one more").await;
    send("orders", "held back").await;
    let held = event(&mut session).await;
    assert!(matches!(held, SessionEvent::HeldBack { unacknowledged, .. } if unacknowledged >= 1000), "{held:?}");
    assert!(silent(&mut session).await);
    drop(session);

    // Whoever takes them makes way.
    let mut all = Vec::new();
    let mut session = receive(world, &replica, "").await;
    while all.len() < MAX_EXCEPTIONS + 2 {
        let next = delivery(&mut session).await;
        acknowledge(&session, std::slice::from_ref(&next)).await;
        all.push(text(&next));
    }
    assert_eq!(all.last().map(String::as_str), Some("held back"));
    assert!(!all.contains(&"in time".to_owned()));
}

/// One that expires while a session passes over it goes to the dead letters, as any other.
pub(crate) async fn what_is_not_wanted_expires(world: &World) {
    let replica = world.replica("one").await;
    let a = world.agent("a");
    let mut session = receive(world, &replica, "message.topic == 'orders'").await;
    let expires_at = Some(OffsetDateTime::now_utc() + time::Duration::milliseconds(1500));
    replica.send(&a, OutgoingMessage { expires_at, ..of_topic("news", "short-lived") }).await.unwrap();
    replica.send(&a, of_topic("orders", "order")).await.unwrap();
    let order = delivery(&mut session).await;
    acknowledge(&session, &[order]).await;
    eventually(async || world.dead_letters().await.len() == 1).await;
    // Nothing keeps the cursor any more.
    eventually(async || world.cursor("b").await.is_some_and(|cursor| cursor.exceptions.is_empty())).await;
    assert!(silent(&mut session).await);
    drop(session);
    let replica = world.replica("two").await;
    let mut session = receive(world, &replica, "").await;
    assert!(silent(&mut session).await);
}

pub(crate) async fn what_is_no_filter_opens_no_session(world: &World) {
    let replica = world.replica("one").await;
    let options = SessionOptions { receive: true, max_unacknowledged: 10, ..SessionOptions::default() };
    for filter in ["context.type == 'x'", "message.topic", "(((", &"!".repeat(1000)] {
        let refused = replica.open_session_matching(world.agent("b"), options.clone(), filter).await.unwrap_err();
        assert_eq!(refused.reason, "FILTER_INVALID", "{filter}");
    }
}
