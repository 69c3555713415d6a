//! Who is measured.

/// The tenant of `resources/bench.yaml`.
pub(crate) const TENANT: &str = "bench";
pub(crate) const SENDER: &str = "sender";
pub(crate) const RECEIVER: &str = "receiver";
