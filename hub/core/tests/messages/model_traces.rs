//! A model of where traces are kept.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use acb_hub_core::{
    fault::Fault,
    log::bus::Epoch,
    messages::{
        position::MessagePlace,
        trace::store::{TracePart, TraceStore, section_of},
    },
};
use async_trait::async_trait;
use bytes::Bytes;

use crate::model::ModelStore;

/// Rows in the order in which they were noted.
#[derive(Debug, Default)]
pub(crate) struct ModelTraces(Mutex<Vec<(Epoch, String, TracePart)>>);

#[async_trait]
impl TraceStore for ModelStore {
    async fn note(&self, epoch: Epoch, replica: &str, parts: &[TracePart]) -> Result<(), Fault> {
        let rows = parts.iter().map(|part| (epoch, replica.to_owned(), part.clone()));
        self.traces.0.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
        Ok(())
    }

    async fn noted(&self, epoch: Epoch, place: MessagePlace, limit: usize) -> Result<Vec<(String, Bytes)>, Fault> {
        let section = section_of(place.position);
        let rows = self.traces.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = rows.iter().filter(|(of, _, part)| (*of, part.partition, part.section) == (epoch, place.partition, section));
        Ok(of.take(limit).map(|(_, replica, part)| (replica.clone(), part.events.clone())).collect())
    }

    async fn forget_traces(&self, _older_than: Duration, _bytes: u64) -> Result<u64, Fault> {
        Ok(0)
    }
}
