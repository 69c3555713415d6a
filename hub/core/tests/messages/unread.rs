//! What is unread, seen without taking it. Shared with the suite that runs on PostgreSQL.

use std::time::Duration;

use acb_hub_core::{
    directory::agent::Agent,
    messages::{
        message::{Address, OutgoingMessage},
        service::Messages,
    },
};
use tokio::time::Instant;

use crate::world::{World, deliveries, delivery, eventually, text, to};

async fn list(replica: &Messages, agent: &Agent, from: &str) -> Vec<String> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = replica.unread().list(agent, (from, ""), 3, &token).await.unwrap();
        assert!(page.messages.len() <= 3);
        all.extend(page.messages.iter().map(|message| String::from_utf8(message.payload.to_vec()).unwrap()));
        token = page.position;
        if !page.more {
            return all;
        }
    }
}

pub(crate) async fn what_is_unread_is_seen_and_not_taken(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b, c) = (world.agent("a"), world.agent("b"), world.agent("c"));
    let group = |text: &str| OutgoingMessage::new(Address::Group("pair".to_owned()), "t", text.to_owned());
    for number in 0..5 {
        left.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    left.send(&c, group("group")).await.unwrap();
    left.send(&b, group("own")).await.unwrap();
    left.send(&c, to("b", "direct")).await.unwrap();
    let soon = time::OffsetDateTime::now_utc() + Duration::from_millis(50);
    left.send(&a, OutgoingMessage { expires_at: Some(soon), ..to("b", "over") }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let everything = ["0", "1", "2", "3", "4", "group", "direct"];
    eventually(async || list(&right, &b, "").await == everything).await;
    assert_eq!(list(&left, &b, "c").await, ["group", "direct"]);
    assert_eq!(list(&left, &c, "").await, ["own"]);
    let count = right.unread().count(&b, "").await.unwrap();
    assert_eq!((count.messages, count.by_sender["a"], count.by_sender["c"], count.more), (7, 5, 2, false));
    assert_eq!(right.unread().count(&b, "a").await.unwrap().messages, 5);
    assert_eq!(right.unread().count(&b, "nobody").await.unwrap_err().reason, "SENDER_NOT_FOUND");
    assert_eq!(right.unread().list(&b, ("", ""), 0, "noise").await.unwrap_err().reason, "PAGE_TOKEN_INVALID");

    // A session is not disturbed, and what it has in hand is unread until it is acknowledged.
    let mut inbox = world.receive(&left, "b").await;
    let got = deliveries(&mut inbox, 7).await;
    assert!(got.iter().all(|delivery| !delivery.redelivered && delivery.attempt == 1));
    assert_eq!(list(&right, &b, "").await, everything);
    // The second, and the last but one of them.
    let chosen: Vec<_> = got.iter().filter(|delivery| ["1", "group"].contains(&text(delivery).as_str())).cloned().collect();
    inbox.input.ack(chosen.iter().map(|delivery| delivery.id).collect()).await.unwrap();
    eventually(async || list(&right, &b, "").await == ["0", "2", "3", "4", "direct"]).await;
    left.send(&a, to("b", "more")).await.unwrap();
    assert_eq!(text(&delivery(&mut inbox).await), "more", "the session goes on");
}

pub(crate) async fn a_wait_ends_with_the_next_message_or_in_time(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b, c) = (world.agent("a"), world.agent("b"), world.agent("c"));
    left.send(&a, to("b", "first")).await.unwrap();
    let unread = right.unread();
    let first = unread.wait(&b, ("", ""), "", Duration::from_secs(20)).await.unwrap();
    assert_eq!(first.messages.iter().map(|message| &message.payload[..]).collect::<Vec<_>>(), [b"first"]);
    let began = Instant::now();
    let none = unread.wait(&b, ("", ""), &first.position, Duration::from_millis(300)).await.unwrap();
    assert!(none.messages.is_empty() && began.elapsed() >= Duration::from_millis(300));
    // Another replica takes it, and what others sent does not end the wait for one.
    let send = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        left.send(&c, to("b", "not asked for")).await.unwrap();
        left.send(&a, OutgoingMessage::new(Address::All, "t", "second")).await.unwrap();
    };
    let began = Instant::now();
    let wait = unread.wait(&b, ("a", ""), &none.position, Duration::from_secs(20));
    let (second, ()) = tokio::join!(wait, send);
    let second = second.unwrap();
    assert_eq!(second.messages.iter().map(|message| &message.payload[..]).collect::<Vec<_>>(), [b"second"]);
    assert!(began.elapsed() < Duration::from_secs(4), "it was told: {:?}", began.elapsed());
    let waits: Vec<_> = (0..17).map(|_| unread.wait(&b, ("", ""), &second.position, Duration::from_millis(500))).collect();
    let ends = futures::future::join_all(waits).await;
    assert_eq!(ends.iter().filter(|end| end.as_ref().is_err_and(|fault| fault.reason == "TOO_MANY_WAITS")).count(), 1);
}
