//! The bus on PostgreSQL: a row per record, and a row per partition whose lock makes offsets dense.
//!
//! Sessions: one appends, reads borrow from the hub's pool, one listens (and polls behind that), one notifies. A notification only says
//! "look now": forged, flooded or lost ones cost at most a poll's wait.

mod append;
mod compaction;
mod fetch;
mod log;
mod retention;
mod session;
mod tail;
mod wake;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use acb_hub_core::{
    directory::refresher::jittered,
    kit::supervisor::Supervisor,
    log::bus::{AppendError, Bounds, Bus, BusError, Logged, Offset, Partition, Pending, Record, Tail, TopicInfo, TopicName},
};
use acb_hub_pool::Pool;
use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::size;
use append::Writer;
use log::Log;
use session::Own;
use wake::Wake;

/// The bus of one tenant.
pub struct PostgresBus {
    /// Ends the tasks with the bus. Dropped first: they may end only once they are told to.
    _stop: DropGuard,
    log: Log,
    writers: Mutex<HashMap<TopicName, Writer>>,
    supervisor: Supervisor,
}

impl PostgresBus {
    /// A bus over the tenant's login, which is the pool's, also where that is given another. Connects when it is first used, and again
    /// whenever it must; it has three sessions of its own beside the pool's.
    ///
    /// Must be called within a Tokio runtime.
    #[must_use]
    pub fn connect(tenant: [u8; 10], pool: Pool, supervisor: &Supervisor) -> Self {
        let stop = CancellationToken::new();
        let wake = Arc::new(Wake::new());
        wake::spawn(&wake, &pool, tenant, &stop, supervisor);
        let log = Log { pool, tenant, own: Arc::new(Own::default()), wake, stop: stop.clone() };
        Self { _stop: stop.drop_guard(), log, writers: Mutex::default(), supervisor: supervisor.clone() }
    }

    /// Removes what is older than its topic's retention, save the last of each key where the topic is compacted, and tells how many records
    /// went. A topic that fails holds up no other. Any replica may call it at any time.
    ///
    /// # Errors
    /// Where PostgreSQL does not answer, or refuses it for a topic; what was removed stays removed.
    pub async fn prune(&self) -> Result<u64, BusError> {
        retention::prune(&self.log).await
    }

    /// Prunes again and again, about this often, for as long as it is polled. Replicas that do so at once don't hurt each other.
    pub async fn keep_pruned(&self, every: Duration) {
        loop {
            match self.prune().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(removed, "the log forgot records that are older than their topics keep them"),
                Err(error) => tracing::warn!(%error, "the log was not pruned, trying again later"),
            }
            sleep(jittered(every)).await;
        }
    }

    async fn writer(&self, topic: &TopicName) -> Result<Writer, BusError> {
        if let Some(writer) = self.writers.lock().unwrap_or_else(PoisonError::into_inner).get(topic) {
            return Ok(writer.clone());
        }
        fetch::info(&self.log, topic).await?;
        let mut writers = self.writers.lock().unwrap_or_else(PoisonError::into_inner);
        let spawn = || Writer::spawn(self.log.clone(), topic.clone(), &self.supervisor);
        Ok(writers.entry(topic.clone()).or_insert_with(spawn).clone())
    }
}

#[async_trait]
impl Bus for PostgresBus {
    async fn topic(&self, topic: &TopicName) -> Result<TopicInfo, BusError> {
        fetch::info(&self.log, topic).await
    }

    async fn append(&self, topic: &TopicName, partition: Partition, record: Record) -> Result<Pending, AppendError> {
        let bytes = size::check(topic, &record)?;
        let writer = self.writer(topic).await.map_err(|error| AppendError::Refused(error.to_string()))?;
        writer.append(partition, record, bytes).await
    }

    async fn tail(&self, topic: &TopicName, from: &[Offset]) -> Result<Tail, BusError> {
        tail::follow(self.log.clone(), topic.clone(), from).await
    }

    async fn read(&self, topic: &TopicName, partition: Partition, offset: Offset, limit: usize) -> Result<Vec<Logged>, BusError> {
        let records = fetch::records(&self.log, topic, &[(partition, offset)], limit).await?;
        if records.is_empty() {
            fetch::info(&self.log, topic).await?;
        }
        Ok(records)
    }

    async fn bounds(&self, topic: &TopicName) -> Result<Vec<Bounds>, BusError> {
        Ok(fetch::state(&self.log, topic).await?.bounds)
    }

    async fn offsets_at(&self, topic: &TopicName, time: OffsetDateTime) -> Result<Vec<Offset>, BusError> {
        fetch::offsets_at(&self.log, topic, time).await
    }
}
