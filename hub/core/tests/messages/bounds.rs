//! What waits for agents that don't read is bounded, and costs the others nothing.

use acb_hub_core::{
    directory::snapshot::Snapshot,
    messages::{
        config::MessagesConfig,
        message::{Address, OutgoingMessage},
        session::SessionEvent,
    },
};
use bytes::Bytes;
use time::OffsetDateTime;

use crate::{
    world,
    world::{World, deliveries, event, text, to},
};

const SIZE: usize = 100_000;

fn large(agent: &str, number: u8) -> OutgoingMessage {
    OutgoingMessage { payload: Bytes::from(vec![number; SIZE]), ..to(agent, "") }
}

/// More agents, that every replica learns of now.
fn crowd(world: &World, size: usize) -> Vec<String> {
    let snapshot = world.directory.snapshot();
    let names: Vec<String> = (0..size).map(|number| format!("crowd-{number}")).collect();
    let born = OffsetDateTime::now_utc() - time::Duration::days(2);
    let more = names.iter().map(|name| world::agent(name, born));
    let agents = snapshot.agents().map(|known| (**known).clone()).chain(more).collect();
    let members = snapshot.memberships("pair").to_vec();
    world.directory.replace(Snapshot::new(snapshot.generation + 1, agents, members));
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_not_read_hold_few_bytes_and_miss_nothing() {
    let world = world();
    let config = MessagesConfig { session_bytes: 4 * SIZE, replica_bytes: 8 * SIZE, ..world.config.clone() };
    let world = World { config, ..world };
    let replica = world.replica("only").await;
    let mut slow = [world.receive(&replica, "b").await, world.receive(&replica, "d").await];
    let mut quick = world.receive(&replica, "c").await;
    let mut most = 0;
    for number in 0..40 {
        let message = OutgoingMessage { to: Address::All, ..large("", number) };
        replica.send(&world.agent("a"), message).await.unwrap();
        let came = deliveries(&mut quick, 1).await;
        quick.input.ack(vec![came[0].id]).await.unwrap();
        assert_eq!(came[0].message.payload[0], number, "the one that reads is not held up");
        most = most.max(replica.waiting_bytes());
    }
    // The whole may be overshot by as much again.
    assert!(most > 4 * SIZE && most <= 2 * 8 * (SIZE + 2048), "{most}");
    for session in &mut slow {
        let all = deliveries(session, 40).await;
        let numbers: Vec<u8> = all.iter().map(|delivery| delivery.message.payload[0]).collect();
        assert_eq!(numbers, (0..40).collect::<Vec<_>>());
    }
    drop((slow, quick));
    world::eventually(async || replica.waiting_bytes() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_that_are_not_read_hold_twice_the_whole_at_most() {
    let world = world();
    let config = MessagesConfig { session_bytes: 4 * SIZE, replica_bytes: 8 * SIZE, ..world.config.clone() };
    let world = World { config, ..world };
    let replica = world.replica("only").await;
    let mut slow = Vec::new();
    for agent in crowd(&world, 40) {
        slow.push(world.receive(&replica, &agent).await);
    }
    let mut quick = world.receive(&replica, "c").await;
    let mut most = 0;
    for number in 0..4 {
        replica.send(&world.agent("a"), OutgoingMessage { to: Address::All, ..large("", number) }).await.unwrap();
        most = most.max(replica.waiting_bytes());
    }
    world::eventually(async || {
        most = most.max(replica.waiting_bytes());
        replica.waiting_bytes() > 15 * SIZE
    })
    .await;
    // Whoever takes something goes on, when those end that take nothing.
    drop(slow);
    let all = deliveries(&mut quick, 4).await;
    assert_eq!(all.iter().map(|delivery| delivery.message.payload[0]).collect::<Vec<_>>(), [0, 1, 2, 3]);
    most = most.max(replica.waiting_bytes());
    assert!(most <= 2 * 8 * (SIZE + 2048), "{most}");
    drop(quick);
    world::eventually(async || replica.waiting_bytes() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_takes_no_more_than_it_may_hold_while_it_waits_for_the_log() {
    let world = world();
    let config = MessagesConfig { session_bytes: 3 * SIZE, ..world.config.clone() };
    let world = World { config, ..world };
    let replica = world.replica("only").await;
    let mut session = world.receive(&replica, "a").await;
    let mut sent = 0;
    let mut most = 0;
    // Nobody takes the outcomes until the end: it is the session that makes its sender wait, and in the end goes on.
    let sending = async {
        for number in 0..60 {
            session.input.send(number, large("b", 0)).await.unwrap();
            sent = number;
            most = most.max(replica.waiting_bytes());
        }
    };
    tokio::time::timeout(world::PATIENCE, sending).await.expect("64 events fit without being read");
    assert!(most <= 4 * (SIZE + 2048), "{most}");
    for number in 0..=sent {
        let outcome = event(&mut session).await;
        assert!(matches!(outcome, SessionEvent::Sent { sequence, outcome: Ok(_) } if sequence == number), "{outcome:?}");
    }
    let mut other = world.receive(&replica, "b").await;
    assert_eq!(text(&deliveries(&mut other, 60).await[59]).len(), SIZE);
}
