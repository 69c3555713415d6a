//! Where a record is, in one life of its log.

use super::bus::{Epoch, Offset, Partition};

/// A record's place. It means something in one life of the log only: after the log was made anew the same offset is another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogPosition {
    /// In which life of the log.
    pub epoch: Epoch,
    /// Which partition.
    pub partition: Partition,
    /// Which record of it.
    pub offset: Offset,
}
