//! Sends what the hub did to a collector, by OTLP over gRPC.

use std::time::{Duration, SystemTime};

use acb_hub_core::kit::spans::{Span, SpanKind, SpanSink, TraceParent};
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
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use time::OffsetDateTime;

use crate::config::{Config, ConfigError, TracingConfig};

/// How long the collector may take for what it is sent.
const WITHIN: Duration = Duration::from_secs(5);

/// Where spans go, until the hub ends.
pub(crate) struct Collector {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Collector {
    /// To be called where a runtime is. A collector that is away holds nothing up: what it does not take is dropped.
    pub(crate) fn new(settings: &TracingConfig, config: &Config) -> Result<Self, ConfigError> {
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
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).with_sampler(sampler).build();
        Ok(Self { tracer: provider.tracer("acb-hub"), provider })
    }

    /// Sends what is left.
    pub(crate) fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(WITHIN) {
            tracing::debug!(%error, "the last spans are lost");
        }
    }
}

impl SpanSink for Collector {
    fn take(&self, span: Span) {
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
