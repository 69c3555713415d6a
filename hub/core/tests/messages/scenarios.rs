//! What the message service promises, on whichever ports. Shared with the suite that runs on PostgreSQL.

use std::time::Duration;

use acb_hub_core::{
    directory::membership::TOLERANCE,
    fault::Code,
    messages::{
        config::MessagesConfig,
        envelope::Envelope,
        message::{Address, MAX_ENVELOPE_BYTES, OutgoingMessage},
        ports::MailboxAddress,
        session::{SessionEvent, SessionOptions},
    },
};

use super::world::{PATIENCE, World, deliveries, delivery, event, eventually, keyed, silent, text, to};

pub(crate) async fn a_pipelined_session_keeps_its_order_on_another_replica(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let mut inbox = world.receive(&right, "b").await;
    let mut outbox = left.open_session(world.agent("a"), SessionOptions::default()).await.unwrap();
    let sent = async {
        for number in 0..60 {
            outbox.input.send(number, to("b", &number.to_string())).await.unwrap();
        }
    };
    let receipts = async {
        for number in 0..60 {
            let SessionEvent::Sent { sequence, outcome } = event_of(&mut outbox.events).await else { panic!("a receipt") };
            assert_eq!(sequence, number);
            assert!(!outcome.unwrap().deduplicated);
        }
    };
    let ((), (), got) = tokio::join!(sent, receipts, deliveries(&mut inbox, 60));
    let texts: Vec<String> = got.iter().map(text).collect();
    assert_eq!(texts, (0..60).map(|number| number.to_string()).collect::<Vec<_>>());
    assert!(got.iter().all(|delivery| !delivery.redelivered && delivery.attempt == 1));
}

pub(crate) async fn a_repeated_message_is_one_message_on_any_replica(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let mut inbox = world.receive(&left, "b").await;
    let a = world.agent("a");
    let (one, two) = tokio::join!(left.send(&a, keyed("b", "x", "k")), right.send(&a, keyed("b", "x", "k")));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.id, two.id);
    assert_ne!(one.deduplicated, two.deduplicated);
    for replica in [&left, &right] {
        let fault = replica.send(&a, keyed("b", "other", "k")).await.unwrap_err();
        assert_eq!((fault.code, fault.reason), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
    }
    assert_eq!(delivery(&mut inbox).await.message.id, one.id);
    assert!(silent(&mut inbox).await);
}

pub(crate) async fn a_message_that_is_there_is_sent_again_beyond_any_limit(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let first = replica.send(&a, keyed("b", "x", "k")).await.unwrap();
    world.limit("a", Some(0));
    let again = replica.send(&a, keyed("b", "x", "k")).await.unwrap();
    assert_eq!((again.id, again.deduplicated), (first.id, true));
    let fault = replica.send(&a, keyed("b", "x", "other")).await.unwrap_err();
    assert_eq!((fault.code, fault.reason), (Code::ResourceExhausted, "RATE_LIMIT_EXCEEDED"));
    // Others go on, and so does this one once it may: also on a session that was open before.
    replica.send(&world.agent("c"), to("b", "y")).await.unwrap();
    let mut session = replica.open_session(a.clone(), SessionOptions::default()).await.unwrap();
    session.input.send(1, to("b", "z")).await.unwrap();
    let SessionEvent::Sent { outcome: Err(_), .. } = event(&mut session).await else { panic!("a refusal") };
    world.limit("a", None);
    session.input.send(1, to("b", "z")).await.unwrap();
    let SessionEvent::Sent { outcome: Ok(_), .. } = event(&mut session).await else { panic!("a receipt") };
}

pub(crate) async fn a_restarted_replica_still_knows_what_was_sent(world: &World) {
    let a = world.agent("a");
    let first = world.replica("first").await;
    let receipt = first.send(&a, keyed("b", "x", "k")).await.unwrap();
    drop(first);
    let second = world.replica("second").await;
    let again = second.send(&a, keyed("b", "x", "k")).await.unwrap();
    assert_eq!((again.id, again.deduplicated), (receipt.id, true));
    let mut inbox = world.receive(&second, "b").await;
    assert_eq!(delivery(&mut inbox).await.message.id, receipt.id);
    assert!(silent(&mut inbox).await);
}

pub(crate) async fn an_offline_agent_finds_its_messages_and_its_groups(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    for number in 0..70 {
        left.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    let group = |text: &str| OutgoingMessage::new(Address::Group("pair".to_owned()), "t", text.to_owned());
    left.send(&a, group("to the group")).await.unwrap();
    left.send(&world.agent("b"), group("from a member")).await.unwrap();
    left.send(&a, OutgoingMessage::new(Address::All, "t", "to all")).await.unwrap();

    let mut b = world.receive(&right, "b").await;
    let got = deliveries(&mut b, 72).await;
    let texts: Vec<String> = got.iter().map(text).collect();
    let expected: Vec<String> =
        (0..70).map(|number| number.to_string()).chain(["to the group".into(), "to all".into()]).collect();
    assert_eq!(texts, expected);
    assert!(silent(&mut b).await);
    let mut c = world.receive(&right, "c").await;
    let mut texts: Vec<String> = deliveries(&mut c, 3).await.iter().map(text).collect();
    texts.sort();
    assert_eq!(texts, ["from a member", "to all", "to the group"]);
    // It left the group before.
    let mut d = world.receive(&right, "d").await;
    assert_eq!(text(&delivery(&mut d).await), "to all");
    assert!(silent(&mut d).await);
    let mut sender = world.receive(&right, "a").await;
    assert!(silent(&mut sender).await);
    // Live, by the same rules.
    left.send(&a, group("again")).await.unwrap();
    assert_eq!(text(&delivery(&mut b).await), "again");
    assert_eq!(text(&delivery(&mut c).await), "again");
    assert!(silent(&mut d).await && silent(&mut sender).await);
}

pub(crate) async fn a_killed_replica_loses_nothing_and_flags_what_it_may_have_delivered(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let mut inbox = world.receive(&left, "b").await;
    for number in 0..6 {
        right.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    let got = deliveries(&mut inbox, 6).await;
    inbox.input.ack(vec![got[0].id, got[1].id, got[4].id]).await.unwrap();
    world.acknowledged("b", &[got[0].clone(), got[1].clone(), got[4].clone()]).await;
    drop(left);
    let mut inbox = world.receive(&right, "b").await;
    let again = deliveries(&mut inbox, 3).await;
    let texts: Vec<String> = again.iter().map(text).collect();
    assert_eq!(texts, ["2", "3", "5"]);
    assert!(again.iter().all(|delivery| delivery.redelivered && delivery.attempt == 1));
    assert!(silent(&mut inbox).await);
}

pub(crate) async fn what_a_crashed_session_delivered_is_flagged_however_late_it_comes_again(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let mut inbox = world.receive(&left, "b").await;
    for number in 0..3 {
        right.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    deliveries(&mut inbox, 3).await;
    drop(left);
    // The next session ends in peace before it has come to the others.
    let mut inbox = world.receive_at_most(&right, "b", 1).await;
    let got = delivery(&mut inbox).await;
    assert_eq!((text(&got), got.redelivered), ("0".to_owned(), true));
    inbox.input.ack(vec![got.id]).await.unwrap();
    drop(inbox);
    world.acknowledged("b", &[got]).await;
    let mut inbox = world.receive(&right, "b").await;
    let got = deliveries(&mut inbox, 2).await;
    let flags: Vec<(String, bool)> = got.iter().map(|delivery| (text(delivery), delivery.redelivered)).collect();
    assert_eq!(flags, [("1".to_owned(), true), ("2".to_owned(), true)]);
}

pub(crate) async fn a_newer_session_ends_the_older_on_another_replica(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let mut older = world.receive(&left, "b").await;
    left.send(&a, to("b", "one")).await.unwrap();
    delivery(&mut older).await;
    let mut newer = world.receive(&right, "b").await;
    assert_eq!(event(&mut older).await, SessionEvent::Replaced);
    assert!(older.events.next().await.is_none());
    let again = delivery(&mut newer).await;
    assert_eq!((text(&again), again.redelivered), ("one".to_owned(), true));
    newer.input.ack(vec![again.id]).await.unwrap();
    world.acknowledged("b", &[again]).await;
    // On one replica, too.
    let mut newest = world.receive(&right, "b").await;
    assert_eq!(event(&mut newer).await, SessionEvent::Replaced);
    assert!(silent(&mut newest).await);
}

pub(crate) async fn a_reply_finds_its_caller_on_another_replica(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b) = (world.agent("a"), world.agent("b"));
    let mut inbox = world.receive(&right, "b").await;
    let answer = async {
        let query = delivery(&mut inbox).await;
        let reply_to = query.message.reply_to.clone().unwrap();
        let reply = OutgoingMessage::new(reply_to, "t", "42");
        right.send(&b, reply.clone()).await.unwrap();
        inbox.input.ack(vec![query.id]).await.unwrap();
        reply
    };
    let (reply, late) = tokio::join!(left.request(&a, to("b", "6 x 7"), Duration::from_secs(10)), answer);
    let reply = reply.unwrap();
    assert_eq!((&reply.payload[..], reply.from.as_str()), (&b"42"[..], "b"));
    // Nobody waits any more, and no mailbox has it.
    right.send(&b, late).await.unwrap();
    let mut caller = world.receive(&left, "a").await;
    assert!(silent(&mut caller).await);
    let fault = left.request(&a, to("c", "?"), Duration::from_millis(200)).await.unwrap_err();
    assert_eq!((fault.code, fault.reason), (Code::DeadlineExceeded, "NO_REPLY"));
}

pub(crate) async fn a_repeated_request_gets_the_same_reply_on_any_replica(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b) = (world.agent("a"), world.agent("b"));
    let mut inbox = world.receive(&right, "b").await;
    let query = || keyed("b", "6 x 7", "k");
    let answer = async {
        let query = delivery(&mut inbox).await;
        let reply = |text| OutgoingMessage::new(query.message.reply_to.clone().unwrap(), "t", text);
        right.send(&b, reply("42")).await.unwrap();
        right.send(&b, reply("43")).await.unwrap();
        inbox.input.ack(vec![query.id]).await.unwrap();
        world.acknowledged("b", &[query]).await;
    };
    let patience = Duration::from_secs(10);
    let (first, ()) = tokio::join!(left.request(&a, query(), patience), answer);
    let first = first.unwrap();
    assert_eq!(&first.payload[..], b"42");
    // Its answer was lost on the way. Nobody is asked again.
    for replica in [&left, &right] {
        assert_eq!(replica.request(&a, query(), patience).await.unwrap(), first);
    }
    drop((left, right));
    let third = world.replica("third").await;
    assert_eq!(third.request(&a, query(), patience).await.unwrap(), first);
    let mut inbox = world.receive(&third, "b").await;
    assert!(silent(&mut inbox).await);
    let fault = third.request(&a, keyed("b", "other", "k"), patience).await.unwrap_err();
    assert_eq!(fault.reason, "IDEMPOTENCY_KEY_REUSED");
}

pub(crate) async fn what_nobody_acknowledges_goes_to_the_dead_letters(world: &World) {
    let config = MessagesConfig { redeliver_after: Duration::from_millis(100), max_attempts: 3, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica, "b").await;
    replica.send(&a, to("b", "poison")).await.unwrap();
    let got = deliveries(&mut inbox, 3).await;
    let flags: Vec<(bool, u32)> = got.iter().map(|delivery| (delivery.redelivered, delivery.attempt)).collect();
    assert_eq!(flags, [(false, 1), (true, 2), (true, 3)]);
    eventually(async || world.dead_letters().await.len() == 1).await;
    assert!(silent(&mut inbox).await);
    // Nobody is there for this one.
    let soon = time::OffsetDateTime::now_utc() + Duration::from_millis(100);
    replica.send(&a, OutgoingMessage { expires_at: Some(soon), ..to("c", "too late") }).await.unwrap();
    eventually(async || world.dead_letters().await.len() == 2).await;
    let reasons: Vec<String> = world
        .dead_letters()
        .await
        .iter()
        .flat_map(|logged| logged.record.headers.iter().filter(|(name, _)| name == "acb-reason"))
        .map(|(_, value)| String::from_utf8(value.to_vec()).unwrap())
        .collect();
    assert_eq!(reasons, ["not acknowledged after 3 attempts", "expired"]);
    let mut c = world.receive(&replica, "c").await;
    assert!(silent(&mut c).await);
}

pub(crate) async fn what_an_agent_is_still_at_work_on_is_no_dead_letter(world: &World) {
    let config = MessagesConfig { redeliver_after: Duration::from_millis(100), max_attempts: 3, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica, "b").await;
    replica.send(&a, to("b", "long work")).await.unwrap();
    assert_eq!(delivery(&mut inbox).await.attempt, 1);
    for _ in 0..8 {
        let again = delivery(&mut inbox).await;
        assert_eq!((again.redelivered, again.attempt), (true, 2));
        // Twice said is once said.
        inbox.input.in_progress(vec![again.id, again.id]).await.unwrap();
    }
    drop(inbox);
    // Until the last of it is written.
    tokio::time::sleep(Duration::from_millis(500)).await;
    // What was taken back counts in no other session either.
    let mut inbox = world.receive(&replica, "b").await;
    let got = deliveries(&mut inbox, 3).await;
    let flags: Vec<(bool, u32)> = got.iter().map(|delivery| (delivery.redelivered, delivery.attempt)).collect();
    assert_eq!(flags, [(true, 1), (true, 2), (true, 3)]);
    assert!(world.dead_letters().await.is_empty());
    eventually(async || world.dead_letters().await.len() == 1).await;
}

/// Two replicas sweep at the same time, and a session holds one of the messages, unacknowledged and unwritten.
pub(crate) async fn what_expires_is_dead_lettered_once(world: &World) {
    let config = MessagesConfig {
        redeliver_after: Duration::from_millis(100),
        max_attempts: 1000,
        flush_every: Duration::from_secs(3600),
        sweep_every: Duration::from_millis(20),
        ..world.config.clone()
    };
    let world = &World { config, ..world.clone() };
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let soon = time::OffsetDateTime::now_utc() + Duration::from_millis(1500);
    let mut inbox = world.receive(&left, "b").await;
    let expiring = |message: OutgoingMessage| OutgoingMessage { expires_at: Some(soon), ..message };
    for number in 0..5 {
        right.send(&a, expiring(to("b", &number.to_string()))).await.unwrap();
        left.send(&a, expiring(OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "x"))).await.unwrap();
    }
    for number in 0..30 {
        right.send(&a, expiring(to("c", &number.to_string()))).await.unwrap();
    }
    // Read, so that the session goes on.
    let reading = async { while inbox.events.next().await.is_some() {} };
    let dead = async {
        eventually(async || world.dead_letters().await.len() >= 40).await;
        // Whoever else wanted to move one there has had the time.
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    tokio::select! {
        () = reading => panic!("the session ended"),
        () = dead => {}
    }
    let source = |logged: &acb_hub_core::log::bus::Logged| {
        let header = logged.record.headers.iter().find(|(name, _)| name == "acb-source").unwrap();
        String::from_utf8(header.1.to_vec()).unwrap()
    };
    let mut sources: Vec<String> = world.dead_letters().await.iter().map(source).collect();
    sources.sort();
    let dead = sources.len();
    sources.dedup();
    assert_eq!((dead, sources.len()), (40, 40));
}

/// Of two replicas either may write the index, and either may remove from it.
pub(crate) async fn what_is_acknowledged_has_no_row_a_moment_later(world: &World) {
    const MESSAGES: u64 = 5000;
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let options = SessionOptions::default();
    let mut outbox = left.open_session(world.agent("a"), options).await.unwrap();
    let mut inbox = world.receive(&right, "b").await;
    for number in 0..10 {
        left.send(&world.agent("a"), to("c", &number.to_string())).await.unwrap();
    }
    let sent = async {
        for number in 0..MESSAGES {
            outbox.input.send(number, to("b", "")).await.unwrap();
        }
    };
    let receipts = async {
        for _ in 0..MESSAGES {
            event_of(&mut outbox.events).await;
        }
    };
    let taken = async {
        for _ in 0..MESSAGES {
            let got = delivery(&mut inbox).await;
            inbox.input.ack(vec![got.id]).await.unwrap();
        }
    };
    tokio::join!(sent, receipts, taken);
    let acknowledged_at = tokio::time::Instant::now();
    eventually(async || world.rows("b").await == 0).await;
    assert!(acknowledged_at.elapsed() < Duration::from_secs(2), "{:?}", acknowledged_at.elapsed());
    // What nobody took is there still.
    assert_eq!(world.rows("c").await, 10);
    let mut c = world.receive(&left, "c").await;
    assert_eq!(
        deliveries(&mut c, 10).await.iter().map(text).collect::<Vec<_>>(),
        (0..10).map(|n| n.to_string()).collect::<Vec<_>>()
    );
}

/// A message to a group or to all is taken once anybody but its sender acknowledged it, whoever finds that it has expired.
pub(crate) async fn one_rule_says_who_took_a_group_message(world: &World) {
    let config = MessagesConfig { sweep_every: Duration::from_millis(100), ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let soon = time::OffsetDateTime::now_utc() + Duration::from_millis(2500);
    let expiring =
        |to: Address, text: &str| OutgoingMessage { expires_at: Some(soon), ..OutgoingMessage::new(to, "t", text.to_owned()) };
    let pair = || Address::Group("pair".to_owned());
    let (a, b) = (world.agent("a"), world.agent("b"));
    // Its sender's cursor passes it.
    replica.send(&b, expiring(pair(), "from a member")).await.unwrap();
    replica.send(&b, expiring(Address::All, "to all, and nobody came")).await.unwrap();
    let mut sender = world.receive(&replica, "b").await;
    assert!(silent(&mut sender).await);
    drop(sender);
    replica.send(&a, expiring(pair(), "nobody came")).await.unwrap();
    replica.send(&a, expiring(pair(), "taken")).await.unwrap();
    let mut member = world.receive(&replica, "c").await;
    let got = deliveries(&mut member, 4).await;
    let taken: Vec<_> = got.iter().filter(|delivery| text(delivery) == "taken").cloned().collect();
    member.input.ack(taken.iter().map(|delivery| delivery.id).collect()).await.unwrap();
    world.acknowledged("c", &taken).await;
    drop(member);
    // This session finds some of them expired.
    while time::OffsetDateTime::now_utc() < soon {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut late = world.receive(&replica, "b").await;
    assert!(silent(&mut late).await);
    eventually(async || world.dead_letters().await.len() >= 3).await;
    eventually(async || world.all_rows(&[MailboxAddress::Group("pair".to_owned()), MailboxAddress::All]).await == 0).await;
    let mut dead: Vec<String> = Vec::new();
    for logged in world.dead_letters().await {
        let envelope = Envelope::decode(logged.record.value.as_ref().unwrap()).unwrap();
        dead.push(String::from_utf8(envelope.message.payload.to_vec()).unwrap());
    }
    dead.sort();
    assert_eq!(dead, ["from a member", "nobody came", "to all, and nobody came"]);
}

pub(crate) async fn a_failed_message_aborts_what_was_pipelined_behind_it(world: &World) {
    let replica = world.replica("only").await;
    let mut outbox = replica.open_session(world.agent("a"), SessionOptions::default()).await.unwrap();
    for (sequence, recipient) in [(1, "b"), (2, "nobody"), (3, "b"), (4, "b"), (2, "b"), (3, "b")] {
        outbox.input.send(sequence, to(recipient, &sequence.to_string())).await.unwrap();
    }
    let mut outcomes = Vec::new();
    for _ in 0..6 {
        let SessionEvent::Sent { sequence, outcome } = event_of(&mut outbox.events).await else { panic!("a receipt") };
        outcomes.push((sequence, outcome.err().map(|fault| fault.code)));
    }
    let (not_found, aborted) = (Some(Code::NotFound), Some(Code::Aborted));
    assert_eq!(outcomes, [(1, None), (2, not_found), (3, aborted), (4, aborted), (2, None), (3, None)]);
}

pub(crate) async fn a_drained_session_leaves_a_clean_mailbox(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let mut inbox = world.receive(&left, "b").await;
    left.send(&a, to("b", "one")).await.unwrap();
    left.send(&a, to("b", "two")).await.unwrap();
    let got = deliveries(&mut inbox, 2).await;
    let goodbye = async {
        assert_eq!(event(&mut inbox).await, SessionEvent::Draining);
        inbox.input.ack(vec![got[0].id]).await.unwrap();
        drop(inbox);
    };
    tokio::join!(left.drain(), goodbye);
    assert_eq!(left.send(&a, to("b", "three")).await.unwrap_err().reason, "HUB_STOPPING");
    right.send(&a, to("b", "three")).await.unwrap();
    let mut inbox = world.receive(&right, "b").await;
    let got = deliveries(&mut inbox, 2).await;
    let flags: Vec<(String, bool)> = got.iter().map(|delivery| (text(delivery), delivery.redelivered)).collect();
    assert_eq!(flags, [("two".to_owned(), true), ("three".to_owned(), false)]);
}

pub(crate) async fn a_slow_agent_slows_nobody_and_misses_nothing(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let mut slow = world.receive_at_most(&replica, "b", 1000).await;
    let mut quick = world.receive_at_most(&replica, "c", 10).await;
    let group = |text: String| OutgoingMessage::new(Address::Group("pair".to_owned()), "t", text);
    for number in 0..500 {
        replica.send(&a, group(number.to_string())).await.unwrap();
        let got = delivery(&mut quick).await;
        assert_eq!(text(&got), number.to_string());
        quick.input.ack(vec![got.id]).await.unwrap();
    }
    for number in 0..500 {
        let got = delivery(&mut slow).await;
        assert_eq!((text(&got), got.redelivered), (number.to_string(), false));
    }
    assert!(silent(&mut slow).await);
}

pub(crate) async fn a_full_cursor_holds_its_partition_back_until_it_is_released(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica, "b").await;
    let mut oldest = None;
    let send = async {
        for number in 0..1010 {
            replica.send(&a, to("b", &number.to_string())).await.unwrap();
        }
    };
    let receive = async {
        loop {
            match event(&mut inbox).await {
                SessionEvent::Delivery(delivery) if oldest.is_none() => oldest = Some(delivery.id),
                SessionEvent::Delivery(delivery) => inbox.input.ack(vec![delivery.id]).await.unwrap(),
                SessionEvent::HeldBack { unacknowledged, .. } => break unacknowledged,
                other => panic!("unexpected: {other:?}"),
            }
        }
    };
    let ((), held) = tokio::join!(send, receive);
    assert!(held >= 1);
    inbox.input.ack(vec![oldest.unwrap()]).await.unwrap();
    let mut last = String::new();
    while last != "1009" {
        let got = delivery(&mut inbox).await;
        assert!(!got.redelivered);
        last = text(&got);
        inbox.input.ack(vec![got.id]).await.unwrap();
    }
}

pub(crate) async fn a_partition_is_free_again_when_its_oldest_message_is_given_up(world: &World) {
    let config = MessagesConfig { redeliver_after: Duration::from_secs(5), max_attempts: 1, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica, "b").await;
    let send = async {
        for number in 0..1010 {
            replica.send(&a, to("b", &number.to_string())).await.unwrap();
        }
    };
    let receive = async {
        let mut poison = Vec::new();
        loop {
            match event(&mut inbox).await {
                SessionEvent::Delivery(delivery) if text(&delivery) == "0" => poison.push(delivery.id),
                SessionEvent::Delivery(delivery) => {
                    inbox.input.ack(vec![delivery.id]).await.unwrap();
                    // It is not given up before it is in the way, however long that takes here.
                    inbox.input.in_progress(poison.clone()).await.unwrap();
                }
                SessionEvent::HeldBack { .. } => break,
                other => panic!("unexpected: {other:?}"),
            }
        }
    };
    tokio::join!(send, receive);
    // From here on the agent has nothing to say: the hub itself finds that the partition is free.
    let got = delivery(&mut inbox).await;
    assert!(!got.redelivered && text(&got).parse::<u32>().unwrap() >= 1000);
    eventually(async || world.dead_letters().await.len() == 1).await;
}

/// As `watch --count 1` in a loop does, and a program that dies as soon as it has read.
pub(crate) async fn who_comes_and_goes_loses_nothing(world: &World) {
    let config = MessagesConfig { max_attempts: 3, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let a = world.agent("a");
    for number in 0..12 {
        replica.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    for number in 0..6 {
        let mut inbox = world.receive(&replica, "b").await;
        let got = deliveries(&mut inbox, 12 - number).await;
        assert_eq!(text(&got[0]), number.to_string());
        assert_eq!(got[0].attempt, 1, "nobody has begun with it");
        inbox.input.ack(vec![got[0].id]).await.unwrap();
        world.acknowledged("b", &got[..1]).await;
    }
    for _ in 0..6 {
        let mut inbox = world.receive(&replica, "b").await;
        deliveries(&mut inbox, 6).await;
    }
    assert!(world.dead_letters().await.is_empty());
}

pub(crate) async fn what_is_begun_again_and_again_goes_to_the_dead_letters(world: &World) {
    let config = MessagesConfig { max_attempts: 2, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    replica.send(&world.agent("a"), to("b", "poison")).await.unwrap();
    replica.send(&world.agent("a"), to("b", "fine")).await.unwrap();
    let mut attempts = Vec::new();
    // A session that begins before what the last one said is written does not know of it, and tries once more.
    while world.dead_letters().await.is_empty() {
        let mut inbox = world.receive(&replica, "b").await;
        let poison = async {
            loop {
                let got = delivery(&mut inbox).await;
                if text(&got) == "poison" {
                    break got;
                }
                assert_eq!((text(&got), got.attempt), ("fine".to_owned(), 1), "nobody has begun with it");
            }
        };
        let dead = eventually(async || !world.dead_letters().await.is_empty());
        let poison = tokio::select! {
            poison = poison => poison,
            () = dead => break,
        };
        attempts.push(poison.attempt);
        assert!(attempts.len() < 20, "{attempts:?}");
        inbox.input.started(vec![poison.id]).await.unwrap();
        tokio::time::sleep(2 * world.config.flush_every).await;
    }
    attempts.dedup();
    assert_eq!(attempts, [1, 2]);
}

pub(crate) async fn an_acknowledgement_of_another_life_of_the_log_means_nothing(world: &World) {
    let replica = world.replica("only").await;
    let mut inbox = world.receive(&replica, "b").await;
    replica.send(&world.agent("a"), to("b", "one")).await.unwrap();
    let got = delivery(&mut inbox).await;
    let other = acb_hub_core::messages::delivery::DeliveryId { epoch: got.id.epoch.wrapping_add(1), ..got.id };
    inbox.input.ack(vec![other]).await.unwrap();
    inbox.input.started(vec![other]).await.unwrap();
    drop(inbox);
    let mut inbox = world.receive(&replica, "b").await;
    let again = delivery(&mut inbox).await;
    assert_eq!((text(&again), again.redelivered, again.attempt), ("one".to_owned(), true, 1));
}

pub(crate) async fn bad_messages_are_refused_with_a_reason(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let reason = async |message: OutgoingMessage| replica.send(&a, message).await.unwrap_err().reason;
    assert_eq!(reason(to("nobody", "")).await, "RECIPIENT_NOT_FOUND");
    assert_eq!(reason(OutgoingMessage::new(Address::Group("none".to_owned()), "t", "")).await, "RECIPIENT_NOT_FOUND");
    assert_eq!(reason(OutgoingMessage { topic: "a b".to_owned(), ..to("b", "") }).await, "TOPIC_INVALID");
    assert_eq!(reason(OutgoingMessage { context_id: "x".to_owned(), ..to("b", "") }).await, "CONTEXT_ID_INVALID");
    assert_eq!(reason(keyed("b", "", &"k".repeat(201))).await, "IDEMPOTENCY_KEY_INVALID");
    // With its envelope it is a little too large.
    let large = OutgoingMessage { payload: vec![0; MAX_ENVELOPE_BYTES].into(), ..to("b", "") };
    assert_eq!(reason(large).await, "MESSAGE_TOO_LARGE");
    let metadata = (0..65).map(|number| (number.to_string(), String::new())).collect();
    assert_eq!(reason(OutgoingMessage { metadata, ..to("b", "") }).await, "METADATA_INVALID");
    let fits = OutgoingMessage { payload: vec![0; MAX_ENVELOPE_BYTES - 4096].into(), ..to("b", "") };
    replica.send(&a, fits).await.unwrap();
}

pub(crate) async fn large_messages_are_caught_up_in_order(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    for number in 0..30_u8 {
        let payload = vec![number; MAX_ENVELOPE_BYTES / 2];
        replica.send(&a, OutgoingMessage { payload: payload.into(), ..to("b", "") }).await.unwrap();
    }
    let mut inbox = world.receive(&replica, "b").await;
    for number in 0..30 {
        let got = delivery(&mut inbox).await;
        assert_eq!((got.message.payload[0], got.redelivered), (number, false));
    }
    assert!(silent(&mut inbox).await);
}

pub(crate) async fn who_joins_a_group_gets_what_was_logged_before_the_hub_knew(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let a = world.agent("a");
    let group = |text: &str| OutgoingMessage::new(Address::Group("pair".to_owned()), "t", text.to_owned());
    let mut inbox = world.receive(&right, "d").await;
    left.send(&a, group("before the join")).await.unwrap();
    // What is sent less than that before is for the member, too.
    tokio::time::sleep(2 * TOLERANCE.unsigned_abs()).await;
    let joined_at = time::OffsetDateTime::now_utc();
    left.send(&a, group("missed")).await.unwrap();
    // The cursor passes it.
    left.send(&a, to("d", "direct")).await.unwrap();
    let direct = delivery(&mut inbox).await;
    assert_eq!(text(&direct), "direct");
    inbox.input.ack(vec![direct.id]).await.unwrap();
    world.acknowledged("d", &[direct]).await;

    world.join("d", "pair", joined_at);
    let late = delivery(&mut inbox).await;
    assert_eq!((text(&late), late.redelivered, late.attempt), ("missed".to_owned(), true, 1));
    left.send(&a, group("after")).await.unwrap();
    let after = delivery(&mut inbox).await;
    assert_eq!((text(&after), after.redelivered), ("after".to_owned(), false));
    inbox.input.ack(vec![after.id]).await.unwrap();
    world.acknowledged("d", &[after]).await;
    // It was not acknowledged, and the next session has it still.
    let mut inbox = world.receive(&left, "d").await;
    let again = delivery(&mut inbox).await;
    assert_eq!((again.id, again.redelivered), (late.id, true));
    left.send(&a, group("last")).await.unwrap();
    let last = delivery(&mut inbox).await;
    inbox.input.ack(vec![again.id]).await.unwrap();
    inbox.input.ack(vec![last.id]).await.unwrap();
    world.acknowledged("d", &[last]).await;
    let mut inbox = world.receive(&right, "d").await;
    assert!(silent(&mut inbox).await);
}

/// The cursor has looked beyond the message, and waits for an older one.
pub(crate) async fn an_acknowledged_late_message_does_not_come_again(world: &World) {
    let replica = world.replica("only").await;
    let a = world.agent("a");
    let mut inbox = world.receive(&replica, "d").await;
    replica.send(&a, to("d", "oldest")).await.unwrap();
    let joined_at = time::OffsetDateTime::now_utc();
    replica.send(&a, OutgoingMessage::new(Address::Group("pair".to_owned()), "t", "missed")).await.unwrap();
    replica.send(&a, to("d", "newest")).await.unwrap();
    let got = deliveries(&mut inbox, 2).await;
    inbox.input.ack(vec![got[1].id]).await.unwrap();
    world.acknowledged("d", &got[1..]).await;

    world.join("d", "pair", joined_at);
    let late = delivery(&mut inbox).await;
    assert_eq!((text(&late), late.redelivered, late.attempt), ("missed".to_owned(), true, 1));
    inbox.input.ack(vec![late.id]).await.unwrap();
    world.acknowledged("d", &[late]).await;
    let mut inbox = world.receive(&replica, "d").await;
    let again = delivery(&mut inbox).await;
    assert_eq!((again.id, again.redelivered), (got[0].id, true));
    assert!(silent(&mut inbox).await);
}

pub(crate) async fn event_of(events: &mut acb_hub_core::messages::session::SessionEvents) -> SessionEvent {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("an event in time").expect("the session lives")
}
