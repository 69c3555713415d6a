//! Chunks: how a large payload is cut, and the port that keeps them.

use bytes::Bytes;

use crate::fault::{Code, Fault};

/// Bytes of every chunk but the last.
pub const CHUNK_BYTES: u32 = 1024 * 1024;

/// The most bytes that a streamed payload may have.
pub const MAX_STREAMED_BYTES: u64 = 100 * 1024 * 1024;

/// How a payload is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the whole.
    pub size: u64,
    /// Bytes of every chunk but the last.
    pub chunk_size: u32,
}

impl Layout {
    /// How many chunks there are.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.chunk_size.max(1)))).unwrap_or(u32::MAX)
    }

    /// Bytes of chunk `index`; `None` beyond the last.
    #[must_use]
    pub fn len(self, index: u32) -> Option<usize> {
        let start = u64::from(index) * u64::from(self.chunk_size);
        let rest = self.size.checked_sub(start).filter(|rest| *rest > 0)?;
        usize::try_from(rest.min(u64::from(self.chunk_size))).ok()
    }
}

/// A chunk, as sent and as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// From 0.
    pub index: u32,
    /// SHA-256 of the data.
    pub sha256: [u8; 32],
    /// The data.
    pub data: Bytes,
}

/// Which chunks of an upload are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored(u128);

impl Stored {
    /// Takes note of a chunk. There are at most 100 of them.
    pub fn insert(&mut self, index: u32) {
        self.0 |= 1_u128.checked_shl(index).unwrap_or(0);
    }

    /// Whether this one is.
    #[must_use]
    pub fn contains(self, index: u32) -> bool {
        self.0 & 1_u128.checked_shl(index).unwrap_or(0) != 0
    }

    /// The lowest that is not.
    #[must_use]
    pub fn next(self) -> u32 {
        self.0.trailing_ones()
    }

    /// Bytes that are.
    #[must_use]
    pub fn bytes(self, layout: Layout) -> u64 {
        (0..layout.count())
            .filter(|index| self.contains(*index))
            .filter_map(|index| layout.len(index))
            .map(|len| len as u64)
            .sum()
    }
}

impl FromIterator<u32> for Stored {
    fn from_iter<I: IntoIterator<Item = u32>>(indexes: I) -> Self {
        let mut stored = Self::default();
        indexes.into_iter().for_each(|index| stored.insert(index));
        stored
    }
}

/// Whether a chunk is one of this payload, by index and size. `expected` is the next new index: lower ones are repeats.
pub fn check_place(layout: Layout, expected: u32, chunk: &Chunk) -> Result<(), Fault> {
    let Some(len) = layout.len(chunk.index) else {
        return Err(Fault::new(
            Code::OutOfRange,
            "CHUNK_INDEX_OUT_OF_RANGE",
            format!("there is no chunk {}: the upload has {} chunks", chunk.index, layout.count()),
        ));
    };
    if chunk.index > expected {
        return Err(Fault::invalid(
            "CHUNK_OUT_OF_ORDER",
            format!("chunk {} came where chunk {expected} was due: resume the upload and send from its next_chunk", chunk.index),
        ));
    }
    if chunk.data.len() != len {
        return Err(Fault::invalid(
            "CHUNK_SIZE_INVALID",
            format!("chunk {} has {} bytes instead of {len}", chunk.index, chunk.data.len()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_cut_without_remainder() {
        for size in [1, 1023, 1024, 1025, 2048, 5000] {
            let layout = Layout { size, chunk_size: 1024 };
            let lengths: Vec<_> = (0..layout.count()).map(|index| layout.len(index).unwrap() as u64).collect();
            assert_eq!(lengths.iter().sum::<u64>(), size);
            assert!(lengths.iter().all(|len| (1..=1024).contains(len)));
            assert_eq!(layout.len(layout.count()), None);
        }
        assert_eq!(Layout { size: MAX_STREAMED_BYTES, chunk_size: CHUNK_BYTES }.count(), 100);
    }

    #[test]
    fn next_is_the_lowest_hole() {
        let layout = Layout { size: 5 * 1024 - 1, chunk_size: 1024 };
        assert_eq!(Stored::default().next(), 0);
        let stored: Stored = [0, 1, 3, 4].into_iter().collect();
        assert_eq!(stored.next(), 2);
        assert_eq!(stored.bytes(layout), 4 * 1024 - 1);
        assert_eq!((0..100).collect::<Stored>().next(), 100);
    }

    #[test]
    fn a_chunk_has_its_place() {
        let layout = Layout { size: 2500, chunk_size: 1024 };
        let chunk = |index, len| Chunk { index, sha256: [0; 32], data: Bytes::from(vec![0; len]) };
        let reason = |expected, chunk| check_place(layout, expected, &chunk).map_err(|fault| fault.reason);
        assert_eq!(reason(0, chunk(0, 1024)), Ok(()));
        assert_eq!(reason(2, chunk(0, 1024)), Ok(()), "a repeat");
        assert_eq!(reason(2, chunk(2, 452)), Ok(()));
        assert_eq!(reason(0, chunk(1, 1024)), Err("CHUNK_OUT_OF_ORDER"));
        assert_eq!(reason(3, chunk(3, 1)), Err("CHUNK_INDEX_OUT_OF_RANGE"));
        assert_eq!(reason(0, chunk(0, 1023)), Err("CHUNK_SIZE_INVALID"));
        assert_eq!(reason(2, chunk(2, 1024)), Err("CHUNK_SIZE_INVALID"));
    }
}
