//! Dead letters: listed, looked into, sent again, dropped. Shared with the suite that runs on PostgreSQL.

use std::time::Duration;

use acb_hub_core::{
    directory::agent::{Agent, Role},
    fault::Fault,
    log::{
        bus::{Record, TopicName},
        position::LogPosition,
    },
    messages::{
        config::MessagesConfig,
        letter::{DeadLetter, LetterFilter, LetterId, LetterReason, LetterRecipient, LetterState},
        letters::{Selection, Settled, SettledPage},
        message::{Address, OutgoingMessage},
        service::Messages,
    },
};
use bytes::Bytes;
use time::OffsetDateTime;

use crate::world::{World, deliveries, delivery, eventually, silent, text, to};

fn admin() -> Agent {
    Agent { role: Role::Admin, ..crate::world::agent("root", OffsetDateTime::now_utc()) }
}

fn soon(message: OutgoingMessage) -> OutgoingMessage {
    OutgoingMessage { expires_at: Some(OffsetDateTime::now_utc() + Duration::from_millis(100)), ..message }
}

async fn list(replica: &Messages, caller: &Agent, filter: &LetterFilter) -> Vec<DeadLetter> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        // Small pages, so that there are some.
        let page = replica.dead_letters().list(caller, filter.clone(), 2, &token).await.unwrap();
        assert!(page.letters.len() <= 2);
        all.extend(page.letters);
        token = page.next_page_token;
        if token.is_empty() {
            return all;
        }
    }
}

async fn until_listed(replica: &Messages, count: usize) -> Vec<DeadLetter> {
    let all = LetterFilter { settled: true, ..LetterFilter::default() };
    eventually(async || list(replica, &admin(), &all).await.len() == count).await;
    list(replica, &admin(), &all).await
}

fn named(ids: &[LetterId]) -> Selection {
    Selection::Named(ids.to_vec())
}

fn one(page: Result<SettledPage, Fault>) -> Result<Settled, Fault> {
    let [(_, outcome)] = page?.outcomes.try_into().expect("one outcome");
    outcome
}

pub(crate) async fn a_dead_letter_is_replayed_once(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, c) = (world.agent("a"), world.agent("c"));
    left.send(&a, soon(OutgoingMessage { correlation_id: "case".to_owned(), ..to("c", "lost") })).await.unwrap();
    let letters = until_listed(&right, 1).await;
    let letter = &letters[0];
    assert_eq!((letter.reason, letter.attempts, letter.state), (LetterReason::Expired, 0, LetterState::Open));
    assert_eq!(
        (letter.sender_name.as_str(), letter.recipient_name.as_str(), letter.topic.as_str(), letter.size),
        ("a", "c", "t", 4)
    );
    let (found, message) = right.dead_letters().get(&c, letter.id).await.unwrap();
    assert_eq!((found.id, &message.payload[..], message.id), (letter.id, &b"lost"[..], letter.message_id));

    // Both at once, by two replicas.
    let (letters_left, letters_right) = (left.dead_letters(), right.dead_letters());
    let (first, second) =
        tokio::join!(letters_left.replay(&c, named(&[letter.id]), None), letters_right.replay(&c, named(&[letter.id]), None));
    let (first, second) = (one(first).unwrap(), one(second).unwrap());
    assert_eq!(first.state, second.state);
    let again = one(right.dead_letters().replay(&c, named(&[letter.id]), None).await).unwrap();
    assert_eq!((again.state, again.before), (first.state, true));
    let mut inbox = world.receive(&left, "c").await;
    let got = delivery(&mut inbox).await;
    assert_eq!((text(&got).as_str(), got.message.from.as_str(), got.message.correlation_id.as_str()), ("lost", "a", "case"));
    assert_eq!((got.message.replayed_from, LetterState::Replayed(got.message.id)), (Some(letter.message_id), first.state));
    assert!(silent(&mut inbox).await, "once");
    // It is listed no more, unless asked for.
    assert!(list(&left, &c, &LetterFilter::default()).await.is_empty());
    let settled = list(&left, &c, &LetterFilter { settled: true, ..LetterFilter::default() }).await;
    assert_eq!(settled.iter().map(|letter| letter.state).collect::<Vec<_>>(), [first.state]);
    assert!(settled[0].settled_at.is_some());
    assert_eq!(one(left.dead_letters().discard(&c, named(&[letter.id])).await).unwrap_err().reason, "DEAD_LETTER_REPLAYED");
}

pub(crate) async fn dead_letters_are_found_by_filter_and_shown_to_whom_they_were_for(world: &World) {
    let config = MessagesConfig { redeliver_after: Duration::from_millis(50), max_attempts: 2, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let (a, b, c) = (world.agent("a"), world.agent("b"), world.agent("c"));
    let mut inbox = world.receive(&replica, "b").await;
    replica.send(&a, to("b", "poison")).await.unwrap();
    replica.send(&a, OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "for both")).await.unwrap();
    let reading = async { while inbox.events.next().await.is_some() {} };
    tokio::select! {
        () = reading => panic!("the session ended"),
        letters = until_listed(&replica, 2) => drop(letters),
    }
    drop(inbox);
    let before = OffsetDateTime::now_utc();
    for number in 0..5 {
        replica.send(&c, soon(to("a", &number.to_string()))).await.unwrap();
    }
    until_listed(&replica, 7).await;
    replica.send(&a, soon(OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "gone"))).await.unwrap();
    let all = until_listed(&replica, 8).await;
    assert!(all.is_sorted_by_key(|letter| letter.message_id));

    let count = async |caller: &Agent, filter: LetterFilter| list(&replica, caller, &filter).await.len();
    let any = LetterFilter::default;
    let attempts = LetterFilter { reason: Some(LetterReason::Attempts), ..any() };
    let given_up = list(&replica, &admin(), &attempts).await;
    let shown: Vec<(&str, u32)> = given_up.iter().map(|letter| (letter.recipient_name.as_str(), letter.attempts)).collect();
    assert_eq!(shown, [("b", 2), ("b", 2)], "what a member gave up on is that member's");
    assert_eq!(count(&admin(), LetterFilter { reason: Some(LetterReason::Expired), ..any() }).await, 6);
    assert_eq!(count(&admin(), LetterFilter { sender: Some("c".to_owned()), ..any() }).await, 5);
    let recipients = [
        (LetterRecipient::Agent("a".to_owned()), 5),
        (LetterRecipient::Own(b.id), 2),
        (LetterRecipient::Group("pair".to_owned()), 1),
        (LetterRecipient::Agent("pair".to_owned()), 0),
        (LetterRecipient::All, 0),
    ];
    for (recipient, expected) in recipients {
        assert_eq!(
            count(&admin(), LetterFilter { recipient: Some(recipient.clone()), ..any() }).await,
            expected,
            "{recipient:?}"
        );
    }
    assert_eq!(count(&admin(), LetterFilter { until: Some(before), ..any() }).await, 2);
    assert_eq!(count(&admin(), LetterFilter { since: Some(before), ..any() }).await, 6);

    // Everybody else's are not there.
    assert_eq!((count(&a, any()).await, count(&b, any()).await, count(&c, any()).await), (5, 2, 0));
    let recipient = Some(LetterRecipient::Own(b.id));
    assert_eq!(count(&c, LetterFilter { recipient, ..any() }).await, 0);
    let foreign = given_up[0].id;
    let dead_letters = replica.dead_letters();
    assert_eq!(dead_letters.get(&c, foreign).await.unwrap_err().reason, "DEAD_LETTER_NOT_FOUND");
    assert_eq!(one(dead_letters.replay(&c, named(&[foreign]), None).await).unwrap_err().reason, "DEAD_LETTER_NOT_FOUND");
    assert_eq!(one(dead_letters.discard(&c, named(&[foreign])).await).unwrap_err().reason, "DEAD_LETTER_NOT_FOUND");
    let to_other = dead_letters.replay(&b, named(&[foreign]), Some(Address::Agent("c".to_owned()))).await;
    assert_eq!(to_other.unwrap_err().reason, "ROLE_LACKS_PERMISSION");
    assert_eq!(dead_letters.list(&b, any(), 0, "noise").await.unwrap_err().reason, "PAGE_TOKEN_INVALID");
    assert_eq!(dead_letters.discard(&b, named(&[])).await.unwrap_err().reason, "DEAD_LETTERS_UNNAMED");
}

pub(crate) async fn dead_letters_are_replayed_and_dropped_by_filter(world: &World) {
    let replica = world.replica("only").await;
    let (a, c) = (world.agent("a"), world.agent("c"));
    for number in 0..5 {
        replica.send(&a, soon(to("c", &number.to_string()))).await.unwrap();
    }
    replica.send(&c, soon(to("a", "another's"))).await.unwrap();
    until_listed(&replica, 6).await;
    let filter = LetterFilter { sender: Some("a".to_owned()), ..LetterFilter::default() };
    let dead_letters = replica.dead_letters();
    let matching =
        |page_token: &str| Selection::Matching { filter: filter.clone(), page_size: 2, page_token: page_token.to_owned() };
    let page = dead_letters.replay(&admin(), matching(""), Some(Address::Agent("b".to_owned()))).await.unwrap();
    assert_eq!(page.outcomes.len(), 2);
    let page =
        dead_letters.replay(&admin(), matching(&page.next_page_token), Some(Address::Agent("b".to_owned()))).await.unwrap();
    assert!(page.outcomes.iter().all(|(_, outcome)| outcome.as_ref().is_ok_and(|settled| !settled.before)));
    let mut inbox = world.receive(&replica, "b").await;
    let came: Vec<String> = deliveries(&mut inbox, 4).await.iter().map(text).collect();
    assert_eq!(came, ["0", "1", "2", "3"], "in their order");
    // The rest of them is dropped, and what was is not dropped again.
    let page = dead_letters.discard(&c, matching("")).await.unwrap();
    assert_eq!((page.outcomes.len(), page.next_page_token.as_str()), (1, ""));
    let dropped = page.outcomes[0].0;
    assert!(dead_letters.discard(&c, matching("")).await.unwrap().outcomes.is_empty());
    let again = one(dead_letters.discard(&c, named(&[dropped])).await).unwrap();
    assert_eq!(again, Settled { state: LetterState::Dropped, before: true });
    assert_eq!(one(dead_letters.replay(&c, named(&[dropped]), None).await).unwrap_err().reason, "DEAD_LETTER_DROPPED");
    assert_eq!(list(&replica, &admin(), &LetterFilter::default()).await.len(), 1);
}

/// As where a replica ended right after the append, and the next one appended the letter again.
pub(crate) async fn a_dead_letter_without_a_row_is_found_and_a_double_is_one(world: &World) {
    let sender = world.replica("sender").await;
    sender.send(&world.agent("a"), to("c", "lost")).await.unwrap();
    let topic = TopicName::system(&world.tenant, "messages");
    let mut logged = Vec::new();
    for partition in 0..world.bus.topic(&topic).await.unwrap().partitions {
        logged.extend(world.bus.read(&topic, partition, 0, 10).await.unwrap());
    }
    let source = logged.remove(0);
    let mut headers = source.record.headers.clone();
    headers.push(("acb-reason".to_owned(), Bytes::from_static(b"not acknowledged after 10 attempts")));
    headers.push(("acb-recipient".to_owned(), Bytes::from(world.agent("c").id.to_string())));
    let record = Record { headers, ..source.record };
    let dead_letters = TopicName::system(&world.tenant, "dlq");
    let noise = Record { value: Some(Bytes::from_static(b"\xff\xff")), ..Record::default() };
    for record in [record.clone(), noise, record] {
        world.bus.append(&dead_letters, 0, record).await.unwrap().await.unwrap();
    }
    let next = world.replica("next").await;
    let letters = until_listed(&next, 1).await;
    assert_eq!((letters[0].reason, letters[0].attempts), (LetterReason::Attempts, 10));
    assert_eq!(letters[0].place.offset, 2, "the one that the log keeps longer");
    let (_, message) = next.dead_letters().get(&world.agent("c"), letters[0].id).await.unwrap();
    assert_eq!(&message.payload[..], b"lost");
    // Nor is there a second one later.
    let settled = one(next.dead_letters().replay(&world.agent("c"), named(&[letters[0].id]), None).await).unwrap();
    assert!(!settled.before);
    let epoch = world.bus.topic(&dead_letters).await.unwrap().epoch;
    world.letters.unindex_letters(epoch, 0, 0).await.unwrap();
    eventually(async || world.letters.letters_indexed(epoch, 1).await.unwrap() == [3]).await;
    let kept = until_listed(&next, 1).await;
    assert_eq!(kept[0].state, settled.state);

    // What the log no longer holds is said, and then swept.
    let elsewhere = LogPosition { offset: 1, ..kept[0].place };
    let moved = DeadLetter { place: elsewhere, ..kept[0].clone() };
    world.letters.index_letters(epoch, 0, 3, &[moved]).await.unwrap();
    let gone = next.dead_letters().get(&world.agent("c"), kept[0].id).await.unwrap_err();
    assert_eq!(gone.reason, "DEAD_LETTER_FORGOTTEN");
    assert_eq!(world.letters.forget_letters(epoch, &[(0, 1)], 10).await.unwrap(), 0);
    assert_eq!(world.letters.forget_letters(epoch, &[(0, 2)], 10).await.unwrap(), 1);
    assert!(until_listed(&next, 0).await.is_empty());
}
