//! Random sends, acknowledgements, crashes, drains and reconnects over two replicas. What must hold whatever happens:
//! nothing that was acknowledged to its sender is lost; the first deliveries of one sender's messages keep its order; nothing is
//! delivered twice without a flag.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use acb_hub_core::messages::{
    service::Messages,
    session::{SessionEvent, SessionOptions},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::world::{PATIENCE, World, eventually, keyed, text};

const MESSAGES: usize = 150;

/// A small generator: the seed tells the run again, as far as the scheduler allows.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Two replicas, either of which may be replaced at any moment.
type Replicas = Arc<Mutex<[Messages; 2]>>;

fn pick(replicas: &Replicas, dice: &mut Dice) -> Messages {
    replicas.lock().unwrap()[dice.roll(2) as usize].clone()
}

/// Sends everything, pipelined; after any failure sends again all that is unacknowledged, oldest first, through any replica.
async fn send_all(world: &World, replicas: &Replicas, from: &str, to: &str, dice: &mut Dice) {
    let mut done = 0;
    while done < MESSAGES {
        let replica = pick(replicas, dice);
        let options = SessionOptions::default();
        let Ok(mut session) = replica.open_session(world.agent(from), options).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        drop(replica);
        let first = done;
        let input = session.input;
        let message = |number: usize| keyed(to, &format!("{from}:{number}"), &format!("{to}:{number}"));
        let pipelined = async {
            for number in first..MESSAGES {
                if input.send(number as u64, message(number)).await.is_err() {
                    break;
                }
                if number % 10 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            std::future::pending::<()>().await;
        };
        let receipts = async {
            while let Some(event) = session.events.next().await {
                match event {
                    SessionEvent::Sent { sequence, outcome: Ok(_) } => {
                        assert_eq!(sequence, done as u64);
                        done += 1;
                        if done == MESSAGES {
                            break;
                        }
                    }
                    SessionEvent::Sent { outcome: Err(_), .. } => break,
                    _ => {}
                }
            }
        };
        tokio::select! {
            () = pipelined => {}
            () = receipts => {}
        }
    }
}

#[derive(Default)]
struct Seen {
    unflagged: Vec<String>,
    all: BTreeSet<String>,
}

/// Receives, and acknowledges most of it, on sessions that come and go.
async fn receive_all(
    world: &World,
    replicas: &Replicas,
    me: &str,
    seen: &Mutex<Seen>,
    dice: &mut Dice,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        let replica = pick(replicas, dice);
        let options = SessionOptions {
            receive: true,
            max_unacknowledged: 20 + dice.roll(200) as u32,
            take_over: true,
            ..SessionOptions::default()
        };
        let Ok(mut session) = replica.open_session(world.agent(me), options).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        drop(replica);
        let life = tokio::time::sleep(Duration::from_millis(50 + dice.roll(400)));
        tokio::pin!(life);
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => break,
                () = &mut life => break,
                event = session.events.next() => event,
            };
            match event {
                None => break,
                Some(SessionEvent::Delivery(delivery)) => {
                    let name = text(&delivery);
                    {
                        let mut seen = seen.lock().unwrap();
                        if !delivery.redelivered {
                            seen.unflagged.push(name.clone());
                        }
                        seen.all.insert(name);
                    }
                    if dice.roll(10) < 9 && session.input.ack(vec![delivery.id]).await.is_err() {
                        break;
                    }
                }
                Some(_) => {}
            }
        }
    }
}

/// Shared with the suite that runs on PostgreSQL.
pub(crate) async fn run(mut world: World, seed: u64) {
    world.config.redeliver_after = Duration::from_millis(150);
    world.config.max_attempts = 1000;
    let world = Arc::new(world);
    let replicas: Replicas = Arc::new(Mutex::new([world.replica("left").await, world.replica("right").await]));
    let stop = CancellationToken::new();
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);

    let mut receivers: Vec<JoinHandle<()>> = Vec::new();
    let mut all_seen: BTreeMap<&str, Arc<Mutex<Seen>>> = BTreeMap::new();
    for me in ["c", "d"] {
        let (world, replicas, stop, mut dice) = (world.clone(), replicas.clone(), stop.clone(), Dice(dice.roll(u64::MAX) | 1));
        let seen = all_seen.entry(me).or_default().clone();
        receivers.push(tokio::spawn(async move { receive_all(&world, &replicas, me, &seen, &mut dice, &stop).await }));
    }
    let mut senders: Vec<JoinHandle<()>> = Vec::new();
    for (from, to) in [("a", "c"), ("a", "d"), ("b", "c"), ("b", "d")] {
        let (world, replicas, mut dice) = (world.clone(), replicas.clone(), Dice(dice.roll(u64::MAX) | 1));
        senders.push(tokio::spawn(async move { send_all(&world, &replicas, from, to, &mut dice).await }));
    }
    let chaos = {
        let (world, replicas, stop) = (world.clone(), replicas.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(50 + dice.roll(200))).await;
                let side = dice.roll(2) as usize;
                let fresh = world.replica("again").await;
                let old = std::mem::replace(&mut replicas.lock().unwrap()[side], fresh);
                // A third of the time it goes in peace; otherwise it is gone at once.
                if dice.roll(3) == 0 {
                    old.drain().await;
                } else {
                    old.stop();
                }
            }
        })
    };
    for sender in senders {
        tokio::time::timeout(PATIENCE * 3, sender).await.expect("everything is sent in time").unwrap();
    }
    for (me, seen) in &all_seen {
        let expected: BTreeSet<String> =
            ["a", "b"].iter().flat_map(|from| (0..MESSAGES).map(move |number| format!("{from}:{number}"))).collect();
        eventually(async || seen.lock().unwrap().all == expected).await;
        let seen = seen.lock().unwrap();
        let distinct: BTreeSet<&String> = seen.unflagged.iter().collect();
        assert_eq!(distinct.len(), seen.unflagged.len(), "seed {seed}: {me} got a message twice without a flag");
        for from in ["a:", "b:"] {
            let order: Vec<usize> =
                seen.unflagged.iter().filter_map(|name| name.strip_prefix(from)).map(|number| number.parse().unwrap()).collect();
            assert!(order.is_sorted(), "seed {seed}: {me} got the messages of {from} out of order: {order:?}");
        }
    }
    stop.cancel();
    chaos.await.unwrap();
    for receiver in receivers {
        receiver.await.unwrap();
    }
}
