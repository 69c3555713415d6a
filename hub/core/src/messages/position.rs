//! A message's place in its partition of the messages log. A record of the log holds up to [`MAX_MESSAGES`] messages of one session. Each is named by
//! the offset of its record and its number in it, as one number that rises with both: cursors, checkpoints and index rows count in these.

use crate::log::bus::{Bounds, Offset, Partition};

/// A message's place in its partition. Not every number is a message's: most records hold fewer than they may.
pub type Position = u64;

/// A message's place in the log, in one life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessagePlace {
    /// Which partition.
    pub partition: Partition,
    /// Where in it.
    pub position: Position,
}

/// Messages of one record at most.
pub const MAX_MESSAGES: usize = 1 << BITS;

const BITS: u32 = 6;

/// The place of a record's first message. It lies above every message of the records before.
#[must_use]
pub const fn first_of(offset: Offset) -> Position {
    offset.saturating_mul(1 << BITS)
}

/// The record that a message is in.
#[must_use]
pub const fn offset_of(position: Position) -> Offset {
    position >> BITS
}

/// The place of a record's message with this number, from 0.
pub(super) fn nth_of(offset: Offset, number: usize) -> Position {
    first_of(offset).saturating_add(u64::try_from(number).unwrap_or(u64::MAX))
}

/// The number of a message in its record.
pub(super) fn number_of(position: Position) -> usize {
    usize::try_from(position % (1 << BITS)).unwrap_or(usize::MAX)
}

/// What a partition holds, by places of messages.
pub(super) const fn bounds_of(bounds: Bounds) -> Bounds {
    Bounds { first: first_of(bounds.first), next: first_of(bounds.next) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_names_record_and_message() {
        for (offset, number) in [(0, 0), (0, MAX_MESSAGES - 1), (7, 3), (1 << 50, 63)] {
            let position = nth_of(offset, number);
            assert_eq!((offset_of(position), number_of(position)), (offset, number));
            assert!((first_of(offset)..first_of(offset + 1)).contains(&position));
        }
    }
}
