//! How far something that follows the messages log is, by partition: whoever moves it locks it first.

use std::collections::HashMap;

use acb_hub_core::{
    log::bus::{Epoch, Partition},
    messages::{ports::Moved, position::Position},
};
use acb_hub_pool::Session;

use crate::kit::number::{from_epoch, from_partition, unsigned};

/// Where these partitions are. Nobody else moves them before the transaction ends.
pub(crate) struct Checkpoints(HashMap<i32, i64>);

impl Checkpoints {
    /// Locks those that `select` finds by epoch and partitions, in the order of the partitions.
    pub(crate) async fn lock(
        session: &mut Session,
        select: &'static str,
        epoch: Epoch,
        partitions: impl Iterator<Item = Partition>,
    ) -> Result<Self, sqlx::Error> {
        let partitions: Vec<i32> = partitions.map(from_partition).collect();
        let found = sqlx::query_as(select).bind(from_epoch(epoch)).bind(partitions).fetch_all(session).await?;
        Ok(Self(found.into_iter().collect()))
    }

    /// What becomes of a move of this partition from there.
    pub(crate) fn judge(&self, partition: Partition, from: Position) -> Moved {
        match self.0.get(&from_partition(partition)) {
            Some(next) if unsigned(*next) == from => Moved::Won,
            Some(next) => Moved::Lost(unsigned(*next)),
            None => Moved::Gone,
        }
    }
}
