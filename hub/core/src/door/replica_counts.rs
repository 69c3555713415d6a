//! What the replicas of a hub tell each other of what is in no log.

use super::{open_counts::OpenCounts, request_counts::RequestCounts};

/// What counts at a replica, as far as it matters to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaCounts {
    /// Calls that last.
    pub streams: OpenCounts,
    /// Connections with open calls.
    pub connections: OpenCounts,
    /// Requests of the minute.
    pub requests: RequestCounts,
}

impl ReplicaCounts {
    /// Whether others need to know nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.streams == OpenCounts::default()
            && self.connections == OpenCounts::default()
            && self.requests.all == 0
            && self.requests.accounts.is_empty()
    }
}
