//! What is counted for each message of an agent, looked up once for all messages of a session.

use std::{sync::Arc, time::Duration};

use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use super::{
    Metrics,
    contexts::{Bandwidth, IN, OUT},
};

/// Counters of the messages that come from an agent, or go to it. They are looked up when the first one is counted: an agent without any is in
/// no scrape.
struct Traffic {
    metrics: Arc<Metrics>,
    agent: String,
    counters: Option<Counters>,
}

struct Counters {
    messages: Counter,
    bytes: Bandwidth,
}

impl Traffic {
    fn new(metrics: &Arc<Metrics>, agent: &str) -> Self {
        Self { metrics: metrics.clone(), agent: agent.to_owned(), counters: None }
    }

    fn count(&mut self, find: impl FnOnce(&Metrics, &str) -> Counters, bytes: usize) {
        let counters = self.counters.get_or_insert_with(|| find(&self.metrics, &self.agent));
        counters.messages.inc();
        counters.bytes.inc_by(bytes as u64);
    }
}

/// Counters of the messages that come from one agent.
pub(crate) struct SenderMetrics {
    traffic: Traffic,
    latency: Histogram,
}

impl SenderMetrics {
    pub(crate) fn new(metrics: &Arc<Metrics>, agent: &str) -> Self {
        Self { traffic: Traffic::new(metrics, agent), latency: metrics.latency_of("send") }
    }

    /// A message of this type with so many bytes was accepted; `kind` is in lower case.
    pub(crate) fn sent(&mut self, kind: &'static str, bytes: usize, took: Duration) {
        self.traffic.metrics.message(kind);
        let find = |metrics: &Metrics, agent: &str| Counters {
            messages: metrics.sent_by(agent),
            bytes: metrics.contexts.bandwidth(agent, IN),
        };
        self.traffic.count(find, bytes);
        self.latency.observe(took.as_secs_f64());
    }
}

/// Counters of the messages that go to one agent.
pub(crate) struct ReceiverMetrics(Traffic);

impl ReceiverMetrics {
    pub(crate) fn new(metrics: &Arc<Metrics>, agent: &str) -> Self {
        Self(Traffic::new(metrics, agent))
    }

    /// A message with so many bytes was delivered.
    pub(crate) fn received(&mut self, bytes: usize) {
        let find = |metrics: &Metrics, agent: &str| Counters {
            messages: metrics.received_by(agent),
            bytes: metrics.contexts.bandwidth(agent, OUT),
        };
        self.0.count(find, bytes);
    }
}

/// How long messages take from their acceptance until the session of a connected recipient has them. When the agent takes them is not in it: that is
/// the agent's.
pub(crate) struct DeliveryLatency(Histogram);

impl DeliveryLatency {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self(metrics.latency_of("deliver"))
    }

    pub(crate) fn took(&self, time: time::Duration) {
        self.0.observe(time.max(time::Duration::ZERO).as_seconds_f64());
    }
}
