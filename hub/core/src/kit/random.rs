//! Bytes that nobody can guess.

use crate::fault::{Code, Fault};

/// So many of them.
pub(crate) fn random<const BYTES: usize>() -> Result<[u8; BYTES], Fault> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)
        .map_err(|_| Fault::new(Code::Internal, "NO_RANDOMNESS", "the hub's machine gives no randomness"))?;
    Ok(bytes)
}
