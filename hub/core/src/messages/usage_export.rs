//! Tells the topic of usage what agents have sent, once an hour is closed, and again where something late was added to it. What was told is marked on the
//! sums themselves, behind the append: a replica that dies in between leaves them unmarked, and the next one tells the same again, under the same id.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

use super::{
    parts::Parts,
    usage_event::UsageEvent,
    usage_store::{Unexported, UsageSum},
};
use crate::{
    directory::refresher::jittered,
    fault::Fault,
    log::bus::{AppendError, Bus, Epoch, Pending, TopicName},
};

/// Events of one look at the sums.
const BATCH: usize = 500;
/// The longest that the log may take for one look's events.
const APPEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells until stopped.
pub(super) async fn run(parts: Parts) {
    let topic = TopicName::system(&parts.config.tenant, "usage");
    loop {
        // Not all replicas at the same time: each would tell what another one tells.
        let pause = jittered(parts.config.export_every);
        tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        let exported = tokio::select! {
            () = parts.lifecycle.stop.cancelled() => return,
            exported = export(&parts, &topic) => exported,
        };
        if let Err(error) = exported {
            parts.metrics.usage().export_failed();
            tracing::warn!(%topic, %error, "usage can't be told, trying again");
        }
    }
}

/// Tells everything that the topic lacks.
async fn export(parts: &Parts, topic: &TopicName) -> Result<(), Fault> {
    let (bus, store) = (&*parts.log.topic.bus, &parts.sums.store);
    let life = bus.topic(topic).await?.epoch;
    loop {
        let batch = store.unexported(parts.log.epoch, life, parts.config.close_after, BATCH).await?;
        if batch.hours.is_empty() {
            return Ok(());
        }
        let (hours, is_complete) = (batch.hours.clone(), batch.complete.is_some());
        match timeout(APPEND_TIMEOUT, append(bus, topic, &parts.config.tenant, events(parts.log.epoch, batch))).await {
            Ok(appended) => appended.map_err(|error| Fault::unavailable("LOG_UNAVAILABLE", error.to_string()))?,
            Err(_) => {
                return Err(Fault::unavailable("LOG_UNAVAILABLE", format!("{topic} took nothing within {APPEND_TIMEOUT:?}")));
            }
        }
        store.exported(life, &hours).await?;
        parts.metrics.usage().exported(hours.len());
        if is_complete {
            return Ok(());
        }
    }
}

/// The last one says what the topic has with all of them.
fn events(epoch: Epoch, batch: Unexported) -> Vec<UsageEvent> {
    let Unexported { hours, next, complete } = batch;
    let event = |sum: UsageSum| UsageEvent { sum, epoch, next: next.clone(), complete: None };
    let mut events: Vec<UsageEvent> = hours.into_iter().map(event).collect();
    if let Some(last) = events.last_mut() {
        last.complete = complete;
    }
    events
}

/// Durably. The last event is appended once the topic has all the others: what it says of them is true then.
async fn append(bus: &dyn Bus, topic: &TopicName, tenant: &str, mut events: Vec<UsageEvent>) -> Result<(), AppendError> {
    let Some(last) = events.pop() else { return Ok(()) };
    let now = OffsetDateTime::now_utc();
    let mut pending: Vec<Pending> = Vec::with_capacity(events.len());
    for event in events {
        pending.push(bus.append(topic, 0, event.record(tenant, now)).await?);
    }
    for appended in pending {
        appended.await?;
    }
    bus.append(topic, 0, last.record(tenant, now)).await?.await?;
    Ok(())
}
