//! Moves entries of the outbox to the log: in order for each instance, at least once, by any replica.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{
    noun::Noun,
    ports::{Entry, Instance, Outbox},
};
use crate::{
    fault::{Code, Fault},
    kit::retries::Retries,
    log::bus::{AppendError, Bus, BusError, Partition, TopicName},
};

/// How often to look for what another replica left behind.
pub const POLL: Duration = Duration::from_secs(5);

/// How long the shape of a topic is taken for current.
const SHAPE_AGE: Duration = Duration::from_secs(10);

/// The longest wait after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What a claim has not begun to append by then, it gives back. Its transaction idles meanwhile and during the last append, and
/// PostgreSQL ends it after 30 s.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);

/// The longest that the log may take. What it takes later all the same is there twice, and its readers go by the version.
const APPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The first pause before a partition that refuses is tried again, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Instances that are passed over. With more of them nothing else is looked for until some are tried again.
const MAX_PASSED_OVER: usize = 10_000;

/// Claims of a round, which then begins anew.
const ROUND: usize = 64;

/// A partition of a topic; without its number the topic.
type Destination = (TopicName, Option<Partition>);

/// Wakes the relay of this replica after a commit. Clones wake the same one.
#[derive(Clone, Debug, Default)]
pub struct Committed(Arc<Notify>);

impl Committed {
    /// Something was committed that the log is to know.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

/// The relay of one replica.
pub struct Relay {
    bus: Arc<dyn Bus>,
    outbox: Arc<dyn Outbox>,
    nouns: HashMap<&'static str, Arc<dyn Noun>>,
    committed: Committed,
    poll: Duration,
    shapes: HashMap<TopicName, (u32, Instant)>,
    /// Places that refused lately. One try, and not one for each instance, shows whether they still do.
    refusing: Retries<Destination>,
    /// Instances whose entries belong there, and until when they are passed over: they hold up no others.
    passed_over: HashMap<Instance, Instant>,
    /// Whose turn it was last.
    last: Option<Instance>,
    /// Claims of this round.
    claims: usize,
}

/// What became of one entry.
enum Outcome {
    /// The log has it, or never will: it leaves the outbox.
    Settled,
    /// It stays, and with it what comes after it of its instance.
    Stays(String),
}

impl Relay {
    /// For these nouns. Others are left to replicas that know them.
    #[must_use]
    pub fn new(
        bus: Arc<dyn Bus>,
        outbox: Arc<dyn Outbox>,
        nouns: impl IntoIterator<Item = Arc<dyn Noun>>,
        committed: Committed,
        poll: Duration,
    ) -> Self {
        Self {
            bus,
            outbox,
            nouns: nouns.into_iter().map(|noun| (noun.name(), noun)).collect(),
            committed,
            poll,
            shapes: HashMap::new(),
            refusing: Retries::new(RETRY, MAX_PASSED_OVER),
            passed_over: HashMap::new(),
            last: None,
            claims: 0,
        }
    }

    /// Relays until the hub ends.
    pub async fn run(mut self, cancellation: CancellationToken) {
        let mut backoff = Duration::from_millis(50);
        loop {
            let pause = match self.drain().await {
                Ok(()) => {
                    backoff = Duration::from_millis(50);
                    self.poll
                }
                Err(fault) => {
                    warn!(%fault, "what rows have to tell waits for the log");
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    backoff
                }
            };
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = self.committed.0.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Relays until nothing is left that is not claimed by another replica. An error tells of what the log does not take.
    async fn drain(&mut self) -> Result<(), Fault> {
        let nouns: Vec<&str> = self.nouns.keys().copied().collect();
        let mut stays = None;
        loop {
            let now = Instant::now();
            self.passed_over.retain(|_, until| now < *until);
            if self.passed_over.len() >= MAX_PASSED_OVER {
                break;
            }
            let passed_over: Vec<Instance> = self.passed_over.keys().cloned().collect();
            // A round ends also where new instances always come behind the last one: the first ones must not wait for them.
            if self.claims >= ROUND {
                (self.last, self.claims) = (None, 0);
            }
            let Some(claim) = self.outbox.claim(&nouns, self.last.as_ref(), &passed_over).await? else {
                // Nothing behind the last one: the next round begins with the first.
                self.claims = 0;
                match self.last.take() {
                    Some(_) => continue,
                    None => break,
                }
            };
            self.last = Some(claim.last());
            self.claims += 1;
            let (settled, why) = self.relay(claim.entries()).await;
            debug!(settled = settled.len(), "entries of the outbox relayed");
            claim.done(&settled).await?;
            stays = stays.or(why);
        }
        stays.map_or(Ok(()), |why| Err(Fault::unavailable("LOG_UNAVAILABLE", why)))
    }

    /// In waves of one entry for each instance, so that a refused append can't be overtaken by the next entry of its instance.
    async fn relay(&mut self, entries: &[Entry]) -> (Vec<i64>, Option<String>) {
        let begin_by = Instant::now() + BEGIN_WITHIN;
        let mut settled = Vec::with_capacity(entries.len());
        let mut why = None;
        let mut rest: Vec<(&Entry, Arc<dyn Noun>)> =
            entries.iter().filter_map(|entry| Some((entry, self.nouns.get(entry.instance.noun.as_str())?.clone()))).collect();
        while !rest.is_empty() && why.is_none() && Instant::now() < begin_by {
            let mut seen = HashSet::new();
            let (wave, later): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(entry, _)| seen.insert(&entry.instance));
            rest = later;
            let mut placed = Vec::with_capacity(wave.len());
            for (entry, noun) in wave {
                let topic = noun.topic(entry);
                match self.place(entry, &*noun, &topic, begin_by).await {
                    Ok(Some(partition)) => placed.push((entry, noun, topic, partition)),
                    Ok(None) => settled.push(entry.sequence),
                    Err(error) => why = Some(error),
                }
            }
            let bus = &self.bus;
            let appends = placed.into_iter().map(async |(entry, noun, topic, partition)| {
                let outcome = append(&**bus, entry, &*noun, &topic, partition).await;
                (entry, (topic, Some(partition)), outcome)
            });
            for (entry, place, outcome) in join_all(appends).await {
                match outcome {
                    Outcome::Settled => {
                        self.refusing.forget(&place);
                        settled.push(entry.sequence);
                    }
                    Outcome::Stays(error) => {
                        self.refused(place, &entry.instance);
                        why = Some(error);
                    }
                }
            }
        }
        (settled, why)
    }

    /// The partition where an entry belongs. `None` where its topic is gone for good.
    async fn place(
        &mut self,
        entry: &Entry,
        noun: &dyn Noun,
        topic: &TopicName,
        by: Instant,
    ) -> Result<Option<Partition>, String> {
        let whole = (topic.clone(), None);
        self.is_tried_again(&whole, &entry.instance)?;
        let known = self.shapes.get(topic).filter(|(_, at)| at.elapsed() < SHAPE_AGE).map(|(partitions, _)| *partitions);
        let partitions = match known {
            Some(partitions) => partitions,
            None => match timeout_at(by, self.bus.topic(topic)).await {
                Ok(Ok(info)) => {
                    self.shapes.insert(topic.clone(), (info.partitions, Instant::now()));
                    self.refusing.forget(&whole);
                    info.partitions
                }
                Ok(Err(BusError::NoSuchTopic(_))) if !noun.has_topic(entry) => {
                    let Instance { noun, id } = &entry.instance;
                    warn!(noun, %id, %topic, "the topic is gone, and with it what there was to tell it");
                    return Ok(None);
                }
                Ok(Err(error)) => {
                    self.refused(whole, &entry.instance);
                    return Err(error.to_string());
                }
                Err(_) => {
                    self.refused(whole, &entry.instance);
                    return Err(format!("{topic} was not described within {BEGIN_WITHIN:?}"));
                }
            },
        };
        let partition = noun.partition(entry, partitions);
        self.is_tried_again(&(topic.clone(), Some(partition)), &entry.instance)?;
        Ok(Some(partition))
    }

    /// An error where a place has refused lately: the instance is passed over until that is tried again.
    fn is_tried_again(&mut self, place: &Destination, instance: &Instance) -> Result<(), String> {
        let Some(until) = self.refusing.waits(place, Instant::now()) else { return Ok(()) };
        self.passed_over.insert(instance.clone(), until);
        Err(format!("{} refused records a moment ago", place.0))
    }

    fn refused(&mut self, place: Destination, instance: &Instance) {
        let now = Instant::now();
        // It may have refused another entry of the same wave.
        let until = self.refusing.waits(&place, now).unwrap_or_else(|| self.refusing.failed(place, now));
        self.passed_over.insert(instance.clone(), until);
    }
}

async fn append(bus: &dyn Bus, entry: &Entry, noun: &dyn Noun, topic: &TopicName, partition: Partition) -> Outcome {
    let Instance { noun: name, id } = &entry.instance;
    for smaller in [false, true] {
        let record = match if smaller { noun.smaller(entry) } else { noun.record(entry) } {
            Ok(record) => record,
            // A newer replica can.
            Err(fault) if fault.code == Code::Unavailable => return Outcome::Stays(fault.message),
            Err(fault) => {
                error!(noun = name, %id, %fault, "a damaged entry of the outbox is dropped");
                return Outcome::Settled;
            }
        };
        let appended = timeout(APPEND_TIMEOUT, async { bus.append(topic, partition, record).await?.await });
        match appended.await {
            Ok(Ok(_)) => return Outcome::Settled,
            Ok(Err(AppendError::TooLarge { .. })) if !smaller => {}
            Ok(Err(error @ AppendError::TooLarge { .. })) => {
                error!(noun = name, %id, %error, "an entry of the outbox is dropped: the topic takes no record of its size");
                return Outcome::Settled;
            }
            Ok(Err(error)) => return Outcome::Stays(error.to_string()),
            Err(_) => return Outcome::Stays(format!("{topic} did not acknowledge within {APPEND_TIMEOUT:?}")),
        }
    }
    Outcome::Settled
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::log::{
        bus::{Appended, Bounds, Logged, Offset, Pending, Record, Tail, TopicInfo},
        outbox::ports::Claim,
        partition::partition_of,
    };

    /// Two partitions, of which the first may refuse.
    struct HalfALog {
        refuses: Mutex<bool>,
        tries: Mutex<[usize; 2]>,
    }

    #[async_trait]
    impl Bus for HalfALog {
        async fn topic(&self, _: &TopicName) -> Result<TopicInfo, BusError> {
            Ok(TopicInfo { epoch: 1, partitions: 2 })
        }

        async fn append(&self, _: &TopicName, partition: Partition, _: Record) -> Result<Pending, AppendError> {
            self.tries.lock().unwrap()[partition as usize] += 1;
            if partition == 0 && *self.refuses.lock().unwrap() {
                return Err(AppendError::Refused("there is no leader".into()));
            }
            Ok(Box::pin(std::future::ready(Ok(Appended::Unknown))))
        }

        async fn tail(&self, topic: &TopicName, _: &[Offset]) -> Result<Tail, BusError> {
            Err(BusError::NoSuchTopic(topic.clone()))
        }

        async fn read(&self, _: &TopicName, _: Partition, _: Offset, _: usize) -> Result<Vec<Logged>, BusError> {
            Ok(Vec::new())
        }

        async fn bounds(&self, _: &TopicName) -> Result<Vec<Bounds>, BusError> {
            Ok(Vec::new())
        }

        async fn offsets_at(&self, _: &TopicName, _: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
            Ok(Vec::new())
        }
    }

    /// Its topic is always there.
    struct Notes;

    impl Noun for Notes {
        fn name(&self) -> &'static str {
            "note"
        }

        fn topic(&self, entry: &Entry) -> TopicName {
            TopicName::context("acme", &entry.topic)
        }

        fn has_topic(&self, _: &Entry) -> bool {
            true
        }

        fn partition(&self, entry: &Entry, partitions: u32) -> Partition {
            partition_of(entry.instance.id, partitions)
        }

        fn record(&self, entry: &Entry) -> Result<Record, Fault> {
            Ok(Record { key: None, headers: Vec::new(), value: Some(entry.content.clone()) })
        }

        fn smaller(&self, entry: &Entry) -> Result<Record, Fault> {
            self.record(entry)
        }
    }

    #[derive(Clone, Default)]
    struct Entries(Arc<Mutex<Vec<Entry>>>);

    struct Claimed(Entries, Vec<Entry>);

    #[async_trait]
    impl Outbox for Entries {
        async fn claim(
            &self,
            nouns: &[&str],
            after: Option<&Instance>,
            passed_over: &[Instance],
        ) -> Result<Option<Box<dyn Claim>>, Fault> {
            let mut all = self.0.lock().unwrap().clone();
            all.sort_by(|one, other| one.instance.cmp(&other.instance));
            let next = all.into_iter().filter(|entry| {
                let instance = &entry.instance;
                nouns.contains(&instance.noun.as_str()) && Some(instance) > after && !passed_over.contains(instance)
            });
            let claim: Box<dyn Claim> = Box::new(Claimed(self.clone(), next.take(16).collect()));
            Ok(Some(claim).filter(|claim| !claim.entries().is_empty()))
        }
    }

    #[async_trait]
    impl Claim for Claimed {
        fn entries(&self) -> &[Entry] {
            &self.1
        }

        fn last(&self) -> Instance {
            self.1.last().unwrap().instance.clone()
        }

        async fn done(self: Box<Self>, sequences: &[i64]) -> Result<(), Fault> {
            self.0.0.lock().unwrap().retain(|entry| !sequences.contains(&entry.sequence));
            Ok(())
        }
    }

    fn entry(sequence: i64, noun: &str, id: Uuid) -> Entry {
        let instance = Instance { noun: noun.to_owned(), id };
        Entry { sequence, instance, topic: "notes".to_owned(), kind: Some(1), content: Bytes::new() }
    }

    #[tokio::test]
    async fn a_partition_that_refuses_holds_up_no_other_and_is_not_tried_for_each_instance() {
        let in_partition = |partition| std::iter::repeat_with(Uuid::new_v4).filter(move |id| partition_of(*id, 2) == partition);
        let ids = in_partition(0).take(100).chain(in_partition(1).take(1));
        let outbox = Entries::default();
        *outbox.0.lock().unwrap() = (0..).zip(ids).map(|(sequence, id)| entry(sequence, "note", id)).collect();
        let bus = Arc::new(HalfALog { refuses: Mutex::new(true), tries: Mutex::default() });
        let nouns: [Arc<dyn Noun>; 1] = [Arc::new(Notes)];
        let mut relay = Relay::new(bus.clone(), Arc::new(outbox.clone()), nouns, Committed::default(), POLL);
        relay.drain().await.unwrap_err();
        let tries = || *bus.tries.lock().unwrap();
        let first = tries();
        // Those of the first claim were tried at the same time.
        assert!(outbox.0.lock().unwrap().len() == 100 && first[0] <= 16 && first[1] == 1, "{first:?}");
        relay.drain().await.unwrap();
        assert_eq!(tries(), first, "it is left alone for a while");

        *bus.refuses.lock().unwrap() = false;
        tokio::time::sleep(RETRY.0).await;
        relay.drain().await.unwrap();
        assert!(outbox.0.lock().unwrap().is_empty() && relay.passed_over.is_empty());
    }

    #[tokio::test]
    async fn what_a_newer_hub_wrote_is_left_to_it() {
        let outbox = Entries::default();
        *outbox.0.lock().unwrap() = vec![entry(1, "newer", Uuid::new_v4()), entry(2, "note", Uuid::new_v4())];
        let bus = Arc::new(HalfALog { refuses: Mutex::new(false), tries: Mutex::default() });
        let nouns: [Arc<dyn Noun>; 1] = [Arc::new(Notes)];
        Relay::new(bus, Arc::new(outbox.clone()), nouns, Committed::default(), POLL).drain().await.unwrap();
        let left: Vec<_> = outbox.0.lock().unwrap().iter().map(|entry| entry.sequence).collect();
        assert_eq!(left, [1]);
    }
}
