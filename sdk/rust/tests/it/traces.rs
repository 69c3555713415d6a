//! What goes along with messages: the correlation id, and the trace of OpenTelemetry.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use acb_sdk::{Message, correlated, correlation_id, traced};
use opentelemetry::{global, trace::SpanKind};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};

use crate::hub::Hub;

/// What was exported.
#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

/// The global provider of this process, and what it exports.
fn exported() -> &'static Exported {
    static EXPORTER: OnceLock<Exported> = OnceLock::new();
    EXPORTER.get_or_init(|| {
        let exporter = Exported::default();
        global::set_tracer_provider(SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build());
        exporter
    })
}

async fn span(name: &str) -> SpanData {
    let found = || exported().0.lock().unwrap().iter().find(|span| span.name == name).cloned();
    let exported = async {
        loop {
            if let Some(span) = found() {
                return span;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), exported).await.expect("the span in time")
}

#[tokio::test]
async fn a_message_and_its_handling_are_one_trace_over_two_agents() {
    exported();
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    let sent = correlated("order-7", client.send(Message::to_agent("worker").topic("pack").json(&1)));
    sent.await.unwrap();
    let logged = hub.state().log[0].clone();
    assert_eq!(logged.correlation_id, "order-7");
    let created = span("create pack").await;
    let (trace, id) = (created.span_context.trace_id(), created.span_context.span_id());
    assert_eq!((logged.traceparent, created.span_kind), (format!("00-{trace}-{id}-01"), SpanKind::Producer));

    // The same message, as the other agent gets it.
    let message = acb_proto::v1::Message {
        id: "m".into(),
        topic: "pack".into(),
        payload: "1".into(),
        correlation_id: "order-7".into(),
        traceparent: format!("00-{trace}-{id}-01"),
        ..Default::default()
    };
    hub.state().mailbox = vec![message];
    let mut session = client.session().open().await.unwrap();
    let sender = session.sender();
    session.on("pack", move |_: u32, _| {
        let sender = sender.clone();
        async move {
            assert_eq!(correlation_id().as_deref(), Some("order-7"));
            sender.send(Message::to_agent("worker").topic("ship").text("it")).await?;
            Ok(())
        }
    });
    let running = tokio::spawn(session.run());
    hub.until("it is acknowledged", |state| state.acked.contains("m")).await;
    let (processed, next) = (span("process pack").await, span("create ship").await);
    assert_eq!(
        (processed.span_context.trace_id(), processed.parent_span_id, processed.span_kind),
        (trace, id, SpanKind::Consumer)
    );
    assert_eq!(processed.links.iter().map(|link| link.span_context.span_id()).collect::<Vec<_>>(), [id]);
    assert_eq!((next.span_context.trace_id(), next.parent_span_id), (trace, processed.span_context.span_id()));
    assert_eq!(hub.state().log[1].correlation_id, "order-7", "what a handler sends goes on with it");
    running.abort();
}

#[tokio::test]
async fn a_handler_that_fails_has_a_span_that_says_so() {
    exported();
    let hub = Hub::start(1).await;
    hub.state().mailbox =
        vec![acb_proto::v1::Message { id: "f".into(), topic: "failing".into(), payload: "1".into(), ..Default::default() }];
    let mut session = hub.client().connect().await.unwrap().session().open().await.unwrap();
    session.on("failing", |_: u32, _| async { Err("out of paper".into()) });
    let running = tokio::spawn(session.run());
    let failed = span("process failing").await;
    assert_eq!(failed.status, opentelemetry::trace::Status::error("out of paper"));
    running.abort();
}

#[tokio::test]
async fn what_is_named_goes_along_and_what_is_no_header_does_not() {
    let hub = Hub::start(1).await;
    let client = hub.client().connect().await.unwrap();
    let named = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let message = || Message::to_agent("worker").topic("named").trace(named, "a=b");
    traced("not\na header", "", correlated("two\nlines", client.send(message()))).await.unwrap();
    let logged = hub.state().log[0].clone();
    assert_eq!((logged.traceparent.as_str(), logged.tracestate.as_str()), (named, "a=b"), "its own comes first");
}
