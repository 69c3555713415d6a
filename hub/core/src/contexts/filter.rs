//! Filters of contexts: what they can be about, and what a change means to whoever asked for some contexts only.

use std::{collections::BTreeMap, time::Duration};

use time::OffsetDateTime;
use tokio::{
    task::{consume_budget, yield_now},
    time::Instant,
};

use super::{
    audience::Scope,
    change::{Change, Event},
    context::Context,
};
use crate::kit::filter::{
    Filter,
    problem::Problem,
    vocabulary::{Field, Kind, Subject, Value, Vocabulary},
};

/// What a filter of contexts can be about. All of it is in every change, and but for `created_at` also of the version before it: whether a
/// context leaves a filter can be told from one record.
pub const CONTEXT: Vocabulary = Vocabulary {
    root: "context",
    fields: &[
        Field { name: "type", kind: Kind::Text },
        Field { name: "creator", kind: Kind::Text },
        Field { name: "metadata", kind: Kind::Entries },
        Field { name: "content_type", kind: Kind::Text },
        Field { name: "size", kind: Kind::Number },
        Field { name: "scope", kind: Kind::Text },
        Field { name: "version", kind: Kind::Number },
        Field { name: "created_at", kind: Kind::Time },
    ],
    is_open: false,
};

/// The longest evaluation that others do not notice.
const SHORT: Duration = Duration::from_millis(5);

/// After an evaluation that began then: a filter that takes long, or matches nothing for long, must not keep others from their turn.
pub(crate) async fn yield_after(evaluation: Instant) {
    if evaluation.elapsed() > SHORT {
        yield_now().await;
    } else {
        consume_budget().await;
    }
}

/// A compiled filter of contexts.
#[derive(Clone, Debug)]
pub(crate) struct ContextFilter(Filter);

/// What a subscriber is told of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The change.
    Change,
    /// That the context left the filter.
    Left,
    /// Nothing.
    Nothing,
}

/// One version of a context.
struct Version<'a> {
    context: &'a Context,
    metadata: &'a BTreeMap<String, String>,
    content_type: &'a str,
    size: u64,
    scope: Scope,
    version: u64,
}

impl Subject for Version<'_> {
    fn value(&self, field: usize) -> Option<Value<'_>> {
        let number = |number: u64| Value::Number(i64::try_from(number).unwrap_or(i64::MAX));
        Some(match CONTEXT.fields.get(field)?.name {
            "type" => Value::Text(&self.context.kind),
            "creator" => Value::Text(&self.context.creator_name),
            "metadata" => Value::Entries(self.metadata),
            "content_type" => Value::Text(self.content_type),
            "size" => number(self.size),
            "scope" => Value::Text(self.scope.as_str()),
            "version" => number(self.version),
            _ => Value::Time(self.created_at()),
        })
    }
}

impl<'a> Version<'a> {
    /// Of a tombstone: the last version before it, whose labels it has.
    fn current(context: &'a Context, is_deleted: bool) -> Self {
        Self {
            context,
            metadata: &context.metadata,
            content_type: &context.content_type,
            size: context.size,
            scope: context.access.scope,
            version: context.version.saturating_sub(u64::from(is_deleted)),
        }
    }

    fn previous(event: &'a Event) -> Option<Self> {
        let labels = event.previous.as_ref()?;
        Some(Self {
            context: &event.context,
            metadata: &labels.metadata,
            content_type: &labels.content_type,
            size: labels.size,
            scope: labels.access.scope,
            version: event.context.version.saturating_sub(1),
        })
    }

    fn created_at(&self) -> OffsetDateTime {
        self.context.created_at
    }
}

impl ContextFilter {
    /// `None` for an empty one: everything matches.
    pub(crate) fn compile(source: &str) -> Result<Option<Self>, Problem> {
        if source.is_empty() {
            return Ok(None);
        }
        Filter::compile(source, &CONTEXT).map(|filter| Some(Self(filter)))
    }

    pub(crate) fn matches(&self, context: &Context) -> bool {
        self.0.matches(&Version::current(context, false))
    }

    /// Whether the version before an update matched. `true` where that is not known.
    pub(crate) fn matched(&self, event: &Event) -> bool {
        Version::previous(event).is_none_or(|previous| self.0.matches(&previous))
    }

    /// What is told of a change. `is_whole`: the subscriber was told, or could have been, of every version before it. Where it was not, because
    /// compaction removed some, it may hold one that matched: then it is told rather once too often.
    pub(crate) fn meaning(&self, event: &Event, is_whole: bool) -> Meaning {
        let is_deleted = event.change == Change::Deleted;
        if self.0.matches(&Version::current(&event.context, is_deleted)) {
            return Meaning::Change;
        }
        match event.change {
            Change::Created => Meaning::Nothing,
            Change::Deleted if is_whole => Meaning::Nothing,
            Change::Deleted => Meaning::Change,
            Change::Updated => {
                if self.matched(event) || !is_whole {
                    Meaning::Left
                } else {
                    Meaning::Nothing
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contexts::{
        change::{Labels, tests::context},
        context::Payload,
    };

    fn filter(source: &str) -> ContextFilter {
        ContextFilter::compile(source).unwrap_or_else(|problem| panic!("{}", problem.fault(source))).unwrap()
    }

    fn labels(priority: &str) -> BTreeMap<String, String> {
        [("priority".to_owned(), priority.to_owned())].into()
    }

    /// An update of this version from one priority to another.
    fn event(change: Change, before: Option<&str>, after: &str) -> Event {
        let mut context = context(Payload::Unread);
        context.version = if change == Change::Created { 1 } else { 7 };
        context.metadata = labels(after);
        let previous = before.map(|before| Labels {
            metadata: labels(before),
            content_type: context.content_type.clone(),
            size: 1,
            access: context.access.clone(),
        });
        Event { change, context, previous }
    }

    #[test]
    fn every_variable_has_its_value() {
        let mut context = context(Payload::Unread);
        context.metadata = labels("high");
        context.size = u64::MAX;
        let source = format!(
            "context.type == '{}' && context.creator == '{}' && context.metadata.priority == 'high' && context.content_type == '{}'
             && context.size == 9223372036854775807 && context.scope == '{}' && context.version == {}
             && context.created_at < timestamp('9999-01-01T00:00:00Z')",
            context.kind,
            context.creator_name,
            context.content_type,
            context.access.scope.as_str(),
            context.version
        );
        assert!(filter(&source).matches(&context));
        assert!(ContextFilter::compile("").unwrap().is_none());
    }

    #[test]
    fn what_enters_stays_leaves_and_goes() {
        let high = filter("context.metadata.priority == 'high'");
        let told = |change, before, after, is_whole| high.meaning(&event(change, before, after), is_whole);
        assert_eq!(told(Change::Created, None, "high", true), Meaning::Change);
        assert_eq!(told(Change::Created, None, "low", true), Meaning::Nothing);
        for (before, after, expected) in [
            ("low", "high", Meaning::Change),
            ("high", "high", Meaning::Change),
            ("high", "low", Meaning::Left),
            ("low", "low", Meaning::Nothing),
        ] {
            assert_eq!(told(Change::Updated, Some(before), after, true), expected, "{before} {after}");
        }
        assert_eq!(told(Change::Deleted, None, "high", true), Meaning::Change);
        assert_eq!(told(Change::Deleted, None, "low", true), Meaning::Nothing);
        // Compaction has removed what would tell.
        assert_eq!(told(Change::Updated, Some("low"), "low", false), Meaning::Left);
        assert_eq!(told(Change::Updated, None, "low", true), Meaning::Left);
        assert_eq!(told(Change::Deleted, None, "low", false), Meaning::Change);
        // A deletion is decided on the last version that there was.
        let sixth = filter("context.version == 6");
        assert_eq!(sixth.meaning(&event(Change::Deleted, None, "low"), true), Meaning::Change);
        assert_eq!(sixth.meaning(&event(Change::Updated, Some("low"), "low"), true), Meaning::Left);
    }
}
