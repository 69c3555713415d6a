//! What happened to a message whose sender collects traces, as spans: by OpenTelemetry's conventions for messaging.

use time::OffsetDateTime;

use crate::{
    kit::spans::{Span, SpanKind, Spans, TraceParent},
    messages::{message::Message, parts::Parts},
};

/// What a span says of its message, kept until there is one.
#[derive(Clone, Debug)]
pub(in crate::messages) struct Traced {
    id: String,
    topic: String,
    correlation: String,
    traceparent: String,
    since: OffsetDateTime,
}

impl Traced {
    /// Nothing where nobody collects.
    pub(in crate::messages) fn of(spans: &Spans, message: &Message, since: OffsetDateTime) -> Option<Self> {
        let collected = spans.are_collected() && TraceParent::parse(&message.traceparent).is_some_and(|parent| parent.sampled);
        collected.then(|| Self {
            id: message.id.to_string(),
            topic: message.topic.clone(),
            correlation: message.correlation_id.clone(),
            traceparent: message.traceparent.clone(),
            since,
        })
    }

    /// The same, of what begins later.
    pub(in crate::messages) fn since(self, since: OffsetDateTime) -> Self {
        Self { since, ..self }
    }

    /// Tells that this was done with the message, since the time that was kept.
    pub(in crate::messages) fn tell(
        self,
        parts: &Parts,
        operation: &'static str,
        kind: SpanKind,
        agent: &str,
        ended: OffsetDateTime,
    ) {
        let config = &parts.config;
        config.spans.tell_part(&self.traceparent, |parent| {
            let name = if self.topic.is_empty() { operation.to_owned() } else { format!("{operation} {}", self.topic) };
            let mut attributes = vec![
                ("messaging.system", "acb".to_owned()),
                ("messaging.operation.name", operation.to_owned()),
                ("messaging.message.id", self.id),
                ("messaging.message.conversation_id", self.correlation),
                ("acb.agent", agent.to_owned()),
                ("acb.replica", config.replica.clone()),
            ];
            attributes.extend(Some(("messaging.destination.name", self.topic)).filter(|(_, topic)| !topic.is_empty()));
            // Clocks differ: nothing ends before it begins.
            let began = self.since.min(ended);
            Span { name, kind, parent: Some(parent), began, ended, attributes, failed: None }
        });
    }
}
