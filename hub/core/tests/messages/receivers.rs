//! One program receives for an agent at a time. Shared with the suite that runs on PostgreSQL.

use acb_hub_core::{
    fault::Fault,
    messages::{
        service::Messages,
        session::{Session, SessionEvent, SessionOptions},
    },
};

use crate::world::{World, delivery, eventually, text, to};

async fn receive(world: &World, replica: &Messages, receiver: &str, take_over: bool) -> Result<Session, Fault> {
    let options = SessionOptions { receive: true, receiver: receiver.to_owned(), take_over, ..SessionOptions::default() };
    replica.open_session(world.agent("b"), options).await
}

async fn replaced(mut session: Session) -> bool {
    let ends = async {
        while let Some(event) = session.events.next().await {
            if event == SessionEvent::Replaced {
                return true;
            }
        }
        false
    };
    tokio::time::timeout(crate::world::PATIENCE, ends).await.expect("it ends in time")
}

pub(crate) async fn a_second_receiver_is_refused_unless_it_takes_over(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let first = receive(world, &left, "one", false).await.unwrap();
    for (replica, receiver) in [(&right, "two"), (&left, "two"), (&right, "")] {
        assert_eq!(receive(world, replica, receiver, false).await.unwrap_err().reason, "RECEIVER_PRESENT");
    }
    // One that only sends is in nobody's way.
    let sends = SessionOptions { receiver: "two".to_owned(), ..SessionOptions::default() };
    drop(right.open_session(world.agent("b"), sends).await.unwrap());
    // The same program connects again, to another replica.
    let mut again = receive(world, &right, "one", false).await.unwrap();
    assert!(replaced(first).await);
    left.send(&world.agent("a"), to("b", "here")).await.unwrap();
    assert_eq!(text(&delivery(&mut again).await), "here");
    let taken = receive(world, &left, "two", true).await.unwrap();
    assert!(replaced(again).await);
    assert_eq!(receive(world, &right, "one", false).await.unwrap_err().reason, "RECEIVER_PRESENT");
    // One that ended is in nobody's way, and nor are nameless ones in that of each other.
    drop(taken);
    let nameless = receive(world, &right, "", false).await.unwrap();
    drop(nameless);
    let last = receive(world, &left, "", false).await.unwrap();
    let long = "x".repeat(201);
    assert_eq!(receive(world, &left, &long, true).await.unwrap_err().reason, "RECEIVER_INVALID");
    drop(last);
}

pub(crate) async fn what_received_on_a_killed_replica_is_in_nobodys_way_for_long(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let killed = receive(world, &left, "one", false).await.unwrap();
    let lives = receive(world, &right, "one", false).await.unwrap();
    drop(killed);
    right.stop();
    drop(lives);
    let began = tokio::time::Instant::now();
    // Who was there goes on at once.
    drop(receive(world, &left, "one", false).await.unwrap());
    assert!(began.elapsed().as_secs() < 2);
    let third = world.replica("third").await;
    let lost = receive(world, &third, "one", false).await.unwrap();
    third.stop();
    drop(lost);
    eventually(async || receive(world, &left, "two", false).await.is_ok()).await;
}
