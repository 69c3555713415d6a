//! Sends what the hub did to a collector, by OTLP over gRPC.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use acb_hub_core::{
    kit::spans::{Span, SpanKind, SpanSink, TraceParent},
    metrics::Metrics,
};
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Link, SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{self, BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData},
};
use time::OffsetDateTime;

use crate::config::{Config, ConfigError, TracingConfig};

/// How long the collector may take for what it is sent.
const WITHIN: Duration = Duration::from_secs(5);
/// Spans that wait for the collector at most. What comes then is lost.
const WAITING: usize = 2048;

/// What became of spans that were made.
#[derive(Debug)]
struct Counts {
    waiting: AtomicUsize,
    metrics: Arc<Metrics>,
}

impl Counts {
    /// Whether there is room for one more.
    fn has_room(&self) -> bool {
        let has_room = self.waiting.load(Ordering::Relaxed) < WAITING;
        if !has_room {
            self.metrics.spans_lost(1);
        }
        has_room
    }

    fn sent(&self, spans: usize, taken: bool) {
        let left = |waiting: usize| Some(waiting.saturating_sub(spans));
        let _before = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        if !taken {
            self.metrics.spans_lost(spans as u64);
        }
    }
}

/// Sends spans, and counts what the collector does not take.
#[derive(Debug)]
struct Counted<E> {
    exporter: E,
    counts: Arc<Counts>,
}

impl<E: trace::SpanExporter> trace::SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        self.counts.sent(spans, sent.is_ok());
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Where spans go, until the hub ends.
pub(crate) struct Collector {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    begins_traces: bool,
    counts: Arc<Counts>,
}

impl Collector {
    /// To be called where a runtime is. A collector that is away holds nothing up: what it does not take is dropped, and counted.
    pub(crate) fn new(settings: &TracingConfig, config: &Config, metrics: Arc<Metrics>) -> Result<Self, ConfigError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&settings.endpoint)
            .with_timeout(WITHIN)
            .build()
            .map_err(|error| ConfigError::new("hub.json: tracing.endpoint", error))?;
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "acb-hub"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.namespace", config.hub.tenant.clone()),
                KeyValue::new("service.instance.id", config.replica.clone()),
            ])
            .build();
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample_ratio)));
        let counts = Arc::new(Counts { waiting: AtomicUsize::new(0), metrics });
        // With room for more than may wait, since several are made at once: nothing is lost there, where nobody would count it.
        let batches = BatchConfigBuilder::default().with_max_queue_size(2 * WAITING).build();
        let exporter = Counted { exporter, counts: counts.clone() };
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider =
            SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).with_sampler(sampler).build();
        Ok(Self { tracer: provider.tracer("acb-hub"), provider, begins_traces: settings.sample_ratio > 0.0, counts })
    }

    /// Sends what is left.
    pub(crate) fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(WITHIN) {
            tracing::debug!(%error, "the last spans are lost");
        }
    }
}

impl SpanSink for Collector {
    fn begins_traces(&self) -> bool {
        self.begins_traces
    }

    fn take(&self, span: Span) {
        if !self.counts.has_room() {
            return;
        }
        let Span { name, kind, parent, began, ended, attributes, failed } = span;
        let kind_of = match kind {
            SpanKind::Server => opentelemetry::trace::SpanKind::Server,
            SpanKind::Producer => opentelemetry::trace::SpanKind::Producer,
            SpanKind::Consumer => opentelemetry::trace::SpanKind::Consumer,
        };
        let parent = parent.map(context);
        let mut builder = self
            .tracer
            .span_builder(name)
            .with_kind(kind_of)
            .with_start_time(system_time(began))
            .with_attributes(attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)));
        // A message is handed over long after it was sent: whoever looks at that finds what it came from, also where traces are cut apart.
        if kind == SpanKind::Consumer
            && let Some(parent) = &parent
        {
            builder = builder.with_links(vec![Link::with_context(parent.clone())]);
        }
        let around = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let mut made = self.tracer.build_with_context(builder, &around);
        use opentelemetry::trace::Span as _;
        // What is not sampled goes nowhere.
        if made.is_recording() {
            self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(reason) = failed {
            made.set_status(Status::error(reason));
        }
        made.end_with_timestamp(system_time(ended));
    }
}

fn context(parent: TraceParent) -> SpanContext {
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    SpanContext::new(TraceId::from_bytes(parent.trace), SpanId::from_bytes(parent.span), flags, true, TraceState::default())
}

fn system_time(at: OffsetDateTime) -> SystemTime {
    at.into()
}
