//! Requests whose time is over. Shared with the suite that runs on PostgreSQL.

use std::time::{Duration, Instant};

use acb_hub_core::{fault::Code, log::bus::TopicName, messages::message::OutgoingMessage};
use time::OffsetDateTime;

use super::world::{PATIENCE, World, delivery, eventually, keyed, silent, text, to};

pub(crate) async fn a_request_that_timed_out_is_not_carried_out_later(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b) = (world.agent("a"), world.agent("b"));
    let transfer = |key: &str| keyed("b", "transfer 100", key);
    for key in ["1", "2", "3"] {
        let fault = left.request(&a, transfer(key), Duration::from_millis(200)).await.unwrap_err();
        assert_eq!((fault.code, fault.reason), (Code::DeadlineExceeded, "NO_REPLY"));
    }
    let mut inbox = world.receive(&right, "b").await;
    right.send(&a, to("b", "hello")).await.unwrap();
    assert_eq!(text(&delivery(&mut inbox).await), "hello");

    // One that is at work on it knows how long somebody waits, and is told that nobody does any more.
    let before = OffsetDateTime::now_utc();
    let slow = async {
        let query = delivery(&mut inbox).await;
        assert!(
            query.message.expires_at <= OffsetDateTime::now_utc() + Duration::from_millis(500)
                && query.message.expires_at > before
        );
        query
    };
    let (outcome, query) = tokio::join!(left.request(&a, transfer("4"), Duration::from_millis(500)), slow);
    assert_eq!(outcome.unwrap_err().reason, "NO_REPLY");
    let reply = || OutgoingMessage::new(query.message.reply_to.clone().unwrap(), "t", "done");
    assert_eq!(right.send(&b, reply()).await.unwrap_err().reason, "REQUEST_OVER");
    // Asked again with the same key, somebody waits for it again, and nobody else is asked.
    let again = async {
        eventually(async || right.send(&b, reply()).await.is_ok()).await;
        inbox.input.ack(vec![query.id]).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(left.request(&a, transfer("4"), PATIENCE), again);
    assert_eq!(&outcome.unwrap().payload[..], b"done");
    assert!(silent(&mut inbox).await);
    assert!(world.dead_letters().await.is_empty());
}

pub(crate) async fn a_request_that_is_repeated_does_not_go_into_the_log_each_time(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b) = (world.agent("a"), world.agent("b"));
    let records = async || {
        let bounds = world.bus.bounds(&TopicName::system(&world.tenant, "messages")).await.unwrap();
        bounds.iter().map(|bounds| bounds.next).sum::<u64>()
    };
    let query = || keyed("b", "6 x 7", "k");
    // One whose time is over before the log has it never gets there.
    let empty = records().await;
    eventually(async || {
        left.request(&a, query(), Duration::from_millis(100)).await.unwrap_err();
        records().await > empty
    })
    .await;
    world.limit("a", Some(0));
    // A replica that does not know of it yet would refuse it for the limit, as anything that is new.
    for replica in [&left, &right] {
        let other = async || replica.request(&a, keyed("b", "other", "k"), Duration::from_millis(100)).await.unwrap_err();
        eventually(async || other().await.reason == "IDEMPOTENCY_KEY_REUSED").await;
    }
    let (before, began) = (records().await, Instant::now());
    for replica in [&left, &right].repeat(10) {
        let fault = replica.request(&a, query(), Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(fault.reason, "NO_REPLY");
    }
    // That somebody waits still is told every ten seconds at most.
    let (told, most) = (records().await - before, 3 + began.elapsed().as_secs() / 10);
    assert!(told <= most, "{told} records more, of {most}");

    // Who waits gets the reply, and who asks once more, too: each without a record.
    world.limit("a", None);
    let mut inbox = world.receive(&right, "b").await;
    let query = || keyed("b", "7 x 8", "l");
    let answered = async {
        let query = delivery(&mut inbox).await;
        eventually(async || records().await > before).await;
        right.send(&b, OutgoingMessage::new(query.message.reply_to.clone().unwrap(), "t", "56")).await.unwrap();
    };
    let (first, ()) = tokio::join!(left.request(&a, query(), PATIENCE), answered);
    let before = records().await;
    for replica in [&left, &right] {
        eventually(async || replica.request(&a, query(), PATIENCE).await.as_ref() == first.as_ref()).await;
    }
    assert_eq!(records().await, before);
}
