//! Messages to several agents: one record, and a mailbox for each. Shared with the suite that runs on PostgreSQL.

use std::time::Duration;

use acb_hub_core::{
    directory::agent::{Agent, Role},
    fault::Code,
    log::bus::TopicName,
    messages::{
        config::MessagesConfig,
        letter::{DeadLetter, LetterFilter, LetterReason},
        letters::Selection,
        message::{Address, OutgoingMessage},
        session::{SessionEvent, SessionOptions},
    },
};
use time::OffsetDateTime;

use crate::world::{World, deliveries, delivery, event, eventually, keyed, silent, text, to};

fn several(agents: &[&str], text: &str) -> OutgoingMessage {
    let to = Address::agents(agents.iter().map(|name| (*name).to_owned()).collect()).unwrap();
    OutgoingMessage::new(to, "t", text.to_owned())
}

/// Records of the messages log.
async fn records(world: &World) -> u64 {
    let bounds = world.bus.bounds(&TopicName::system(&world.tenant, "messages")).await.unwrap();
    bounds.iter().map(|bounds| bounds.next).sum()
}

async fn letters(replica: &acb_hub_core::messages::service::Messages) -> Vec<DeadLetter> {
    let admin = Agent { role: Role::Admin, ..crate::world::agent("root", OffsetDateTime::now_utc()) };
    replica.dead_letters().list(&admin, LetterFilter::default(), 100, "").await.unwrap().letters
}

pub(crate) async fn a_message_to_several_is_one_record_and_each_takes_it(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    // One at this replica, one at the other, one that is away, and one that is not named.
    let (mut b, mut c) = (world.receive(&left, "b").await, world.receive(&right, "c").await);
    let mut sender = world.receive(&right, "a").await;
    let before = records(world).await;
    let receipt = left.send(&a, several(&["d", "b", "c"], "for three")).await.unwrap();
    assert_eq!(records(world).await, before + 1);
    let expected = Address::agents(["b", "c", "d"].map(str::to_owned).into()).unwrap();
    let (at_b, at_c) = (delivery(&mut b).await, delivery(&mut c).await);
    for got in [&at_b, &at_c] {
        assert_eq!((got.message.id, text(got).as_str(), &got.message.to), (receipt.id, "for three", &expected));
        assert!(!got.redelivered);
    }
    assert!(silent(&mut sender).await);
    // Each acknowledges for itself.
    b.input.ack(vec![at_b.id]).await.unwrap();
    world.acknowledged("b", std::slice::from_ref(&at_b)).await;
    eventually(async || world.rows("b").await == 0).await;
    assert_eq!((world.rows("c").await, world.rows("d").await), (1, 1));
    for (name, unread) in [("b", 0), ("c", 1), ("d", 1)] {
        let agent = world.agent(name);
        eventually(async || left.unread().count(&agent, "").await.unwrap().messages == unread).await;
    }
    // Who is away finds it in the index, at either replica; who did not acknowledge it gets it again, and nobody else does.
    let mut d = world.receive(&left, "d").await;
    assert_eq!(delivery(&mut d).await.message.id, receipt.id);
    drop((b, c));
    let (mut b, mut c) = (world.receive(&right, "b").await, world.receive(&left, "c").await);
    let again = delivery(&mut c).await;
    assert_eq!((again.message.id, again.redelivered), (receipt.id, true));
    assert!(silent(&mut b).await && silent(&mut c).await && silent(&mut d).await);
}

pub(crate) async fn a_repeated_message_to_several_is_one_message(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let keyed_to = |agents: &[&str]| OutgoingMessage { idempotency_key: "k".to_owned(), ..several(agents, "x") };
    let first = left.send(&a, keyed_to(&["b", "c"])).await.unwrap();
    // The order of the names says nothing.
    let again = right.send(&a, keyed_to(&["c", "b"])).await.unwrap();
    assert_eq!((again.id, again.deduplicated), (first.id, true));
    for other in [keyed_to(&["b", "d"]), keyed_to(&["b", "c", "d"]), keyed("b", "x", "k")] {
        assert_eq!(right.send(&a, other).await.unwrap_err().reason, "IDEMPOTENCY_KEY_REUSED");
    }
    let mut inbox = world.receive(&right, "b").await;
    assert_eq!(delivery(&mut inbox).await.message.id, first.id);
    assert!(silent(&mut inbox).await);
    assert_eq!(world.rows("d").await, 0);
}

pub(crate) async fn a_message_to_several_is_sent_to_all_of_them_or_to_none(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica, "b").await;
    let before = records(world).await;
    let fault = replica.send(&a, several(&["b", "nobody"], "x")).await.unwrap_err();
    assert_eq!((fault.code, fault.reason), (Code::NotFound, "RECIPIENT_NOT_FOUND"));
    assert!(fault.message.contains("\"nobody\""), "{}", fault.message);
    let fault = replica.request(&a, several(&["b", "c"], "x"), Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(fault.reason, "RECIPIENTS_INVALID");
    let reply_to = Some(Address::agents(vec!["b".to_owned(), "c".to_owned()]).unwrap());
    let fault = replica.send(&a, OutgoingMessage { reply_to, ..to("b", "x") }).await.unwrap_err();
    assert_eq!(fault.reason, "RECIPIENTS_INVALID");
    assert_eq!(records(world).await, before);
    assert!(silent(&mut inbox).await);
    // To itself among others.
    replica.send(&a, several(&["a", "b"], "both")).await.unwrap();
    let mut own = world.receive(&replica, "a").await;
    assert_eq!((text(&delivery(&mut own).await), text(&delivery(&mut inbox).await)), ("both".to_owned(), "both".to_owned()));
}

pub(crate) async fn who_of_several_never_took_it_has_a_dead_letter(world: &World) {
    let config = MessagesConfig { redeliver_after: Duration::from_millis(100), max_attempts: 2, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let expires_at = Some(OffsetDateTime::now_utc() + Duration::from_secs(2));
    let (mut b, mut c) = (world.receive(&replica, "b").await, world.receive(&replica, "c").await);
    let sent = replica.send(&a, OutgoingMessage { expires_at, ..several(&["b", "c", "d"], "lost") }).await.unwrap();
    // One takes it, one tries it too often, one is away until it expires.
    let got = delivery(&mut b).await;
    b.input.ack(vec![got.id]).await.unwrap();
    deliveries(&mut c, 2).await;
    eventually(async || letters(&replica).await.len() == 2).await;
    let all = letters(&replica).await;
    assert!(all.iter().all(|letter| letter.message_id == sent.id));
    let mut whose: Vec<_> = all.iter().map(|letter| (letter.recipient_name.as_str(), letter.reason)).collect();
    whose.sort_by_key(|(name, _)| *name);
    assert_eq!(whose, [("c", LetterReason::Attempts), ("d", LetterReason::Expired)]);
    for name in ["b", "c", "d"] {
        eventually(async || world.rows(name).await == 0).await;
    }
    // A letter is its recipient's alone, and is sent again to that one alone.
    let letter = all.iter().find(|letter| letter.recipient_name == "d").unwrap();
    let selection = || Selection::Named(vec![letter.id]);
    let refused = replica.dead_letters().replay(&world.agent("c"), selection(), None).await.unwrap();
    assert_eq!(refused.outcomes[0].1.as_ref().unwrap_err().reason, "DEAD_LETTER_NOT_FOUND");
    replica.dead_letters().replay(&world.agent("d"), selection(), None).await.unwrap().outcomes[0].1.as_ref().unwrap();
    let mut d = world.receive(&replica, "d").await;
    let got = delivery(&mut d).await;
    assert_eq!((text(&got).as_str(), got.message.replayed_from), ("lost", Some(sent.id)));
    assert_eq!(got.message.to, Address::Agent("d".to_owned()));
    assert!(silent(&mut b).await && silent(&mut c).await);
}

pub(crate) async fn each_of_several_that_are_away_has_a_dead_letter(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let expires_at = Some(OffsetDateTime::now_utc() + Duration::from_millis(500));
    let mut sent = Vec::new();
    for number in 0..3 {
        let message = OutgoingMessage { expires_at, ..several(&["b", "c", "d"], &number.to_string()) };
        sent.extend([replica.send(&a, message).await.unwrap().id; 3]);
    }
    eventually(async || letters(&replica).await.len() == sent.len()).await;
    let all = letters(&replica).await;
    assert_eq!(all.iter().map(|letter| letter.message_id).collect::<Vec<_>>(), sent);
    for name in ["b", "c", "d"] {
        assert_eq!(all.iter().filter(|letter| letter.recipient_name == name).count(), 3);
        eventually(async || world.rows(name).await == 0).await;
    }
}

pub(crate) async fn messages_to_several_keep_their_order_among_others(world: &World) {
    const MESSAGES: u64 = 300;
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let mut live = world.receive(&right, "b").await;
    let mut outbox = left.open_session(world.agent("a"), SessionOptions::default()).await.unwrap();
    let message = |number: u64| {
        let text = number.to_string();
        if number.is_multiple_of(3) { several(&["b", "c", "d"], &text) } else { to("b", &text) }
    };
    let sent = async {
        for number in 0..MESSAGES {
            outbox.input.send(number, message(number)).await.unwrap();
        }
    };
    let receipts = async {
        for _ in 0..MESSAGES {
            let SessionEvent::Sent { outcome: Ok(_), .. } = crate::scenarios::event_of(&mut outbox.events).await else {
                panic!("a receipt")
            };
        }
    };
    tokio::join!(sent, receipts);
    let all: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(deliveries(&mut live, all.len()).await.iter().map(text).collect::<Vec<_>>(), all);
    let third: Vec<String> = (0..MESSAGES).filter(|number| number.is_multiple_of(3)).map(|number| number.to_string()).collect();
    for name in ["c", "d"] {
        let mut inbox = world.receive(&left, name).await;
        assert_eq!(deliveries(&mut inbox, third.len()).await.iter().map(text).collect::<Vec<_>>(), third);
        assert!(silent(&mut inbox).await);
    }
    assert!(silent(&mut live).await);
}

/// More recipients than rows of one write of the index.
pub(crate) async fn every_row_of_many_lists_is_written(world: &World) {
    const MESSAGES: usize = 800;
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let mut outbox = left.open_session(world.agent("a"), SessionOptions::default()).await.unwrap();
    let sent = async {
        for number in 0..MESSAGES {
            outbox.input.send(number as u64, several(&["a", "b", "c", "d"], "x")).await.unwrap();
        }
    };
    let receipts = async {
        for _ in 0..MESSAGES {
            crate::scenarios::event_of(&mut outbox.events).await;
        }
    };
    tokio::join!(sent, receipts);
    for name in ["a", "b", "c", "d"] {
        eventually(async || world.rows(name).await == MESSAGES).await;
    }
    right.stop();
    let mut inbox = world.receive(&left, "d").await;
    let SessionEvent::Delivery(first) = event(&mut inbox).await else { panic!("a delivery") };
    assert_eq!(text(&first), "x");
}
