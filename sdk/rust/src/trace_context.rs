//! The W3C trace context of what is being done: it goes along with calls and messages.

use std::sync::Arc;

use acb_proto::v1::OutgoingMessage;
use tonic::metadata::MetadataMap;

/// What a request or a message says of its trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TraceContext {
    pub(crate) traceparent: String,
    pub(crate) tracestate: String,
}

tokio::task_local! {
    static CONTEXT: Arc<TraceContext>;
}

/// Has all that this future does with a client be part of a trace: each of its calls, and each message that names no other. Handlers run as part of
/// that of their message. With the feature `opentelemetry` the current span of OpenTelemetry comes first. A task that is spawned has none of its own.
pub async fn traced<F: Future>(traceparent: impl Into<String>, tracestate: impl Into<String>, work: F) -> F::Output {
    let context = TraceContext { traceparent: traceparent.into(), tracestate: tracestate.into() };
    CONTEXT.scope(context.into(), work).await
}

/// What the present work is part of.
fn present() -> Option<Arc<TraceContext>> {
    #[cfg(feature = "opentelemetry")]
    if let Some(context) = crate::spans::present() {
        return Some(context.into());
    }
    CONTEXT.try_with(Arc::clone).ok().filter(|context| !context.traceparent.is_empty())
}

/// Says on a request what it is part of.
pub(crate) fn put(metadata: &mut MetadataMap) {
    let Some(context) = present() else { return };
    for (name, value) in [("traceparent", &context.traceparent), ("tracestate", &context.tracestate)] {
        // What is no header can't be said.
        if let Some(value) = value.parse().ok().filter(|_| !value.is_empty()) {
            metadata.insert(name, value);
        }
    }
}

/// Says in a message what it is part of, where it says nothing else.
pub(crate) fn fill(message: &mut OutgoingMessage) {
    if !message.traceparent.is_empty() {
        return;
    }
    #[cfg(feature = "opentelemetry")]
    let context = crate::spans::created(message).map(Arc::new).or_else(present);
    #[cfg(not(feature = "opentelemetry"))]
    let context = present();
    if let Some(context) = context {
        message.traceparent.clone_from(&context.traceparent);
        message.tracestate.clone_from(&context.tracestate);
    }
}

/// Makes the call that sends a message as part of that message's trace.
pub(crate) async fn of_message<F: Future>(message: &OutgoingMessage, call: F) -> F::Output {
    traced(message.traceparent.clone(), message.tracestate.clone(), call).await
}

/// Handles a message as part of its trace.
pub(crate) async fn handled<F, T, E>(received: &Arc<acb_proto::v1::Message>, handler: F) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
    E: std::fmt::Display,
{
    let work = traced(received.traceparent.clone(), received.tracestate.clone(), handler);
    #[cfg(feature = "opentelemetry")]
    let work = crate::spans::processed(received, work);
    work.await
}
