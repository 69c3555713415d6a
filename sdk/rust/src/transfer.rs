//! What uploads and downloads share.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are durable at the other end, or verified and written at this one.
    pub bytes: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Where a transfer went on after its connection broke.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Resumption {
    /// The first chunk that was transferred afterwards.
    pub from_chunk: u32,
    /// The name of the replica that it went on with. Empty where that is not known.
    pub replica: String,
}

/// Told of each step. Must not block.
pub(crate) struct Watcher(Box<dyn FnMut(Progress) + Send>);

impl Watcher {
    pub(crate) fn new(watch: impl FnMut(Progress) + Send + 'static) -> Self {
        Self(Box::new(watch))
    }

    pub(crate) fn tell(&mut self, bytes: u64, total: u64) {
        (self.0)(Progress { bytes, total });
    }
}

impl Default for Watcher {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watcher")
    }
}

/// The hash of a whole payload, fed chunk by chunk in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whole {
    hash: Sha256,
    chunks: u32,
}

impl Whole {
    /// How many chunks it has taken.
    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Takes the next chunk.
    pub(crate) fn take(&mut self, data: &[u8]) {
        self.hash.update(data);
        self.chunks += 1;
    }

    pub(crate) fn finish(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }
}

/// Adds a resumption that made a difference: not one on which nothing was transferred before the next break.
pub(crate) fn note_resumption(resumptions: &mut Vec<Resumption>, from_chunk: u32, replica: &str) {
    let resumption = Resumption { from_chunk, replica: replica.to_owned() };
    match resumptions.last_mut() {
        Some(last) if last.from_chunk == from_chunk => *last = resumption,
        _ => resumptions.push(resumption),
    }
}
