//! Spans of OpenTelemetry, by its conventions for messaging: where a message was made, and where it is handled. They go where the application has
//! OpenTelemetry's global provider send them.

use acb_proto::v1::{Message, OutgoingMessage};
use opentelemetry::{
    Context, KeyValue, global,
    trace::{
        FutureExt as _, Link, Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
        TraceState, Tracer as _,
    },
};

use crate::trace_context::TraceContext;

const TRACER: &str = "acb-sdk";

fn text(context: &SpanContext) -> Option<TraceContext> {
    context.is_valid().then(|| TraceContext {
        traceparent: format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()),
        tracestate: context.trace_state().header(),
    })
}

/// The current span.
pub(crate) fn present() -> Option<TraceContext> {
    text(Context::current().span().span_context())
}

fn attributes(operation: &'static str, topic: &str, correlation: &str) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new("messaging.system", "acb"), KeyValue::new("messaging.operation.name", operation)];
    for (name, value) in [("messaging.destination.name", topic), ("messaging.message.conversation_id", correlation)] {
        if !value.is_empty() {
            attributes.push(KeyValue::new(name, value.to_owned()));
        }
    }
    attributes
}

fn name(operation: &str, topic: &str) -> String {
    if topic.is_empty() { operation.to_owned() } else { format!("{operation} {topic}") }
}

/// Tells that a message was made. What becomes of it is part of that.
pub(crate) fn created(message: &OutgoingMessage) -> Option<TraceContext> {
    let tracer = global::tracer(TRACER);
    let mut span = tracer
        .span_builder(name("create", &message.topic))
        .with_kind(SpanKind::Producer)
        .with_attributes(attributes("create", &message.topic, &message.correlation_id))
        .start(&tracer);
    let context = text(span.span_context());
    span.end();
    context
}

/// Handles a message as part of the trace of its sender, which is linked, too: in a trace that is cut apart it is still found.
pub(crate) async fn processed<F, T, E>(message: &Message, handler: F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    let sender = parse(&message.traceparent, &message.tracestate);
    let around = sender.clone().map_or_else(Context::current, |sender| Context::current().with_remote_span_context(sender));
    let tracer = global::tracer(TRACER);
    let mut facts = attributes("process", &message.topic, &message.correlation_id);
    facts.push(KeyValue::new("messaging.message.id", message.id.clone()));
    let span = tracer
        .span_builder(name("process", &message.topic))
        .with_kind(SpanKind::Consumer)
        .with_attributes(facts)
        .with_links(sender.into_iter().map(Link::with_context).collect())
        .start_with_context(&tracer, &around);
    let context = around.with_span(span);
    let handled = handler.with_context(context.clone()).await;
    if let Err(error) = &handled {
        context.span().set_status(Status::error(error.to_string()));
    }
    context.span().end();
    handled
}

/// From the text of W3C.
fn parse(traceparent: &str, tracestate: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(parts.next()?).ok()?;
    let span = SpanId::from_hex(parts.next()?).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    let state = tracestate.parse().unwrap_or_else(|_| TraceState::default());
    Some(SpanContext::new(trace, span, TraceFlags::new(flags), true, state)).filter(SpanContext::is_valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_written_as_it_is_read() {
        let written = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(text(&parse(written, "a=b").unwrap()).unwrap().traceparent, written);
        for noise in ["", "00", "00-x-y-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            assert!(parse(noise, "").is_none(), "{noise}");
        }
    }
}
