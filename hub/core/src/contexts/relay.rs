//! Moves changes of contexts from the outbox to the log: in order for each context, at least once, by any replica.

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
    change,
    context::ContextId,
    ports::{Outbox, Unlogged},
};
use crate::{
    directory::snapshot::Directory,
    fault::Fault,
    kit::retries::Retries,
    log::{
        bus::{AppendError, Bus, BusError, Partition, TopicName},
        partition::partition_of,
    },
};

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

/// Contexts that are passed over. With more of them nothing else is looked for until some are tried again.
const MAX_PASSED_OVER: usize = 10_000;

/// A partition of the topic of a type; without its number the topic.
pub(crate) type Place = (String, Option<Partition>);

/// As a relay begins: there are none.
pub(crate) fn refusals() -> Retries<Place> {
    Retries::new(RETRY, MAX_PASSED_OVER)
}

/// The relay of one replica.
pub(crate) struct Relay {
    pub(crate) tenant: String,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) directory: Directory,
    /// Wakes the relay after each commit of this replica.
    pub(crate) committed: Arc<Notify>,
    /// How often to look for what another replica left behind.
    pub(crate) poll: Duration,
    pub(crate) shapes: HashMap<String, (u32, Instant)>,
    /// Places that refused lately. One try, and not one for each context, shows whether they still do.
    pub(crate) refusing: Retries<Place>,
    /// Contexts whose changes belong there, and until when they are passed over: they hold up no others.
    pub(crate) passed_over: HashMap<ContextId, Instant>,
}

/// What became of one change.
enum Outcome {
    /// The log has it, or never will: it leaves the outbox.
    Settled,
    /// It stays, and with it what comes after it in its context.
    Stays(String),
}

impl Relay {
    pub(crate) async fn run(mut self, cancellation: CancellationToken) {
        let mut backoff = Duration::from_millis(50);
        loop {
            let pause = match self.drain().await {
                Ok(()) => {
                    backoff = Duration::from_millis(50);
                    self.poll
                }
                Err(fault) => {
                    warn!(%fault, "changes of contexts wait for the log");
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    backoff
                }
            };
            tokio::select! {
                () = cancellation.cancelled() => return,
                () = self.committed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Relays until nothing is left that is not claimed by another replica. An error tells of what the log does not take.
    pub(crate) async fn drain(&mut self) -> Result<(), Fault> {
        let mut stays = None;
        loop {
            let now = Instant::now();
            self.passed_over.retain(|_, until| now < *until);
            if self.passed_over.len() >= MAX_PASSED_OVER {
                break;
            }
            let passed_over: Vec<ContextId> = self.passed_over.keys().copied().collect();
            let Some(claim) = self.outbox.claim(&passed_over).await? else { break };
            let (settled, why) = self.relay(claim.changes()).await;
            debug!(settled = settled.len(), "changes of contexts relayed");
            claim.done(&settled).await?;
            stays = stays.or(why);
        }
        stays.map_or(Ok(()), |why| Err(Fault::unavailable("LOG_UNAVAILABLE", why)))
    }

    /// In waves of one change for each context, so that a refused append can't be overtaken by the next change of its context.
    async fn relay(&mut self, changes: &[Unlogged]) -> (Vec<i64>, Option<String>) {
        let begin_by = Instant::now() + BEGIN_WITHIN;
        let mut settled = Vec::with_capacity(changes.len());
        let mut why = None;
        let mut rest: Vec<&Unlogged> = changes.iter().collect();
        while !rest.is_empty() && why.is_none() && Instant::now() < begin_by {
            let mut seen = HashSet::new();
            let (wave, later): (Vec<_>, Vec<_>) = rest.into_iter().partition(|change| seen.insert(change.context));
            rest = later;
            let mut placed = Vec::with_capacity(wave.len());
            for change in wave {
                match self.place(change, begin_by).await {
                    Ok(Some(partition)) => placed.push((change, partition)),
                    Ok(None) => settled.push(change.sequence),
                    Err(error) => why = Some(error),
                }
            }
            let relay = &*self;
            let appends = placed.into_iter().map(async |(change, partition)| {
                let topic = TopicName::context(&relay.tenant, &change.kind);
                (change, partition, relay.append(change, &topic, partition).await)
            });
            for (change, partition, outcome) in join_all(appends).await {
                let place = (change.kind.clone(), Some(partition));
                match outcome {
                    Outcome::Settled => {
                        self.refusing.forget(&place);
                        settled.push(change.sequence);
                    }
                    Outcome::Stays(error) => {
                        self.refused(place, change.context);
                        why = Some(error);
                    }
                }
            }
        }
        (settled, why)
    }

    /// The partition where a change belongs. `None` where its type is gone from the tenant, and its topic with it.
    async fn place(&mut self, change: &Unlogged, by: Instant) -> Result<Option<Partition>, String> {
        let topic = TopicName::context(&self.tenant, &change.kind);
        let whole = (change.kind.clone(), None);
        self.is_tried_again(&whole, change.context)?;
        let known = self.shapes.get(&change.kind).filter(|(_, at)| at.elapsed() < SHAPE_AGE).map(|(partitions, _)| *partitions);
        let partitions = match known {
            Some(partitions) => partitions,
            None => match timeout_at(by, self.bus.topic(&topic)).await {
                Ok(Ok(info)) => {
                    self.shapes.insert(change.kind.clone(), (info.partitions, Instant::now()));
                    self.refusing.forget(&whole);
                    info.partitions
                }
                Ok(Err(BusError::NoSuchTopic(_))) if !self.directory.snapshot().context_types.contains_key(&change.kind) => {
                    warn!(context = %change.context, r#type = change.kind, "the context type is gone, and with it a change of a context");
                    return Ok(None);
                }
                Ok(Err(error)) => {
                    self.refused(whole, change.context);
                    return Err(error.to_string());
                }
                Err(_) => {
                    self.refused(whole, change.context);
                    return Err(format!("{topic} was not described within {BEGIN_WITHIN:?}"));
                }
            },
        };
        let partition = partition_of(change.context.0, partitions);
        self.is_tried_again(&(change.kind.clone(), Some(partition)), change.context)?;
        Ok(Some(partition))
    }

    /// An error where a place has refused lately: the context is passed over until that is tried again.
    fn is_tried_again(&mut self, place: &Place, context: ContextId) -> Result<(), String> {
        let Some(until) = self.refusing.waits(place, Instant::now()) else { return Ok(()) };
        self.passed_over.insert(context, until);
        Err(format!("the topic of {} refused changes a moment ago", place.0))
    }

    fn refused(&mut self, place: Place, context: ContextId) {
        let now = Instant::now();
        // It may have refused another change of the same wave.
        let until = self.refusing.waits(&place, now).unwrap_or_else(|| self.refusing.failed(place, now));
        self.passed_over.insert(context, until);
    }

    async fn append(&self, change: &Unlogged, topic: &TopicName, partition: Partition) -> Outcome {
        let mut event = change.event.clone();
        for stripped in [false, true] {
            let record = match change::record(event.clone()) {
                Ok(record) => record,
                Err(fault) => {
                    error!(context = %change.context, %fault, "a damaged change of a context is dropped");
                    return Outcome::Settled;
                }
            };
            let appended = timeout(APPEND_TIMEOUT, async { self.bus.append(topic, partition, record).await?.await });
            match appended.await {
                Ok(Ok(_)) => return Outcome::Settled,
                Ok(Err(AppendError::TooLarge { .. })) if !stripped => match change::without_payload(event) {
                    Ok(smaller) => event = smaller,
                    Err(_) => return Outcome::Settled,
                },
                Ok(Err(error @ AppendError::TooLarge { .. })) => {
                    error!(context = %change.context, %error, "a change of a context is dropped: the topic takes no record of its size");
                    return Outcome::Settled;
                }
                Ok(Err(error)) => return Outcome::Stays(error.to_string()),
                Err(_) => return Outcome::Stays(format!("{topic} did not acknowledge within {APPEND_TIMEOUT:?}")),
            }
        }
        Outcome::Settled
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use bytes::Bytes;
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::{
        contexts::{
            change::{Change, tests::context},
            context::Payload,
            ports::Claim,
        },
        log::bus::{Appended, Bounds, Logged, Offset, Pending, Record, Tail, TopicInfo},
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

    #[derive(Clone, Default)]
    struct Changes(Arc<Mutex<Vec<Unlogged>>>);

    struct Claimed(Changes, Vec<Unlogged>);

    #[async_trait]
    impl Outbox for Changes {
        async fn claim(&self, passed_over: &[ContextId]) -> Result<Option<Box<dyn Claim>>, Fault> {
            let all = self.0.lock().unwrap();
            let some: Vec<_> = all.iter().filter(|change| !passed_over.contains(&change.context)).take(16).cloned().collect();
            let claim: Box<dyn Claim> = Box::new(Claimed(self.clone(), some));
            Ok(Some(claim).filter(|claim| !claim.changes().is_empty()))
        }
    }

    #[async_trait]
    impl Claim for Claimed {
        fn changes(&self) -> &[Unlogged] {
            &self.1
        }

        async fn done(self: Box<Self>, sequences: &[i64]) -> Result<(), Fault> {
            self.0.0.lock().unwrap().retain(|change| !sequences.contains(&change.sequence));
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_partition_that_refuses_holds_up_no_other_and_is_not_tried_for_each_context() {
        let event: Bytes = change::encode(Change::Created, &context(Payload::Unread), None).unwrap();
        let in_partition =
            |partition| std::iter::repeat_with(|| ContextId(Uuid::new_v4())).filter(move |id| partition_of(id.0, 2) == partition);
        let contexts = in_partition(0).take(100).chain(in_partition(1).take(1));
        let kind = || "notes".to_owned();
        let changes = (0..).zip(contexts);
        let changes = changes.map(|(sequence, context)| Unlogged { sequence, context, kind: kind(), event: event.clone() });
        let outbox = Changes(Arc::new(Mutex::new(changes.collect())));
        let bus = Arc::new(HalfALog { refuses: Mutex::new(true), tries: Mutex::default() });
        let mut relay = Relay {
            tenant: "acme".to_owned(),
            bus: bus.clone(),
            outbox: Arc::new(outbox.clone()),
            directory: Directory::default(),
            committed: Arc::default(),
            poll: Duration::from_secs(5),
            shapes: HashMap::new(),
            refusing: refusals(),
            passed_over: HashMap::new(),
        };
        relay.drain().await.unwrap_err();
        assert_eq!((outbox.0.lock().unwrap().len(), *bus.tries.lock().unwrap()), (100, [16, 1]));
        relay.drain().await.unwrap();
        assert_eq!(*bus.tries.lock().unwrap(), [16, 1], "it is left alone for a while");

        *bus.refuses.lock().unwrap() = false;
        tokio::time::sleep(RETRY.0).await;
        relay.drain().await.unwrap();
        assert!(outbox.0.lock().unwrap().is_empty() && relay.passed_over.is_empty());
    }
}
