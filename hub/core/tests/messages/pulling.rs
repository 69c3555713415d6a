//! Receiving by calls: what holds for sessions holds for them. Shared with the suite that runs on PostgreSQL.

use std::{sync::Arc, time::Duration};

use acb_hub_core::{
    directory::agent::Agent,
    fault::Fault,
    messages::{
        config::MessagesConfig,
        delivery::{Delivery, DeliveryId},
        service::Messages,
    },
};
use tokio::time::Instant;

use crate::world::{World, delivery, eventually, text, to};

const LONG: Duration = Duration::from_secs(20);

async fn pull(replica: &Messages, agent: &Arc<Agent>, max: u32, wait: Duration) -> Result<Vec<Delivery>, Fault> {
    replica.pull(agent.clone(), "program", false, max, wait).await.map(|pulled| pulled.deliveries)
}

async fn acknowledge(replica: &Messages, agent: &Arc<Agent>, deliveries: &[Delivery]) {
    let ids: Vec<DeliveryId> = deliveries.iter().map(|delivery| delivery.id).collect();
    replica.acknowledge(agent.clone(), "program", ids, Vec::new()).await.unwrap();
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(text).collect()
}

pub(crate) async fn what_is_pulled_comes_in_order_and_once(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b) = (world.agent("a"), world.agent("b"));
    for number in 0..6 {
        left.send(&a, to("b", &number.to_string())).await.unwrap();
    }
    let mut got = pull(&left, &b, 2, LONG).await.unwrap();
    assert_eq!(texts(&got), ["0", "1"]);
    acknowledge(&left, &b, &got).await;
    // The next call comes to another replica, which takes over, and so does what is acknowledged there.
    while got.len() < 6 {
        let next = pull(&right, &b, 3, LONG).await.unwrap();
        assert!(!next.is_empty());
        for delivery in next {
            // What the session before gave out is not known here for a moment, and comes flagged.
            if !got.iter().any(|known| known.id == delivery.id) {
                got.push(delivery);
            }
        }
    }
    assert_eq!(texts(&got), ["0", "1", "2", "3", "4", "5"]);
    acknowledge(&left, &b, &got).await;
    world.acknowledged("b", &got).await;
    let began = Instant::now();
    assert!(pull(&left, &b, 0, Duration::from_millis(300)).await.unwrap().is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300));
    // A call that waits is answered by what comes.
    let (waiting, ()) = tokio::join!(pull(&left, &b, 0, LONG), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        right.send(&a, to("b", "late")).await.unwrap();
        let twice = pull(&left, &b, 0, LONG).await.unwrap_err();
        assert_eq!(twice.reason, "PULL_IN_PROGRESS");
    });
    assert_eq!(texts(&waiting.unwrap()), ["late"]);
    assert_eq!(left.pull(b, "", false, 0, LONG).await.unwrap_err().reason, "RECEIVER_INVALID");
}

pub(crate) async fn who_pulls_has_the_mailbox_until_another_takes_over(world: &World) {
    let (left, right) = (world.replica("left").await, world.replica("right").await);
    let (a, b) = (world.agent("a"), world.agent("b"));
    left.send(&a, to("b", "one")).await.unwrap();
    assert_eq!(texts(&pull(&left, &b, 1, LONG).await.unwrap()), ["one"]);
    let other = right.pull(b.clone(), "another", false, 1, Duration::ZERO).await;
    assert_eq!(other.unwrap_err().reason, "RECEIVER_PRESENT");
    // A session takes over, and is refused itself where it does not say so.
    let mut session = world.receive(&right, "b").await;
    assert_eq!(text(&delivery(&mut session).await), "one");
    eventually(async || pull(&left, &b, 1, Duration::ZERO).await.is_err()).await;
    assert_eq!(pull(&left, &b, 1, Duration::ZERO).await.unwrap_err().reason, "RECEIVER_PRESENT");
    let refused = left.acknowledge(b.clone(), "program", Vec::new(), Vec::new()).await;
    assert_eq!(refused.unwrap_err().reason, "RECEIVER_PRESENT");
    drop(session);
    assert_eq!(texts(&pull(&left, &b, 1, LONG).await.unwrap()), ["one"]);
}

pub(crate) async fn what_is_pulled_and_not_acknowledged_comes_again_and_then_to_the_dead_letters(world: &World) {
    let config = MessagesConfig { redeliver_after: Duration::from_millis(200), max_attempts: 3, ..world.config.clone() };
    let world = &World { config, ..world.clone() };
    let replica = world.replica("only").await;
    let (a, b) = (world.agent("a"), world.agent("b"));
    for word in ["poison", "waits"] {
        replica.send(&a, to("b", word)).await.unwrap();
    }
    // Nobody asks for the second one: that it waits is no attempt.
    let mut attempts = Vec::new();
    for _ in 0..3 {
        let got = pull(&replica, &b, 1, LONG).await.unwrap();
        attempts.push((text(&got[0]), got[0].redelivered, got[0].attempt));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let poison = |redelivered, attempt| ("poison".to_owned(), redelivered, attempt);
    assert_eq!(attempts, [poison(false, 1), poison(true, 2), poison(true, 3)]);
    assert!(world.dead_letters().await.is_empty());
    let got = pull(&replica, &b, 1, LONG).await.unwrap();
    assert_eq!((text(&got[0]).as_str(), got[0].redelivered, got[0].attempt), ("waits", false, 1));
    eventually(async || world.dead_letters().await.len() == 1).await;
    acknowledge(&replica, &b, &got).await;
    assert!(pull(&replica, &b, 1, Duration::from_millis(500)).await.unwrap().is_empty());
}
