//! A replica that drains, and one that is killed: what is said goes on over the other.

use acb_sdk::{Message, Session};
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{client, dev, next, until};

const EACH: usize = 300;

/// Sends numbers, ends the replica that hands them out after a third of them, and receives each once.
async fn numbers_survive(signal: Signal) {
    let dev = dev().await;
    let sender = client("fragile", "sender").await.session().receive(false).open().await.unwrap();
    let mut inbox = client("fragile", "receiver").await.session().open().await.unwrap();
    let ended = inbox.replica();
    let mut receipts = Vec::new();
    let mut came = Vec::new();
    for number in 0..EACH {
        let message = Message::to_agent("receiver").topic("n").json(&number);
        receipts.push(sender.sender().enqueue(message).await.unwrap());
        if number == EACH / 3 {
            came.push(take(&mut inbox).await);
            let pid = dev.pods("fragile").unwrap()[&ended].pid.expect("the replica runs");
            kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        }
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
    while came.len() < EACH {
        came.push(take(&mut inbox).await);
    }
    let in_order: Vec<usize> = came.iter().filter(|(_, redelivered)| !redelivered).map(|(number, _)| *number).collect();
    assert!(in_order.is_sorted(), "{in_order:?}");
    let mut all: Vec<usize> = came.iter().map(|(number, _)| *number).collect();
    all.sort_unstable();
    assert_eq!(all, (0..EACH).collect::<Vec<_>>(), "each came once");
    assert_ne!(inbox.replica(), ended);
    inbox.close().await;
    until("both replicas are there again", async || {
        let pods = dev.pods("fragile").unwrap();
        (pods.len() == 2 && pods.values().all(|pod| pod.ready)).then_some(())
    })
    .await;
}

async fn take(inbox: &mut Session) -> (usize, bool) {
    let received = next(inbox).await;
    let taken = (received.json().unwrap(), received.redelivered());
    received.ack();
    taken
}

#[tokio::test]
async fn a_session_goes_on_where_its_replica_drains_and_where_it_is_killed() {
    numbers_survive(Signal::TERM).await;
    numbers_survive(Signal::KILL).await;
}
