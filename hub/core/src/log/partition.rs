//! Partitions: which one a key belongs to.

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::bus::Partition;

/// The partition of a sender: the first 8 bytes of the SHA-256 of its UID, big-endian, modulo the count.
#[must_use]
pub fn partition_of(id: Uuid, partitions: u32) -> Partition {
    let hash = Sha256::digest(id.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u32::try_from(u64::from_be_bytes(first) % u64::from(partitions.max(1))).unwrap_or(0)
}
