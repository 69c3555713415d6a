//! The consumers of the tails: one for all topics, unless a topic is followed twice at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use acb_hub_core::log::bus::{BusError, Epoch, TopicName};
use rdkafka::{
    client::Client,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    client::{Clients, Closing, Context},
    queue::{Owner, Queue},
};

/// A topic that a consumer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Followed,
    /// Its tail is gone, and its partitions are being stopped.
    Leaving,
}

/// The topics of one consumer.
#[derive(Debug, Default)]
struct Topics {
    used: HashMap<TopicName, Use>,
    /// The epoch of each that it ever had. librdkafka keeps what it knows of a topic for as long as the client lives.
    known: HashMap<TopicName, Epoch>,
}

/// Whether a consumer has room for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// The topic has the place now.
    Taken,
    /// Once the tail before has left.
    Leaving,
    None,
}

impl Topics {
    /// Gives the topic the place that it may have.
    fn take(&mut self, topic: &TopicName, epoch: Epoch) -> Room {
        // Of a topic that was made anew librdkafka keeps the leader's epoch of before. Where the new one is lower, it follows without an error,
        // and nothing comes.
        if self.known.get(topic).is_some_and(|known| *known != epoch) {
            return Room::None;
        }
        match self.used.get(topic) {
            Some(Use::Leaving) => Room::Leaving,
            Some(Use::Followed) => Room::None,
            None => {
                self.used.insert(topic.clone(), Use::Followed);
                self.known.insert(topic.clone(), epoch);
                Room::Taken
            }
        }
    }
}

/// Where a topic may be followed.
enum Found {
    Reservation(Reservation),
    /// Once these are without the topic.
    Leaving(watch::Receiver<Topics>),
}

pub(super) struct Shared {
    consumer: Closing<BaseConsumer<Context>>,
    topics: watch::Sender<Topics>,
    /// The number of the password that the consumer has.
    serial: Mutex<u64>,
    _serving: DropGuard,
}

impl Owner for Arc<Shared> {
    fn client(&self) -> Option<&Client<Context>> {
        self.consumer.get().map(Consumer::client)
    }
}

pub(super) struct Consumers {
    clients: Clients,
    shared: Mutex<Vec<Weak<Shared>>>,
}

/// A topic's queue on a consumer that has no other of that topic.
struct Followed {
    /// Stopped before the place is free.
    queue: Queue<Arc<Shared>>,
    place: Reservation,
}

struct Reservation {
    shared: Arc<Shared>,
    topic: TopicName,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.topics.send_modify(|topics| {
            topics.used.remove(&self.topic);
        });
    }
}

/// A queue of a topic for as long as it is followed.
pub(super) struct TopicQueue(Option<Followed>);

impl TopicQueue {
    pub(super) fn get(&mut self) -> Option<&mut Queue<Arc<Shared>>> {
        self.0.as_mut().map(|followed| &mut followed.queue)
    }
}

impl Drop for TopicQueue {
    fn drop(&mut self) {
        let Some(followed) = self.0.take() else { return };
        let Reservation { shared, topic } = &followed.place;
        shared.topics.send_modify(|topics| {
            topics.used.insert(topic.clone(), Use::Leaving);
        });
        // Each partition is stopped by librdkafka's own thread, which is waited for.
        drop(Closing::new(followed));
    }
}

impl Consumers {
    pub(super) fn new(clients: Clients) -> Self {
        Self { clients, shared: Mutex::default() }
    }

    /// A queue for the partitions of a topic of this epoch.
    pub(super) async fn queue(&self, topic: &TopicName, epoch: Epoch) -> Result<TopicQueue, BusError> {
        let place = loop {
            let mut leaving = match self.find(topic, epoch)? {
                Found::Reservation(place) => break place,
                Found::Leaving(leaving) => leaving,
            };
            // The sender is gone with its last topic.
            let _ = leaving.wait_for(|topics| topics.used.get(topic) != Some(&Use::Leaving)).await;
        };
        let queue = Queue::new(Arc::clone(&place.shared), topic);
        let queue = queue.map_err(|error| self.clients.unavailable("start a tail", &error))?;
        Ok(TopicQueue(Some(Followed { queue, place })))
    }

    /// On the first consumer that has not got the topic, or is about to be without, and never had it with another epoch.
    fn find(&self, topic: &TopicName, epoch: Epoch) -> Result<Found, BusError> {
        let mut all = self.all();
        for shared in all.iter().filter_map(Weak::upgrade) {
            let mut room = Room::None;
            shared.topics.send_if_modified(|topics| {
                room = topics.take(topic, epoch);
                room == Room::Taken
            });
            match room {
                Room::Taken => return Ok(Found::Reservation(Reservation { shared, topic: topic.clone() })),
                Room::Leaving => return Ok(Found::Leaving(shared.topics.subscribe())),
                Room::None => {}
            }
        }
        let shared = Shared::start(&self.clients).map_err(|error| self.clients.unavailable("start a tail", &error))?;
        shared.topics.send_modify(|topics| {
            topics.take(topic, epoch);
        });
        all.push(Arc::downgrade(&shared));
        Ok(Found::Reservation(Reservation { shared, topic: topic.clone() }))
    }

    /// Gives each consumer the password of now.
    pub(super) fn renew(&self) {
        for shared in self.all().iter().filter_map(Weak::upgrade) {
            let mut serial = shared.serial.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(client) = shared.client()
                && let Err(error) = self.clients.renew(client, &mut serial)
            {
                tracing::warn!(target: "acb::kafka", %error, "the tails keep the password before");
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, Vec<Weak<Shared>>> {
        let mut all = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|shared| shared.strong_count() > 0);
        all
    }
}

impl Shared {
    fn start(clients: &Clients) -> Result<Arc<Self>, KafkaError> {
        let serial = Mutex::new(clients.serial());
        let mut consumer: BaseConsumer<Context> = clients.follower().create_with_context(Context)?;
        let happened = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        consumer.set_nonempty_callback({
            let happened = Arc::clone(&happened);
            move || happened.notify_one()
        });
        let shared = Arc::new(Self {
            consumer: Closing::new(consumer),
            topics: watch::Sender::default(),
            serial,
            _serving: stop.clone().drop_guard(),
        });
        let serve = serve(Arc::downgrade(&shared), happened);
        tokio::spawn(async move { stop.run_until_cancelled(serve).await });
        Ok(shared)
    }
}

/// Takes what librdkafka says of the consumer as a whole, which would pile up: connections that fail, and that it makes again by itself.
async fn serve(shared: Weak<Shared>, happened: Arc<Notify>) {
    loop {
        if let Some(shared) = shared.upgrade()
            && let Some(consumer) = shared.consumer.get()
        {
            while let Some(event) = consumer.poll(Duration::ZERO) {
                if let Err(error) = event {
                    tracing::debug!(target: "acb::kafka", %error, "the tails wait");
                }
            }
        }
        happened.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_made_anew_is_followed_by_a_consumer_that_never_had_it() {
        let (topic, other) = (TopicName::context("acme", "plans"), TopicName::context("acme", "notes"));
        let mut topics = Topics::default();
        assert_eq!(topics.take(&topic, 1), Room::Taken);
        assert_eq!((topics.take(&topic, 1), topics.take(&topic, 2)), (Room::None, Room::None));
        topics.used.insert(topic.clone(), Use::Leaving);
        assert_eq!((topics.take(&topic, 1), topics.take(&topic, 2)), (Room::Leaving, Room::None));
        topics.used.remove(&topic);
        assert_eq!((topics.take(&topic, 2), topics.take(&other, 2)), (Room::None, Room::Taken));
        assert_eq!(topics.take(&topic, 1), Room::Taken, "it is the same topic still");
    }
}
