//! Filters of messages: what they can be about.

use super::message::{Address, Message};
use crate::{
    fault::Fault,
    kit::filter::{
        Filter,
        vocabulary::{Field, Kind, Subject, Value, Vocabulary},
    },
};

/// What a filter of messages can be about.
pub const MESSAGE: Vocabulary = Vocabulary {
    root: "message",
    fields: &[
        Field { name: "topic", kind: Kind::Text },
        Field { name: "from", kind: Kind::Text },
        Field { name: "type", kind: Kind::Text },
        Field { name: "content_type", kind: Kind::Text },
        Field { name: "metadata", kind: Kind::Entries },
        Field { name: "size", kind: Kind::Number },
        Field { name: "group", kind: Kind::Text },
        Field { name: "context_id", kind: Kind::Text },
        Field { name: "correlation_id", kind: Kind::Text },
        Field { name: "sent_at", kind: Kind::Time },
    ],
    is_open: false,
};

/// A compiled filter of messages.
#[derive(Clone, Debug)]
pub(super) struct MessageFilter(Filter);

impl MessageFilter {
    /// `None` for an empty one: everything matches.
    pub(super) fn compile(source: &str) -> Result<Option<Self>, Fault> {
        if source.is_empty() {
            return Ok(None);
        }
        Filter::compile(source, &MESSAGE).map(|filter| Some(Self(filter))).map_err(|problem| problem.fault(source))
    }

    pub(super) fn matches(&self, message: &Message) -> bool {
        self.0.matches(message)
    }
}

impl Subject for Message {
    fn value(&self, field: usize) -> Option<Value<'_>> {
        Some(match MESSAGE.fields.get(field)?.name {
            "topic" => Value::Text(&self.topic),
            "from" => Value::Text(&self.from),
            "type" => Value::Text(self.kind.as_str()),
            "content_type" => Value::Text(&self.content_type),
            "metadata" => Value::Entries(&self.metadata),
            "size" => Value::Number(i64::try_from(self.payload.len()).unwrap_or(i64::MAX)),
            "group" => match &self.to {
                Address::Group(group) => Value::Text(group),
                _ => return None,
            },
            "context_id" => Value::Text(&self.context_id),
            "correlation_id" => Value::Text(&self.correlation_id),
            _ => Value::Time(self.sent_at),
        })
    }
}
