//! A process that is asleep.

use acb_operator::plan::Step;
use serde_json::Value;

use crate::cache::Cache;

/// A step that is about to be sent by one that sleeps.
#[derive(Clone, Debug)]
pub(crate) struct Asleep {
    pub(crate) step: Step,
    /// What the sleeper knows.
    pub(crate) cache: Cache,
    /// The topic that it is about to remove.
    pub(crate) topic: Option<u64>,
    /// Of every document that there was.
    pub(crate) uids: Vec<Value>,
}
