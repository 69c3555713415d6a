//! The port to the index of the dead letters. It follows from the log of the dead letters, but for what became of a letter.

use async_trait::async_trait;
use uuid::Uuid;

use super::letter::{DeadLetter, LetterFilter, LetterId, LetterState};
use crate::{
    fault::Fault,
    log::bus::{Epoch, Offset, Partition},
};

/// A place in a list of letters: the message of the last one that was seen, and its id. The ids of messages are in the order in which they were
/// accepted, and so are lists of letters.
pub type After = (Uuid, LetterId);

/// The index of the dead letters.
#[async_trait]
pub trait LetterStore: Send + Sync + 'static {
    /// How far each partition is indexed in this life of the log; 0 where nothing is yet.
    async fn letters_indexed(&self, epoch: Epoch, partitions: u32) -> Result<Vec<Offset>, Fault>;

    /// Writes letters of a partition, and that it is indexed up to `next`, together. A letter that is there keeps what became of it, and is found at
    /// its new place. A partition that is indexed further stays so.
    async fn index_letters(&self, epoch: Epoch, partition: Partition, next: Offset, letters: &[DeadLetter]) -> Result<(), Fault>;

    /// Says that a partition is indexed up to `next` only, where it was further: its log was cut short.
    async fn unindex_letters(&self, epoch: Epoch, partition: Partition, next: Offset) -> Result<(), Fault>;

    /// The letters that match, after this one, in the order of [`After`]: at most `limit`.
    async fn letters(&self, filter: &LetterFilter, after: Option<After>, limit: usize) -> Result<Vec<DeadLetter>, Fault>;

    /// One letter.
    async fn letter(&self, id: LetterId) -> Result<Option<DeadLetter>, Fault>;

    /// Says what became of a letter, and answers with what is kept: a letter that was replayed stays so, and one that was dropped may yet turn out
    /// to have been replayed. `None` where there is no such letter any more.
    async fn settle_letter(&self, id: LetterId, state: LetterState) -> Result<Option<LetterState>, Fault>;

    /// Removes letters that are in no log: those of other epochs, and those below these offsets. At most `limit`; answers with how many.
    async fn forget_letters(&self, epoch: Epoch, first: &[(Partition, Offset)], limit: usize) -> Result<u64, Fault>;
}
