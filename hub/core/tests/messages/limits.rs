//! How much agents may send, over several replicas.

use acb_hub_core::{
    fault::{Code, Fault},
    log::bus::TopicName,
    messages::{
        message::Receipt,
        service::Messages,
        session::{SessionEvent, SessionOptions},
    },
};
use time::OffsetDateTime;

use super::{
    scenarios::event_of,
    world,
    world::{World, keyed, to},
};

const LIMIT: u64 = 1000;

fn minute() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp() / 60
}

/// Sends so many messages at once on a session of this replica: how many were accepted, before the first that was refused.
async fn accepted(world: &World, replica: &Messages, messages: u64) -> u64 {
    let mut session = replica.open_session(world.agent("a"), SessionOptions::default()).await.unwrap();
    let sending = async {
        for number in 0..messages {
            session.input.send(number, to("b", "x")).await.unwrap();
        }
    };
    let counting = async {
        let mut accepted = 0;
        for _ in 0..messages {
            let SessionEvent::Sent { outcome, .. } = event_of(&mut session.events).await else { panic!("a receipt") };
            match outcome {
                Ok(Receipt { deduplicated: false, .. }) => accepted += 1,
                Ok(receipt) => panic!("{receipt:?}"),
                Err(fault) => assert!(is_limited(&fault) || fault.code == Code::Aborted, "{fault}"),
            }
        }
        accepted
    };
    tokio::join!(sending, counting).1
}

fn is_limited(fault: &Fault) -> bool {
    fault.reason == "RATE_LIMIT_EXCEEDED" && fault.exhausted.as_ref().is_some_and(|exhausted| exhausted.most == LIMIT)
}

/// What this many replicas accept together in one minute, where each is asked for so much.
async fn together(shares: &[u64]) -> u64 {
    loop {
        let world = world();
        world.limit("a", Some(LIMIT));
        let mut replicas = Vec::new();
        for number in 0..shares.len() {
            replicas.push(world.replica(&number.to_string()).await);
        }
        let began = minute();
        let each = replicas.iter().zip(shares).map(|(replica, share)| accepted(&world, replica, *share));
        let accepted = futures::future::join_all(each).await.into_iter().sum();
        // A minute that ended in between has room of its own.
        if minute() == began {
            return accepted;
        }
    }
}

/// They count for nothing, so that nothing else would bound them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repetitions_are_told_and_not_logged_again() {
    let world = world();
    world.limit("a", Some(1));
    let (replica, a) = (world.replica("only").await, world.agent("a"));
    let records = async || {
        let bounds = world.bus.bounds(&TopicName::system(&world.tenant, "messages")).await.unwrap();
        bounds.iter().map(|bounds| bounds.next).sum::<u64>()
    };
    let first = replica.send(&a, keyed("b", "x", "k")).await.unwrap();
    assert_eq!(records().await, 1);
    for _ in 0..20 {
        assert_eq!(replica.send(&a, keyed("b", "x", "k")).await, Ok(Receipt { id: first.id, deduplicated: true }));
        assert_eq!(replica.send(&a, keyed("b", "y", "k")).await.unwrap_err().reason, "IDEMPOTENCY_KEY_REUSED");
    }
    // So it is on a session, in its order.
    let mut session = replica.open_session(a.clone(), SessionOptions::default()).await.unwrap();
    for (number, text) in ["x", "y", "x"].into_iter().enumerate() {
        session.input.send(number as u64, keyed("b", text, "k")).await.unwrap();
    }
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let SessionEvent::Sent { sequence, outcome } = event_of(&mut session.events).await else { panic!("a receipt") };
        outcomes.push((sequence, outcome.map(|receipt| receipt.deduplicated).map_err(|fault| fault.reason)));
    }
    assert_eq!(outcomes, [(0, Ok(true)), (1, Err("IDEMPOTENCY_KEY_REUSED")), (2, Ok(true))]);
    assert_eq!(records().await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_overshoot_a_limit_by_what_the_others_have_on_their_way() {
    for shares in [&[900, 900][..], &[500; 5], &[1100, 100, 100, 100, 100]] {
        let accepted = together(shares).await;
        let most = LIMIT + (shares.len() as u64 - 1) * LIMIT / 200;
        assert!((LIMIT..=most).contains(&accepted), "{shares:?}: {accepted}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replica_that_died_has_sent_counts() {
    loop {
        let world = world();
        world.limit("a", Some(LIMIT));
        let (one, two) = (world.replica("one").await, world.replica("two").await);
        let began = minute();
        let first = accepted(&world, &one, 700).await;
        drop(one);
        let second = accepted(&world, &two, 700).await;
        // One that starts reads what there was.
        let third = accepted(&world, &world.replica("three").await, 100).await;
        if minute() == began {
            assert_eq!((first, third), (700, 0));
            assert!((300..=305).contains(&second), "{second}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_is_one_s_own_and_an_administrator_s() {
    let world = world();
    world.limit("a", Some(LIMIT));
    let replica = world.replica("only").await;
    let (a, b) = (world.agent("a"), world.agent("b"));
    let used = loop {
        let began = minute();
        let before = replica.usage(&a)[0].used;
        replica.send(&a, to("b", "five!")).await.unwrap();
        let used = replica.usage(&a);
        if minute() == began {
            assert_eq!(used[0].used, before + 1);
            break used;
        }
    };
    let limits: Vec<_> = used.iter().map(|usage| (usage.subject.as_str(), usage.limit, usage.most)).collect();
    assert_eq!(
        limits,
        [
            ("agent a", "messagesPerMinute", Some(LIMIT)),
            ("agent a", "bytesPerMinute", None),
            ("agent a", "messagesPerMonth", None),
            ("tenant acme", "messagesPerMinute", None),
            ("tenant acme", "bytesPerMinute", None),
            ("tenant acme", "messagesPerMonth", None),
        ]
    );
    assert_eq!(replica.account(&b, "a").unwrap_err().code, Code::PermissionDenied);
    let admin = acb_hub_core::directory::agent::Agent { role: acb_hub_core::directory::agent::Role::Admin, ..(*b).clone() };
    assert_eq!(replica.account(&admin, "a").unwrap().name, "a");
    assert_eq!(replica.account(&admin, "nobody").unwrap_err().code, Code::NotFound);
}
