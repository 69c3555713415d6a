//! Moves changes of contexts from the outbox to the log: in order for each context, at least once, by any replica.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{
    bus::{AppendError, Bus, BusError, Partition, TopicName},
    context::ContextId,
    context_event,
    context_store::{Outbox, Unlogged},
    directory::Directory,
    fault::Fault,
    message::partition_of,
};

/// How long the shape of a topic is taken for current.
const SHAPE_AGE: Duration = Duration::from_secs(10);

/// The longest wait after a failure.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The longest that the log may take, before the claim is given back.
const APPEND_TIMEOUT: Duration = Duration::from_secs(40);

/// The relay of one replica.
pub(crate) struct Relay {
    pub(crate) tenant: String,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) directory: Directory,
    /// Rung after each commit of this replica.
    pub(crate) bell: Arc<Notify>,
    /// How often to look for what another replica left behind.
    pub(crate) poll: Duration,
    pub(crate) shapes: HashMap<String, (u32, Instant)>,
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
                () = self.bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Relays until nothing is left that is not claimed by another replica.
    pub(crate) async fn drain(&mut self) -> Result<(), Fault> {
        while let Some(claim) = self.outbox.claim().await? {
            let (settled, stuck) = self.relay(claim.changes()).await;
            debug!(settled = settled.len(), "changes of contexts relayed");
            claim.done(&settled).await?;
            if let Some(why) = stuck {
                return Err(Fault::unavailable("LOG_UNAVAILABLE", why));
            }
        }
        Ok(())
    }

    /// In waves of one change for each context, so that a refused append can't be overtaken by the next change of its context.
    async fn relay(&mut self, changes: &[Unlogged]) -> (Vec<i64>, Option<String>) {
        let mut settled = Vec::with_capacity(changes.len());
        let mut stuck: HashSet<ContextId> = HashSet::new();
        let mut why = None;
        let mut rest: Vec<&Unlogged> = changes.iter().collect();
        while !rest.is_empty() {
            let mut seen = HashSet::new();
            let (wave, later): (Vec<_>, Vec<_>) = rest.into_iter().partition(|change| seen.insert(change.context));
            rest = later;
            let mut places = Vec::with_capacity(wave.len());
            for change in &wave {
                places.push(if stuck.contains(&change.context) { None } else { Some(self.place(change).await) });
            }
            let relay = &*self;
            let outcomes = join_all(wave.iter().zip(places).filter_map(|(change, place)| {
                let place = place?;
                Some(async move {
                    let outcome = match place {
                        Ok(Some((topic, partition))) => relay.append(change, &topic, partition).await,
                        Ok(None) => Outcome::Settled,
                        Err(error) => Outcome::Stays(error.to_string()),
                    };
                    (change, outcome)
                })
            }))
            .await;
            for (change, outcome) in outcomes {
                match outcome {
                    Outcome::Settled => settled.push(change.sequence),
                    Outcome::Stays(error) => {
                        stuck.insert(change.context);
                        why = Some(error);
                    }
                }
            }
        }
        (settled, why)
    }

    /// Where a change belongs. `None` where its type is gone from the tenant, and its topic with it.
    async fn place(&mut self, change: &Unlogged) -> Result<Option<(TopicName, Partition)>, BusError> {
        let topic = TopicName::context(&self.tenant, &change.kind);
        let known = self.shapes.get(&change.kind).filter(|(_, at)| at.elapsed() < SHAPE_AGE).map(|(partitions, _)| *partitions);
        let partitions = match known {
            Some(partitions) => partitions,
            None => match self.bus.topic(&topic).await {
                Ok(info) => {
                    self.shapes.insert(change.kind.clone(), (info.partitions, Instant::now()));
                    info.partitions
                }
                Err(BusError::NoSuchTopic(_)) if !self.directory.snapshot().context_types.contains_key(&change.kind) => {
                    warn!(context = %change.context, r#type = change.kind, "the context type is gone, and with it a change of a context");
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        Ok(Some((topic, partition_of(change.context.0, partitions))))
    }

    async fn append(&self, change: &Unlogged, topic: &TopicName, partition: Partition) -> Outcome {
        let mut event = change.event.clone();
        for stripped in [false, true] {
            let record = match context_event::record(event.clone()) {
                Ok(record) => record,
                Err(fault) => {
                    error!(context = %change.context, %fault, "a damaged change of a context is dropped");
                    return Outcome::Settled;
                }
            };
            let appended = tokio::time::timeout(APPEND_TIMEOUT, async { self.bus.append(topic, partition, record).await?.await });
            match appended.await {
                Ok(Ok(_)) => return Outcome::Settled,
                Ok(Err(AppendError::TooLarge { .. })) if !stripped => match context_event::without_payload(event) {
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
