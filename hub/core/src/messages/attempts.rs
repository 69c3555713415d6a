//! What is known of earlier attempts to send a scheduled message: whether the log has it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{dedup::DedupKey, envelope::Envelope, parts::Parts, pauses::Pauses, record};
use crate::{
    fault::Fault,
    kit::clock::now,
    log::{
        bus::{Offset, Partition},
        partition::partition_of,
    },
};

/// By how much what is known of the log's clock may be off, beside the clock of the store.
const SLACK: Duration = Duration::from_secs(60);
/// Records that are read together.
const RUN: usize = 64;
/// Messages of which it is kept how far the log was searched.
const SEARCHED: usize = 1000;
/// How long one look into the log goes on. The next one goes on where it ended.
const LOOK: Duration = Duration::from_secs(5);
/// What came of earlier attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// The log has it.
    Sent,
    /// The log does not have it, and nothing is on its way there.
    Not,
    /// It may be on its way. Sent once more, it is the same message to every reader.
    Lately,
    /// Not all of the log was looked at.
    Searching,
    /// The log no longer holds what it took then: nobody can say.
    Forgotten,
}

/// The attempts of one replica.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// Of the messages log.
    pub(super) pauses: Pauses,
    /// How far the log was searched for a message: of [`SEARCHED`] at most.
    searched: Mutex<HashMap<Uuid, Offset>>,
}

impl Attempts {
    /// What is known of a message that was first attempted so long ago.
    pub(super) async fn tried(&self, parts: &Parts, envelope: &Envelope, ago: Option<Duration>) -> Result<Tried, Fault> {
        let Envelope { message, method, .. } = envelope;
        let partition = partition_of(message.from_id.0, parts.log.partitions);
        let key = DedupKey::new(message.from_id, method, &message.idempotency_key);
        if parts.windows.of(partition).is_some_and(|window| window.knows(&key)) {
            self.searched().remove(&message.id);
            return Ok(Tried::Sent);
        }
        let Some(ago) = ago else { return Ok(Tried::Not) };
        // What is sent now reaches the log while the window still has all that was sent since then.
        if ago <= parts.config.dedup_window.saturating_sub(parts.config.max_append_delay) {
            return Ok(Tried::Lately);
        }
        self.search(parts, message.id, partition, ago).await
    }

    async fn search(&self, parts: &Parts, id: Uuid, partition: Partition, ago: Duration) -> Result<Tried, Fault> {
        let (bus, topic) = (&parts.log.topic.bus, &parts.log.topic.name);
        let silent = || Fault::unavailable("LOG_UNAVAILABLE", format!("{topic} does not say what partition {partition} holds"));
        let bounds = bus.bounds_each(topic).await?.into_iter().nth(partition as usize).ok_or_else(silent)??;
        let resumed = self.searched().get(&id).copied();
        let mut next = match resumed {
            Some(next) => next,
            None => {
                let since = ago.saturating_add(SLACK).try_into().ok();
                let now = parts.log.clock.there(partition, now());
                let since = since.and_then(|since| now.checked_sub(since)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
                bus.offsets_at_each(topic, since).await?.into_iter().nth(partition as usize).ok_or_else(silent)??
            }
        };
        // Whatever was before the first record may have been this message.
        if next < bounds.first || (resumed.is_none() && next == bounds.first && bounds.first > 0) {
            self.searched().remove(&id);
            return Ok(Tried::Forgotten);
        }
        let began = Instant::now();
        while next < bounds.next {
            if began.elapsed() > LOOK {
                return Ok(Tried::Searching);
            }
            let records = bus.read(topic, partition, next, RUN).await?;
            let Some(last) = records.last().map(|logged| logged.offset) else { return Err(silent()) };
            for logged in &records {
                if record::find(logged, id, parts.config.max_append_delay)?.is_some() {
                    self.searched().remove(&id);
                    return Ok(Tried::Sent);
                }
            }
            next = last + 1;
            self.went(id, next);
        }
        self.searched().remove(&id);
        Ok(Tried::Not)
    }

    fn went(&self, id: Uuid, next: Offset) {
        let mut searched = self.searched();
        // What other replicas found stays here.
        if searched.len() >= SEARCHED {
            searched.clear();
        }
        searched.insert(id, next);
    }

    fn searched(&self) -> MutexGuard<'_, HashMap<Uuid, Offset>> {
        self.searched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
