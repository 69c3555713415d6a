//! A store that goes back to what it was, and a log that loses its last records. Shared with the suite that runs on PostgreSQL: `harm` is
//! what happens there, while a hub runs.

use std::time::Duration;

use acb_hub_core::messages::{
    config::MessagesConfig,
    message::{Address, OutgoingMessage},
    position::first_of,
    service::Messages,
    session::SessionOptions,
};

use crate::world::{PATIENCE, World, deliveries, eventually, keyed, silent, text, to};

/// Waits until a replica has ended by itself, and says why.
async fn ended(replica: Messages) -> String {
    tokio::time::timeout(PATIENCE, replica.stopped()).await.expect("it ends in time")
}

async fn texts(world: &World, replica: &Messages, agent: &str, count: usize) -> Vec<String> {
    let mut inbox = world.receive(replica, agent).await;
    let got = deliveries(&mut inbox, count).await;
    inbox.input.ack(got.iter().map(|delivery| delivery.id).collect()).await.unwrap();
    let mut texts: Vec<String> = got.iter().map(text).collect();
    texts.sort();
    let silent = silent(&mut inbox).await;
    assert!(silent, "nothing comes after {texts:?}");
    texts
}

/// Everything after `before` is undone in the store, and not in the log. Nothing is sent afterwards.
pub(crate) async fn a_store_that_goes_back_loses_nothing<B>(
    world: &World,
    copy: impl AsyncFn() -> B,
    harm: impl AsyncFn(B),
    indexed: impl AsyncFn() -> u64,
) {
    let replica = world.replica("before").await;
    let a = world.agent("a");
    replica.send(&a, to("b", "1")).await.unwrap();
    eventually(async || indexed().await == 1).await;
    let before = copy().await;
    for number in 2..=5 {
        replica.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    replica.send(&a, OutgoingMessage::new(Address::All, "t", "6")).await.unwrap();
    eventually(async || indexed().await == 6).await;
    harm(before).await;
    // An agent that comes back at this moment must not pass over what the store has forgotten.
    let options = SessionOptions { receive: true, max_unacknowledged: 1000, take_over: true, ..SessionOptions::default() };
    let inbox = replica.open_session(world.agent("b"), options).await;
    assert_eq!(ended(replica).await, "a restart: PostgreSQL went back");
    drop(inbox);

    let replica = world.replica("after").await;
    assert_eq!(texts(world, &replica, "b", 6).await, ["1", "2", "3", "4", "5", "6"]);
    assert_eq!(texts(world, &replica, "c", 1).await, ["6"]);
    replica.send(&a, to("b", "7")).await.unwrap();
    assert_eq!(texts(world, &replica, "b", 1).await, ["7"]);
}

/// The same, and a message comes before anybody has noticed.
pub(crate) async fn a_message_after_a_store_went_back_moves_no_checkpoint_over_a_hole<B>(
    world: &World,
    copy: impl AsyncFn() -> B,
    harm: impl AsyncFn(B),
    indexed: impl AsyncFn() -> u64,
) {
    let config = MessagesConfig { look_every: Duration::from_secs(3600), ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("before").await;
    let a = world.agent("a");
    let before = copy().await;
    replica.send(&a, to("b", "1")).await.unwrap();
    eventually(async || indexed().await == 1).await;
    harm(before).await;
    // It may be accepted, or not: the replica ends.
    let sent = replica.send(&a, keyed("b", "2", "k")).await;
    assert_eq!(ended(replica).await, "a restart: PostgreSQL went back");
    let replica = world.replica("after").await;
    if sent.is_err() {
        replica.send(&a, keyed("b", "2", "k")).await.unwrap();
    }
    assert_eq!(texts(world, &replica, "b", 2).await, ["1", "2"]);
}

/// The log loses what came after the first two messages, while a hub runs; what was accepted after that is delivered.
pub(crate) async fn a_log_that_lost_its_end_has_another_life(
    world: &World,
    cut: impl AsyncFn(u64),
    indexed: impl AsyncFn() -> u64,
) {
    let replica = world.replica("before").await;
    let a = world.agent("a");
    for number in 1..=5 {
        replica.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    eventually(async || indexed().await == 5).await;
    assert_eq!(texts(world, &replica, "b", 5).await, ["1", "2", "3", "4", "5"]);
    eventually(async || world.cursor("b").await.is_some_and(|cursor| cursor.watermark == first_of(5))).await;
    cut(2).await;
    assert_eq!(ended(replica).await, "a restart: the messages log has lost records");

    // Two that start at once begin one life.
    let (left, right) = tokio::join!(world.replica("left"), world.replica("right"));
    for number in 6..=9 {
        left.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    left.send(&a, to("c", "10")).await.unwrap();
    assert_eq!(texts(world, &right, "b", 4).await, ["6", "7", "8", "9"]);
    assert_eq!(texts(world, &left, "c", 1).await, ["10"]);
    // And it lasts.
    drop((left, right));
    let replica = world.replica("last").await;
    replica.send(&a, to("b", "11")).await.unwrap();
    assert_eq!(texts(world, &replica, "b", 1).await, ["11"]);
}

/// Records take the place of the lost ones before anybody has looked.
pub(crate) async fn an_offset_that_is_given_out_again_ends_the_replica(world: &World, cut: impl AsyncFn(u64)) {
    let config = MessagesConfig { look_every: Duration::from_secs(3600), ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("before").await;
    let a = world.agent("a");
    for number in 1..=5 {
        replica.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    cut(2).await;
    replica.send(&a, keyed("b", "6", "k")).await.unwrap_err();
    assert_eq!(ended(replica).await, "a restart: the messages log has lost records");
    let replica = world.replica("after").await;
    replica.send(&a, keyed("b", "6", "k")).await.unwrap();
    assert_eq!(texts(world, &replica, "b", 3).await, ["1", "2", "6"]);
}
