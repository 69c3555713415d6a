//! One trace over two agents and both replicas of a hub, as a real collector of OpenTelemetry gets it: `make traces`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use acb_sdk::{Client, Message};
use acb_testbed::standalone::{Home, Standalone};
use opentelemetry::global;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use serde_json::Value;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(60);

const RESOURCES: &str = "apiVersion: acb.dev/v1alpha1
kind: Tenant
metadata: {name: acme}
spec: {tier: Professional, hub: {replicas: 2}}
---
apiVersion: acb.dev/v1alpha1
kind: Agent
metadata: {name: planner, namespace: acb-acme}
spec: {type: worker, role: AgentFull}
---
apiVersion: acb.dev/v1alpha1
kind: Agent
metadata: {name: packer, namespace: acb-acme}
spec: {type: worker, role: AgentFull}
";

/// A collector that writes what it gets to a file. Ends with this value.
struct Collector {
    process: Child,
    endpoint: String,
    spans: PathBuf,
}

impl Collector {
    fn start(folder: &Path) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/testbed/collector/collector");
        assert!(program.exists(), "{} is missing: run tests/testbed/collector/build", program.display());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (config, spans) = (folder.join("collector.yaml"), folder.join("spans.jsonl"));
        let text = format!(
            "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '127.0.0.1:{port}'}}}}}}}}\n\
             exporters: {{file: {{path: '{}', flush_interval: 50ms}}}}\n\
             service: {{telemetry: {{metrics: {{level: none}}}}, pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}}}\n",
            spans.display()
        );
        fs::write(&config, text).unwrap();
        let log = fs::File::create(folder.join("collector.log")).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(format!("file:{}", config.display())).stdout(Stdio::null()).stderr(log);
        Self { process: command.spawn().unwrap(), endpoint: format!("http://127.0.0.1:{port}"), spans }
    }

    /// What it has so far.
    fn spans(&self) -> Vec<Span> {
        let text = fs::read_to_string(&self.spans).unwrap_or_default();
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.flat_map(|line| Span::all_of(&line)).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // A test that is over has no use for what these say.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Clone, Debug)]
struct Span {
    service: String,
    instance: String,
    name: String,
    trace: String,
    id: String,
    parent: String,
    linked: Vec<String>,
}

impl Span {
    /// From a line of the collector's file: OTLP as JSON.
    fn all_of(line: &Value) -> Vec<Self> {
        let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut all = Vec::new();
        for resource in list(line, "resourceSpans") {
            let attribute = |name: &str| {
                let attributes = list(&resource["resource"], "attributes");
                attributes
                    .iter()
                    .find(|known| known["key"] == name)
                    .map(|known| text(&known["value"]["stringValue"]))
                    .unwrap_or_default()
            };
            for scope in list(&resource, "scopeSpans") {
                all.extend(list(&scope, "spans").iter().map(|span| Self {
                    service: attribute("service.name"),
                    instance: attribute("service.instance.id"),
                    name: text(&span["name"]),
                    trace: text(&span["traceId"]),
                    id: text(&span["spanId"]),
                    parent: text(&span["parentSpanId"]),
                    linked: list(span, "links").iter().map(|link| text(&link["spanId"])).collect(),
                }));
            }
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a collector: make traces"]
async fn a_message_is_one_trace_over_two_agents_and_both_replicas() {
    let home = Home::new().unwrap();
    let collector = Collector::start(home.path());
    let resources = home.path().join("resources");
    fs::create_dir(&resources).unwrap();
    fs::write(resources.join("acme.yaml"), RESOURCES).unwrap();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint.clone())];
    let dev = Standalone::start_with(&home, &resources, &home.path().join("dev.log"), &variables).await.unwrap();
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(&collector.endpoint).build().unwrap();
    let resource = Resource::builder_empty().with_service_name("agents").build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    global::set_tracer_provider(provider);

    let access = dev.tenant("acme").unwrap();
    let agent = async |name: &str, replica: usize| {
        let endpoint = &access.endpoints[replica];
        let key = access.api_key(name).unwrap().parse().unwrap();
        Client::builder().endpoints([endpoint]).ca_pem(access.ca_pem.clone()).api_key(key).connect().await.unwrap()
    };
    let (planner, packer) = (agent("planner", 0).await, agent("packer", 1).await);
    let mut session = packer.session().open().await.unwrap();
    session.on("pack", |_: u32, _| async { Ok(()) });
    let handling = tokio::spawn(session.run());
    planner.send(Message::to_agent("packer").topic("pack").json(&1)).await.unwrap();

    let names =
        ["create pack", "acb.v1.MessageService/SendMessage", "publish pack", "deliver pack", "process pack", "settle pack"];
    let deadline = Instant::now() + PATIENCE;
    let of_trace = loop {
        let spans = collector.spans();
        let trace = spans.iter().find(|span| span.name == "create pack").map(|span| span.trace.clone());
        let of_trace: Vec<Span> = spans.iter().filter(|span| Some(&span.trace) == trace.as_ref()).cloned().collect();
        let found: BTreeSet<&str> = of_trace.iter().map(|span| span.name.as_str()).collect();
        if names.iter().all(|name| found.contains(name)) {
            break of_trace;
        }
        assert!(Instant::now() < deadline, "all of {names:?} in one trace, and not {found:?} of {spans:?}");
        sleep(Duration::from_millis(50)).await;
    };
    let span = |name: &str| of_trace.iter().find(|span| span.name == name).unwrap();
    let created = span("create pack");
    for name in ["publish pack", "deliver pack", "process pack", "settle pack"] {
        assert_eq!(span(name).parent, created.id, "{name}");
    }
    for name in ["process pack", "settle pack"] {
        assert_eq!(span(name).linked, [created.id.as_str()], "{name}");
    }
    let (publish, deliver) = (span("publish pack"), span("deliver pack"));
    assert_eq!((publish.service.as_str(), deliver.service.as_str(), created.service.as_str()), ("acb-hub", "acb-hub", "agents"));
    assert_ne!(publish.instance, deliver.instance, "one replica took it, and the other handed it over");
    handling.abort();
}
