//! Changes of contexts in the outbox.

use super::{
    change::{self, Change},
    context::ContextId,
};
use crate::{
    directory::snapshot::Directory,
    fault::Fault,
    log::{
        bus::{Partition, Record, TopicName},
        outbox::{noun::Noun, ports::Entry},
        partition::partition_of,
    },
};

/// Their name in the outbox.
pub const NOUN: &str = "context";

/// What the relay is told about them. The topic of an entry is the context's type, its kind the number of the change, its content the encoded change.
#[derive(Clone, Debug)]
pub struct ContextChanges {
    tenant: String,
    directory: Directory,
}

impl ContextChanges {
    /// Those of this tenant.
    #[must_use]
    pub fn new(tenant: impl Into<String>, directory: Directory) -> Self {
        Self { tenant: tenant.into(), directory }
    }
}

impl Noun for ContextChanges {
    fn name(&self) -> &'static str {
        NOUN
    }

    fn topic(&self, entry: &Entry) -> TopicName {
        TopicName::context(&self.tenant, &entry.topic)
    }

    fn has_topic(&self, entry: &Entry) -> bool {
        self.directory.snapshot().context_types.contains_key(&entry.topic)
    }

    fn partition(&self, entry: &Entry, partitions: u32) -> Partition {
        partition_of(entry.instance.id, partitions)
    }

    fn record(&self, entry: &Entry) -> Result<Record, Fault> {
        record(entry, entry.content.clone())
    }

    fn smaller(&self, entry: &Entry) -> Result<Record, Fault> {
        record(entry, change::without_payload(entry.content.clone())?)
    }
}

fn record(entry: &Entry, event: bytes::Bytes) -> Result<Record, Fault> {
    match entry.kind {
        Some(kind) => Ok(change::record_of(ContextId(entry.instance.id), kind == Change::Deleted.number(), event)),
        None => change::record(event),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        contexts::{change::tests::context, context::Payload},
        log::outbox::ports::Instance,
    };

    #[test]
    fn the_record_of_an_entry_is_the_same_whichever_version_of_the_hub_wrote_it() {
        let changes = ContextChanges::new("acme", Directory::default());
        for change in [Change::Created, Change::Updated, Change::Deleted] {
            let context = context(Payload::Inline("hello".into()));
            let content = change::encode(change, &context, None).unwrap();
            let instance = Instance { noun: NOUN.to_owned(), id: context.id.0 };
            let new = Entry { sequence: 1, instance, topic: context.kind, kind: Some(change.number()), content: content.clone() };
            let old = Entry { kind: None, ..new.clone() };
            let record = changes.record(&new).unwrap();
            assert_eq!((&record, record.value.is_none()), (&change::record(content).unwrap(), change == Change::Deleted));
            assert_eq!(changes.record(&old).unwrap(), record);
            assert_eq!(changes.smaller(&old).unwrap(), changes.smaller(&new).unwrap());
        }
    }
}
