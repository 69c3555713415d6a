//! Unsigned numbers as PostgreSQL's signed ones.

use acb_hub_core::log::bus::Epoch;

/// Offsets, versions, sizes and numbers of sessions, which never come near the end.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// Epochs have all 64 bits and no order: each must stay itself, so that half of them are negative numbers.
pub(crate) fn from_epoch(epoch: Epoch) -> i64 {
    epoch.cast_signed()
}

pub(crate) fn from_partition(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

pub(crate) fn to_partition(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
