//! The port that keeps what the log may not have yet.

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::fault::Fault;

/// Whose entries have one order: one instance of a noun.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// Which noun, by its [name](super::noun::Noun::name).
    pub noun: String,
    /// Which one of them.
    pub id: Uuid,
}

/// What the log may not have yet. It holds the content, and not the record: that is made for each append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place among the entries of its instance.
    pub sequence: i64,
    /// Whose it is.
    pub instance: Instance,
    /// Where it belongs, in the words of its noun.
    pub topic: String,
    /// What it tells, in the numbers of its noun. `None` where an earlier version of the hub wrote it, which put this into the content alone.
    pub kind: Option<u32>,
    /// What its noun makes the record of.
    pub content: Bytes,
}

/// Some entries, claimed: while this lives no other replica gets an entry of these instances. Dropping it gives them back.
#[async_trait]
pub trait Claim: Send {
    /// The entries, in the order in which they must be logged for each instance: for each the oldest that there are, without a gap.
    fn entries(&self) -> &[Entry];
    /// The instance to go on after, so that the others get their turn.
    fn last(&self) -> Instance;
    /// Forgets what the log has.
    async fn done(self: Box<Self>, sequences: &[i64]) -> Result<(), Fault>;
}

/// Keeps entries. Instances take turns in the order of their names, each with a few entries, so that one with many holds up no others.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Claims some of the next instances of these nouns `after` that one, passing over those. `None` where nothing is left there that is unclaimed.
    async fn claim(
        &self,
        nouns: &[&str],
        after: Option<&Instance>,
        passed_over: &[Instance],
    ) -> Result<Option<Box<dyn Claim>>, Fault>;
}
