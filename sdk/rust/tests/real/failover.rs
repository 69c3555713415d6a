//! A replica that drains, one that is killed, and one that stands still for a while: what is said goes on.

use std::{collections::BTreeMap, time::Duration};

use acb_sdk::{Message, Sender, Session};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, sleep_until},
};

use crate::world::{LONG, client, client_on, dev, next, until};

const EACH: usize = 300;

/// One test at a time does something to the replicas.
static REPLICAS: Mutex<()> = Mutex::const_new(());

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
    both_are_ready().await;
}

async fn both_are_ready() {
    let dev = dev().await;
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
    let _alone = REPLICAS.lock().await;
    numbers_survive(Signal::TERM).await;
    numbers_survive(Signal::KILL).await;
}

/// Longer than a replica's lease on its mailboxes (10 s). Shorter than what makes `acb dev` start it over (three looks at `/livez`, every 10 s),
/// and than the silence after which the SDK leaves a connection (15 s).
const STILL: Duration = Duration::from_secs(12);
/// So that they are under way for longer than that.
const SPOKEN: usize = 800;
const PACE: Duration = Duration::from_millis(20);
/// Over the replica that stands still.
const HELD_UP: usize = 100;

/// What was received of each topic, in the order of arrival: the number, and whether it was flagged as redelivered.
#[derive(Default)]
struct Came(BTreeMap<String, Vec<(usize, bool)>>);

impl Came {
    fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    async fn take(&mut self, session: &mut Session) {
        let received = next(session).await;
        let taken = (received.json().unwrap(), received.redelivered());
        self.0.entry(received.message().topic.clone()).or_default().push(taken);
        received.ack();
    }

    /// Each number of a topic came once. What was not delivered before kept its order.
    fn is_whole(&self, topic: &str, count: usize) {
        let came = &self.0[topic];
        let in_order: Vec<usize> = came.iter().filter(|(_, redelivered)| !redelivered).map(|(number, _)| *number).collect();
        assert!(in_order.is_sorted(), "{topic}: {in_order:?}");
        let mut all: Vec<usize> = came.iter().map(|(number, _)| *number).collect();
        all.sort_unstable();
        assert_eq!(all, (0..count).collect::<Vec<_>>(), "{topic}: each came once");
    }
}

/// Sends numbers to the three that receive, and waits until all are taken.
async fn speak(sender: Sender, topic: &'static str, count: usize, pace: Duration) {
    let mut receipts = Vec::new();
    for number in 0..count {
        let message = Message::to_agents(["waiting", "moving", "bystander"]).topic(topic).json(&number);
        receipts.push(sender.enqueue(message).await.unwrap());
        sleep(pace).await;
    }
    for receipt in receipts {
        receipt.await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_that_stands_still_for_a_while_loses_doubles_and_reorders_nothing() {
    let _alone = REPLICAS.lock().await;
    let dev = dev().await;
    both_are_ready().await;
    let endpoints = dev.tenant("fragile").unwrap().endpoints.clone();
    let [there, elsewhere] = [&endpoints[0], &endpoints[1]];
    let mut waiting = client_on("fragile", "waiting", there, true).await.session().open().await.unwrap();
    // It would not take over again, should it have to connect anew.
    let left_behind = client_on("fragile", "moving", there, true).await.session().take_over(false).open();
    let mut left_behind = left_behind.await.unwrap();
    let mut bystander = client_on("fragile", "bystander", elsewhere, false).await.session().open().await.unwrap();
    let held_up = client_on("fragile", "held-up", there, true).await;
    let held_up_session = held_up.session().receive(false).open().await.unwrap();
    let speaker = client_on("fragile", "speaker", elsewhere, false).await.session().receive(false).open().await.unwrap();
    let stopped = waiting.replica();
    assert_eq!([left_behind.replica(), held_up_session.replica()], [stopped.clone(), stopped.clone()]);
    assert_ne!(bystander.replica(), stopped);

    let before = dev.pods("fragile").unwrap().remove(&stopped).unwrap();
    let pid = Pid::from_raw(before.pid.expect("the replica runs")).unwrap();
    let speaking = tokio::spawn(speak(speaker.sender(), "spoken", SPOKEN, PACE));
    let (mut to_waiting, mut to_moving, mut to_bystander) = (Came::default(), Came::default(), Came::default());
    for _ in 0..20 {
        to_waiting.take(&mut waiting).await;
        to_moving.take(&mut left_behind).await;
        to_bystander.take(&mut bystander).await;
    }
    // Until its acknowledgements are written: they are every half a second.
    sleep(Duration::from_secs(2)).await;

    kill_process(pid, Signal::STOP).unwrap();
    let goes_on_at = Instant::now() + STILL;
    let holding_up = tokio::spawn(speak(held_up_session.sender(), "held-up", HELD_UP, Duration::ZERO));
    let call = tokio::spawn(async move { held_up.send(Message::to_agent("bystander").topic("call").json(&0)).await });
    // A program that is started anew finds the other replica, and takes over.
    let mut moving = client("fragile", "moving").await.session().open().await.unwrap();
    assert_ne!(moving.replica(), stopped);
    to_moving.take(&mut moving).await;
    // Nobody on the other replica is held up.
    let known = to_bystander.count();
    while to_bystander.count() < known + 50 {
        to_bystander.take(&mut bystander).await;
    }
    assert!(Instant::now() < goes_on_at, "the other replica served nobody meanwhile");
    sleep_until(goes_on_at).await;
    kill_process(pid, Signal::CONT).unwrap();

    speaking.await.unwrap();
    holding_up.await.unwrap();
    call.await.unwrap().unwrap();
    while to_bystander.count() < SPOKEN + HELD_UP + 1 {
        to_bystander.take(&mut bystander).await;
    }
    for (came, session) in [(&mut to_waiting, &mut waiting), (&mut to_moving, &mut moving)] {
        while came.count() < SPOKEN + HELD_UP {
            came.take(session).await;
        }
    }
    for came in [&to_waiting, &to_moving, &to_bystander] {
        came.is_whole("spoken", SPOKEN);
        came.is_whole("held-up", HELD_UP);
    }
    to_bystander.is_whole("call", 1);
    // What that one had in hand its program got elsewhere.
    let replaced = async {
        loop {
            if let Err(error) = left_behind.next().await {
                return error;
            }
        }
    };
    let replaced = tokio::time::timeout(LONG, replaced).await.expect("the older session ends");
    assert!(["SESSION_REPLACED", "RECEIVER_PRESENT"].contains(&replaced.reason()), "{replaced}");
    both_are_ready().await;
    let after = dev.pods("fragile").unwrap().remove(&stopped).unwrap();
    assert_eq!((after.pid, after.restarts), (before.pid, before.restarts), "it was not started over");
    for session in [waiting, moving, bystander] {
        session.close().await;
    }
}
