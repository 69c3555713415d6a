//! Several messages of one session in one record. Shared with the suite that runs on PostgreSQL.

use std::time::Duration;

use acb_hub_core::{
    fault::Code,
    log::bus::TopicName,
    messages::{
        message::OutgoingMessage,
        service::Messages,
        session::{SessionEvent, SessionOptions},
    },
};

use crate::world::{PATIENCE, World, deliveries, eventually, keyed, silent, text, to};

const COUNT: u64 = 500;

fn names(numbers: impl Iterator<Item = u64>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// Records of the messages log.
async fn records(world: &World) -> u64 {
    let bounds = world.bus.bounds(&TopicName::system(&world.tenant, "messages")).await.unwrap();
    bounds.iter().map(|bounds| bounds.next).sum()
}

/// Sends all of these in one session, without waiting for an answer. What became of each, in their order.
async fn send_all(world: &World, replica: &Messages, messages: Vec<OutgoingMessage>) -> Vec<Result<bool, Code>> {
    let options = SessionOptions::default();
    let mut session = replica.open_session(world.agent("a"), options).await.unwrap();
    let count = messages.len() as u64;
    let sent = async {
        for (sequence, message) in (0..).zip(messages) {
            session.input.send(sequence, message).await.unwrap();
        }
    };
    let outcomes = async {
        let mut outcomes = Vec::new();
        for number in 0..count {
            let next = tokio::time::timeout(PATIENCE, session.events.next()).await.expect("an answer in time");
            let Some(SessionEvent::Sent { sequence, outcome }) = next else { panic!("an answer, not {next:?}") };
            assert_eq!(sequence, number, "answers come in the order of the messages");
            outcomes.push(outcome.map(|receipt| receipt.deduplicated).map_err(|fault| fault.code));
        }
        outcomes
    };
    tokio::join!(sent, outcomes).1
}

pub(crate) async fn what_waits_goes_into_the_log_together(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let mut live = world.receive(&right, "b").await;
    let messages: Vec<_> = (0..COUNT).map(|number| keyed("b", &number.to_string(), &number.to_string())).collect();
    assert_eq!(send_all(world, &left, messages.clone()).await, vec![Ok(false); COUNT as usize]);
    let after = records(world).await;
    assert!(after < COUNT / 2, "{COUNT} messages are in {after} records");
    let got = deliveries(&mut live, COUNT as usize).await;
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), names(0..COUNT));
    // Every third is acknowledged: most of them are in the middle of a record.
    let (done, left_over): (Vec<_>, Vec<_>) = got.into_iter().zip(0..COUNT).partition(|(_, number)| number % 3 == 0);
    live.input.ack(done.iter().map(|(delivery, _)| delivery.id).collect()).await.unwrap();
    world.acknowledged("b", &done.into_iter().map(|(delivery, _)| delivery).collect::<Vec<_>>()).await;
    drop(live);

    // On another replica, and from the index, the rest comes again in its order; sent again it is no second message.
    assert_eq!(send_all(world, &right, messages).await, vec![Ok(true); COUNT as usize]);
    let mut again = world.receive(&left, "b").await;
    let got = deliveries(&mut again, left_over.len()).await;
    assert_eq!(got.iter().map(text).collect::<Vec<_>>(), names((0..COUNT).filter(|number| number % 3 != 0)));
    again.input.ack(got.iter().map(|delivery| delivery.id).collect()).await.unwrap();
    assert!(silent(&mut again).await);
    eventually(async || world.rows("b").await == 0).await;
}

pub(crate) async fn a_used_key_fails_its_message_alone(world: &World) {
    let replica = world.replica("only").await;
    replica.send(&world.agent("a"), keyed("b", "first", "k")).await.unwrap();
    let messages = vec![to("b", "1"), keyed("b", "2", "k"), to("b", "3"), to("nobody", "4"), to("b", "5")];
    let outcomes = send_all(world, &replica, messages).await;
    assert_eq!(outcomes, [Ok(false), Err(Code::AlreadyExists), Ok(false), Err(Code::NotFound), Err(Code::Aborted)]);
    let mut inbox = world.receive(&replica, "b").await;
    let got: Vec<String> = deliveries(&mut inbox, 3).await.iter().map(text).collect();
    assert_eq!(got, ["first", "1", "3"]);
    assert!(silent(&mut inbox).await);
}

/// What nobody takes of a record goes to the dead letters one by one.
pub(crate) async fn messages_of_one_record_expire_by_themselves(world: &World) {
    let replica = world.replica("only").await;
    let soon = time::OffsetDateTime::now_utc() + Duration::from_secs(2);
    let message =
        |number: u64| OutgoingMessage { expires_at: number.is_multiple_of(2).then_some(soon), ..to("b", &number.to_string()) };
    assert_eq!(send_all(world, &replica, (0..100).map(message).collect()).await, vec![Ok(false); 100]);
    eventually(async || world.dead_letters().await.len() == 50).await;
    let mut inbox = world.receive(&replica, "b").await;
    let got: Vec<String> = deliveries(&mut inbox, 50).await.iter().map(text).collect();
    assert_eq!(got, names((0..100).filter(|number| number % 2 == 1)));
    assert_eq!(world.dead_letters().await.len(), 50);
}
