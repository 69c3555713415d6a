//! A log that can't be changed unseen: the Merkle tree of RFC 6962 over its records, and checkpoints of it that are signed. Who builds the tree and who
//! verifies it use the same rules. Nothing here does I/O.

pub mod checkpoint;
pub mod note;
pub mod proof;
pub mod tree;
pub mod verification;
