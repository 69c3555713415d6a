//! What the relay asks the noun of an entry.

use super::ports::Entry;
use crate::{
    fault::Fault,
    log::bus::{Partition, Record, TopicName},
};

/// A noun whose rows have something to tell the log.
pub trait Noun: Send + Sync + 'static {
    /// Its name in the outbox. It never changes.
    fn name(&self) -> &'static str;
    /// The topic where an entry belongs.
    fn topic(&self, entry: &Entry) -> TopicName;
    /// Whether that topic is meant to be there. What belongs to one that is not, and is not there, is dropped: nobody could ever read it.
    fn has_topic(&self, entry: &Entry) -> bool;
    /// The partition where it belongs, of a topic with so many.
    fn partition(&self, entry: &Entry, partitions: u32) -> Partition;
    /// The record, made anew for each append, so that what it says of its time is true after an outage of the log. A fault drops the entry: it
    /// could never be appended. UNAVAILABLE leaves it to a replica that can.
    fn record(&self, entry: &Entry) -> Result<Record, Fault>;
    /// The same in less space, for a topic that does not take so large a record; readers get the rest elsewhere.
    fn smaller(&self, entry: &Entry) -> Result<Record, Fault>;
}
