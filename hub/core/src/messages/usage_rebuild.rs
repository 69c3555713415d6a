//! Takes the sums of usage back from the topic of usage, where PostgreSQL went back and the log no longer has what was sent since.
//!
//! Every so often an event of the topic says what the topic has with it: all sums of the hours up to one, and where later hours begin in each partition of
//! the messages log. The sums are taken to what they were then: those hours from the topic, and what comes behind those places from the log. So nothing is in
//! a sum twice, and only what is in neither is missing.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use super::{
    log::MessagesTopic,
    position::Position,
    usage_event::UsageEvent,
    usage_store::{Complete, UsageStore, UsageSum},
};
use crate::{
    directory::agent::AgentId,
    fault::Fault,
    log::bus::{Bounds, Bus, BusError, Epoch, Logged, Offset, TopicName},
};

/// Records that are read at one time.
const PAGE: usize = 500;
/// How far the clocks of the two topics may be apart.
const APART: Duration = Duration::HOUR;

/// Takes them back where the log has forgotten what comes next. True where they changed, and go on elsewhere than at `next`.
pub(super) async fn rebuild(
    log: &MessagesTopic,
    tenant: &str,
    store: &dyn UsageStore,
    epoch: Epoch,
    next: &[Position],
) -> Result<bool, Fault> {
    let bounds = log.bounds_each().await?;
    let has_forgotten =
        |(bounds, next): (&Result<Bounds, BusError>, &Position)| bounds.as_ref().is_ok_and(|known| *next < known.first);
    if !bounds.iter().zip(next).any(has_forgotten) {
        return Ok(false);
    }
    let topic = Topic { bus: &*log.bus, name: TopicName::system(tenant, "usage"), tenant };
    let Some((end, last, told)) = topic.last_complete().await? else { return Ok(false) };
    if last.epoch != epoch || told.below.len() != next.len() || last.next.len() != next.len() {
        tracing::warn!(topic = %topic.name, "the topic of usage tells of another life of the messages log: no sum is taken from it");
        return Ok(false);
    }
    for (bounds, below) in bounds.into_iter().zip(&told.below) {
        // What was told must be of this log: where it was cut short as well, other records came in the place of those that are told of.
        if bounds?.next < *below {
            tracing::warn!(topic = %topic.name, "the topic of usage tells of more than the messages log had: no sum is taken from it");
            return Ok(false);
        }
    }
    let to: Vec<Position> = next.iter().zip(&told.below).map(|(next, below)| *next.max(below)).collect();
    if to == next {
        return Ok(false);
    }
    let Some(mut rebuild) = store.rebuild(epoch, next).await? else { return Ok(true) };
    // What was told before has been in the sums that there are.
    let mut at = match rebuild.last_hour() {
        Some(hour) => topic.first_since(hour.saturating_sub(APART)).await?,
        None => 0,
    };
    let mut hours = 0;
    while at < end {
        let page = topic.page(at, end).await?;
        let mut highest: BTreeMap<(OffsetDateTime, AgentId), UsageSum> = BTreeMap::new();
        for logged in &page {
            at = logged.offset + 1;
            let Some(event) = UsageEvent::decode(tenant, &logged.record) else { continue };
            if event.epoch != epoch {
                tracing::warn!(topic = %topic.name, "the messages log was cut short since: no sum is taken from the topic of usage");
                return Ok(false);
            }
            if is_of(&event, &last, &told) {
                let sum = highest.entry((event.sum.starts_at, event.sum.agent)).or_insert_with(|| event.sum.clone());
                if event.sum.sent.messages >= sum.sent.messages {
                    *sum = event.sum;
                }
            }
        }
        let highest: Vec<UsageSum> = highest.into_values().collect();
        hours += highest.len();
        rebuild.raise(&highest).await?;
    }
    rebuild.done(&to, told.through).await?;
    tracing::warn!(topic = %topic.name, events = hours, through = %told.through, "sums of usage were taken back from the topic of usage");
    Ok(true)
}

/// Whether it tells of nothing that comes behind what the last one says: that is summed again.
fn is_of(event: &UsageEvent, last: &UsageEvent, told: &Complete) -> bool {
    event.sum.starts_at <= told.through
        && event.next.len() == last.next.len()
        && event.next.iter().zip(&last.next).all(|(next, last)| next <= last)
}

struct Topic<'a> {
    bus: &'a dyn Bus,
    name: TopicName,
    tenant: &'a str,
}

impl Topic<'_> {
    /// The last event that says what the topic has, and the offset behind it. `None` also where there is no such topic.
    async fn last_complete(&self) -> Result<Option<(Offset, UsageEvent, Complete)>, Fault> {
        let bounds = match self.bus.bounds(&self.name).await {
            Err(BusError::NoSuchTopic(_)) => return Ok(None),
            bounds => bounds?,
        };
        let Some(Bounds { first, next: mut end }) = bounds.first().copied() else { return Ok(None) };
        while first < end {
            let begin = end.saturating_sub(PAGE as u64).max(first);
            let (mut at, mut found) = (begin, None);
            while at < end {
                for logged in self.page(at, end).await? {
                    at = logged.offset + 1;
                    if let Some(event) = UsageEvent::decode(self.tenant, &logged.record)
                        && let Some(complete) = event.complete.clone()
                    {
                        found = Some((at, event, complete));
                    }
                }
            }
            if found.is_some() {
                return Ok(found);
            }
            end = begin;
        }
        Ok(None)
    }

    async fn first_since(&self, time: OffsetDateTime) -> Result<Offset, BusError> {
        Ok(self.bus.offsets_at(&self.name, time).await?.first().copied().unwrap_or_default())
    }

    /// Some of the records of this range, which is not empty.
    async fn page(&self, from: Offset, end: Offset) -> Result<Vec<Logged>, BusError> {
        let limit = usize::try_from(end - from).unwrap_or(PAGE).min(PAGE);
        let mut page = self.bus.read(&self.name, 0, from, limit).await?;
        page.retain(|logged| logged.offset < end);
        if page.is_empty() {
            return Err(BusError::Unavailable(format!("{} does not show its records from {from} to {end}", self.name)));
        }
        Ok(page)
    }
}
