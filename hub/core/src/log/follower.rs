//! Follows one topic through one life of it: batch after batch, and again from the last position where the tail breaks. What is done with a
//! record is not its business.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use tokio::time::{Instant, sleep_until};

use super::bus::{Batch, Bus, BusError, Epoch, Offset, Partition, Tail, TopicInfo, TopicName};

/// How often the topic is asked whether it still is the same, while its tail brings nothing else.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The pause before a broken tail is followed again; each doubles the one before, up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What following a topic comes to.
#[derive(Debug)]
pub enum Followed {
    /// The next records of one partition.
    Batch(Batch),
    /// The topic has more partitions than before. They are followed from their start.
    Grown(TopicInfo),
    /// The topic was made anew: nothing that was read is in it.
    MadeAnew,
    /// There is no such topic now.
    Gone(TopicName),
}

/// A reader of one topic with a position in each partition.
pub struct Follower {
    bus: Arc<dyn Bus>,
    topic: TopicName,
    epoch: Epoch,
    from: Vec<Offset>,
    tail: Option<Tail>,
    /// When the tail may be followed again, and the pause after that.
    again: (Instant, Duration),
    look_at: Instant,
}

impl Follower {
    /// Follows `topic`, as long as it has this epoch, from these offsets on.
    #[must_use]
    pub fn new(bus: Arc<dyn Bus>, topic: TopicName, epoch: Epoch, from: Vec<Offset>) -> Self {
        let now = Instant::now();
        Self { bus, topic, epoch, from, tail: None, again: (now, PAUSE), look_at: now + LOOK_EVERY }
    }

    /// Everything below was handed over.
    #[must_use]
    pub fn positions(&self) -> &[Offset] {
        &self.from
    }

    /// Goes on in one partition from another offset.
    pub fn seek(&mut self, partition: Partition, offset: Offset) {
        if let Some(from) = self.from.get_mut(partition as usize) {
            *from = offset;
            self.tail = None;
        }
    }

    /// What comes next. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Followed {
        loop {
            let step = if self.tail.is_none() { self.open().await } else { self.read().await };
            match step {
                Ok(Some(followed)) => return followed,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(topic = %self.topic, %error, "the log can't be followed, trying again");
                    self.tail = None;
                    self.pause();
                }
            }
        }
    }

    fn pause(&mut self) {
        let (_, pause) = self.again;
        self.again = (Instant::now() + pause, (pause * 2).min(LONGEST_PAUSE));
    }

    /// Opens the tail, if the topic still is what it was.
    async fn open(&mut self) -> Result<Option<Followed>, BusError> {
        sleep_until(self.again.0).await;
        if let Some(changed) = self.look().await? {
            return Ok(Some(changed));
        }
        self.tail = Some(self.bus.tail(&self.topic, &self.from).await?);
        Ok(None)
    }

    async fn read(&mut self) -> Result<Option<Followed>, BusError> {
        let Some(tail) = &mut self.tail else { return Ok(None) };
        tokio::select! {
            batch = tail.next() => match batch {
                Some(Ok(batch)) => {
                    self.again.1 = PAUSE;
                    if let Some(from) = self.from.get_mut(batch.partition as usize) {
                        *from = batch.next.max(*from);
                    }
                    Ok(Some(Followed::Batch(batch)))
                }
                Some(Err(error)) => Err(error),
                None => Err(BusError::Unavailable(format!("the tail of {} ended", self.topic))),
            },
            // A tail that goes on is worth more than an answer that does not come.
            () = sleep_until(self.look_at) => Ok(self.look().await.unwrap_or_default()),
        }
    }

    /// What has changed about the topic.
    async fn look(&mut self) -> Result<Option<Followed>, BusError> {
        // First: where the answer does not come, the next look is not at once.
        self.look_at = Instant::now() + LOOK_EVERY;
        let info = match self.bus.topic(&self.topic).await {
            Ok(info) => info,
            Err(BusError::NoSuchTopic(topic)) => {
                self.tail = None;
                self.pause();
                return Ok(Some(Followed::Gone(topic)));
            }
            Err(error) => return Err(error),
        };
        if info.epoch != self.epoch {
            self.tail = None;
            self.pause();
            return Ok(Some(Followed::MadeAnew));
        }
        let partitions = info.partitions as usize;
        if partitions > self.from.len() {
            self.from.resize(partitions, 0);
            self.tail = None;
            return Ok(Some(Followed::Grown(info)));
        }
        Ok(None)
    }
}
