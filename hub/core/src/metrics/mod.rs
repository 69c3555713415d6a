//! What a hub counts, under the names that operators of the platform were promised.

pub mod audit;
pub mod connections;
pub mod contexts;
pub mod limits;
pub mod oidc;
pub mod process;
pub(crate) mod traffic;
pub mod usage;

use std::{sync::Mutex, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::{
    audit::AuditMetrics, connections::ConnectionMetrics, contexts::ContextMetrics, limits::LimitMetrics, oidc::OidcMetrics,
    process::ProcessMetrics, usage::UsageMetrics,
};
use crate::fault::Fault;

/// Seconds: from half a millisecond to half a minute.
const LATENCY_BUCKETS: [f64; 15] = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tenant {
    tenant_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Messages {
    r#type: &'static str,
    tenant_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    r#type: String,
    operation: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AgentLabel {
    agent_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Topic {
    topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Query {
    query: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadLetters {
    reason: &'static str,
    tenant_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Login {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettledLetters {
    outcome: &'static str,
    tenant_id: String,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Counters of one tenant's hub. People and metrics see the tenant's name.
#[derive(Debug)]
pub struct Metrics {
    tenant: String,
    registry: Mutex<Registry>,
    messages: Family<Messages, Counter>,
    /// The same, of the types that there are.
    message_types: [(&'static str, Counter); 4],
    latency: Histograms<Operation>,
    active: Family<Tenant, Gauge>,
    errors: Family<ErrorLabels, Counter>,
    limited: LimitMetrics,
    logins: Family<Login, Counter>,
    sent: Family<AgentLabel, Counter>,
    received: Family<AgentLabel, Counter>,
    contexts: ContextMetrics,
    audit: AuditMetrics,
    connections: ConnectionMetrics,
    process: ProcessMetrics,
    oidc: OidcMetrics,
    usage: UsageMetrics,
    lag: Family<Topic, Gauge>,
    queries: Histograms<Query>,
    forgotten: Family<Tenant, Counter>,
    spans_lost: Counter,
    sweep_lag: Family<Tenant, Gauge>,
    dead_letters: Family<DeadLetters, Counter>,
    settled_letters: Family<SettledLetters, Counter>,
    timers_waiting: Family<Tenant, Gauge>,
    traces_lost: Family<Tenant, Counter>,
    timers_overdue: Family<Tenant, Gauge>,
    timer_lateness: Histograms<Tenant>,
}

impl Metrics {
    /// Counters at zero.
    #[must_use]
    pub fn new(tenant: impl Into<String>) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(LATENCY_BUCKETS);
        let tenant = tenant.into();
        let messages: Family<Messages, Counter> = Family::default();
        let of_type = |kind| (kind, messages.get_or_create(&Messages { r#type: kind, tenant_id: tenant.clone() }).clone());
        let limited = LimitMetrics::default();
        let metrics = Self {
            message_types: ["event", "command", "query", "response"].map(of_type),
            contexts: ContextMetrics::new(tenant.clone()).counting(limited.clone()),
            audit: AuditMetrics::default(),
            connections: ConnectionMetrics::default(),
            process: ProcessMetrics::default(),
            oidc: OidcMetrics::default(),
            usage: UsageMetrics::default(),
            tenant,
            registry: Mutex::default(),
            messages,
            latency: Family::new_with_constructor(histogram),
            active: Family::default(),
            errors: Family::default(),
            limited,
            logins: Family::default(),
            sent: Family::default(),
            received: Family::default(),
            lag: Family::default(),
            queries: Family::new_with_constructor(histogram),
            spans_lost: Counter::default(),
            forgotten: Family::default(),
            sweep_lag: Family::default(),
            dead_letters: Family::default(),
            settled_letters: Family::default(),
            timers_waiting: Family::default(),
            traces_lost: Family::default(),
            timers_overdue: Family::default(),
            timer_lateness: Family::new_with_constructor(histogram),
        };
        {
            let mut registry = metrics.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            registry.register("acb_messages", "Messages accepted by this replica", metrics.messages.clone());
            registry.register("acb_message_latency_seconds", "How long it took until a message was accepted (send), a connected recipient's session had it (deliver), a request was answered (request)", metrics.latency.clone());
            registry.register("acb_active_agents", "Agents with a receiving session on this replica", metrics.active.clone());
            registry.register("acb_errors", "Requests that failed", metrics.errors.clone());
            metrics.limited.register(&mut registry);
            let help = "Credentials that were exchanged, renewed or revoked; acb_errors has those that were refused";
            registry.register("acb_logins", help, metrics.logins.clone());
            registry.register("acb_agent_messages_sent", "Messages accepted from an agent", metrics.sent.clone());
            registry.register("acb_agent_messages_received", "Messages delivered to an agent", metrics.received.clone());
            metrics.contexts.register(&mut registry);
            metrics.audit.register(&mut registry);
            metrics.connections.register(&mut registry);
            metrics.process.register(&mut registry);
            metrics.oidc.register(&mut registry);
            metrics.usage.register(&mut registry);
            registry.register("acb_kafka_lag", "Records that this replica has not read yet", metrics.lag.clone());
            registry.register("acb_db_query_duration_seconds", "How long queries took", metrics.queries.clone());
            let help = "Messages that the log forgot before anybody had taken them, and that are no dead letters";
            registry.register("acb_messages_forgotten", help, metrics.forgotten.clone());
            let help = "Seconds since the oldest message expired that this replica found in a mailbox, at its last look";
            registry.register("acb_mailbox_sweep_lag_seconds", help, metrics.sweep_lag.clone());
            let help = "Messages that this replica put into the dead letters";
            registry.register("acb_dead_letters", help, metrics.dead_letters.clone());
            let help = "Dead letters that were replayed or dropped through this replica";
            registry.register("acb_dead_letters_settled", help, metrics.settled_letters.clone());
            let help = "Timers of the tenant that wait, such as scheduled messages, at this replica's last look";
            registry.register("acb_timers_waiting", help, metrics.timers_waiting.clone());
            let help = "Events of messages that this replica had no room or no time to note, so that traces lack them";
            registry.register("acb_trace_events_lost", help, metrics.traces_lost.clone());
            let help = "Spans that the collector did not take, or that there was no room for";
            registry.register("acb_spans_lost", help, metrics.spans_lost.clone());
            let help = "Seconds since the oldest timer that waits was due, at this replica's last look";
            registry.register("acb_timers_overdue_seconds", help, metrics.timers_overdue.clone());
            let help = "How much later than they were due timers were carried out by this replica";
            registry.register("acb_timer_lateness_seconds", help, metrics.timer_lateness.clone());
            for reason in ["expired", "attempts", "sender-refused", "recipient-gone"] {
                let _zero = metrics.dead_letters.get_or_create(&DeadLetters { reason, tenant_id: metrics.tenant.clone() });
            }
            // There from the start: the first one that is counted would be no increase otherwise.
            let _zero = metrics.forgotten.get_or_create(&Tenant { tenant_id: metrics.tenant.clone() });
        }
        metrics
    }

    /// A message was accepted: `kind` is its type in lower case.
    pub fn message(&self, kind: &'static str) {
        match self.message_types.iter().find(|(known, _)| *known == kind) {
            Some((_, count)) => count.inc(),
            None => self.messages.get_or_create(&Messages { r#type: kind, tenant_id: self.tenant.clone() }).inc(),
        };
    }

    /// How long an operation such as `send` took.
    pub fn latency(&self, operation: &str, took: Duration) {
        self.latency_of(operation).observe(took.as_secs_f64());
    }

    fn latency_of(&self, operation: &str) -> Histogram {
        self.latency.get_or_create(&Operation { operation: operation.to_owned() }).clone()
    }

    /// A receiving session began (`+1`) or ended (`-1`).
    pub fn active_agents(&self, change: i64) {
        self.active.get_or_create(&Tenant { tenant_id: self.tenant.clone() }).inc_by(change);
    }

    /// What is counted about contexts, in the same scrape.
    #[must_use]
    pub fn contexts(&self) -> ContextMetrics {
        self.contexts.clone()
    }

    /// What is counted about the audit trail, in the same scrape.
    #[must_use]
    pub fn audit(&self) -> AuditMetrics {
        self.audit.clone()
    }

    /// What is counted about connections, in the same scrape.
    #[must_use]
    pub fn connections(&self) -> ConnectionMetrics {
        self.connections.clone()
    }

    /// What is measured of this process, in the same scrape.
    #[must_use]
    pub fn process(&self) -> ProcessMetrics {
        self.process.clone()
    }

    /// What is counted about OpenID Connect issuers, in the same scrape.
    #[must_use]
    pub fn oidc(&self) -> OidcMetrics {
        self.oidc.clone()
    }

    /// What is counted about the sums of usage, in the same scrape.
    #[must_use]
    pub fn usage(&self) -> UsageMetrics {
        self.usage.clone()
    }

    /// Something was refused because somebody's limit was reached.
    pub(crate) fn limited(&self, fault: &Fault) {
        self.limited.refused(fault);
    }

    /// A request failed: `kind` is the code in lower case.
    pub fn error(&self, operation: &str, kind: &str) {
        self.errors.get_or_create(&ErrorLabels { r#type: kind.to_owned(), operation: operation.to_owned() }).inc();
    }

    /// A credential was taken.
    pub(crate) fn login(&self, operation: &'static str) {
        self.logins.get_or_create(&Login { operation }).inc();
    }

    fn sent_by(&self, agent: &str) -> Counter {
        self.sent.get_or_create(&AgentLabel { agent_id: agent.to_owned() }).clone()
    }

    fn received_by(&self, agent: &str) -> Counter {
        self.received.get_or_create(&AgentLabel { agent_id: agent.to_owned() }).clone()
    }

    /// Removes what is counted for agents that are gone: each that ever was would stay in every scrape.
    pub fn forget_agents(&self, is_gone: impl Fn(&str) -> bool) {
        for agent in self.contexts.agents().into_iter().filter(|agent| is_gone(agent)) {
            let label = AgentLabel { agent_id: agent };
            self.sent.remove(&label);
            self.received.remove(&label);
            self.contexts.forget(&label.agent_id);
        }
    }

    /// How far this replica's tail is behind.
    pub fn lag(&self, topic: &str, records: u64) {
        self.lag.get_or_create(&Topic { topic: topic.to_owned() }).set(i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A topic is followed no more.
    pub fn not_followed(&self, topic: &str) {
        self.lag.remove(&Topic { topic: topic.to_owned() });
    }

    /// How long a query took.
    pub fn query(&self, query: &'static str, took: Duration) {
        self.queries.get_or_create(&Query { query }).observe(took.as_secs_f64());
    }

    /// The log forgot a message that nobody had taken.
    pub fn forgotten(&self) {
        self.forgotten.get_or_create(&Tenant { tenant_id: self.tenant.clone() }).inc();
    }

    /// So many spans reached no collector.
    pub fn spans_lost(&self, spans: u64) {
        self.spans_lost.inc_by(spans);
    }

    /// A message became a dead letter.
    pub fn dead_letter(&self, reason: &'static str) {
        self.dead_letters.get_or_create(&DeadLetters { reason, tenant_id: self.tenant.clone() }).inc();
    }

    /// A dead letter was `replayed` or `dropped`.
    pub fn letters_settled(&self, outcome: &'static str) {
        self.settled_letters.get_or_create(&SettledLetters { outcome, tenant_id: self.tenant.clone() }).inc();
    }

    /// So many events of messages are in no trace.
    pub fn trace_lost(&self, events: usize) {
        let label = Tenant { tenant_id: self.tenant.clone() };
        self.traces_lost.get_or_create(&label).inc_by(u64::try_from(events).unwrap_or(u64::MAX));
    }

    /// So many timers wait.
    pub fn timers_waiting(&self, count: u64) {
        let label = Tenant { tenant_id: self.tenant.clone() };
        self.timers_waiting.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The oldest timer has been due for so long.
    pub fn timers_overdue(&self, overdue: Duration) {
        let label = Tenant { tenant_id: self.tenant.clone() };
        self.timers_overdue.get_or_create(&label).set(i64::try_from(overdue.as_secs()).unwrap_or(i64::MAX));
    }

    /// A timer was carried out so long after it was due.
    pub fn timer_fired(&self, late: Duration) {
        self.timer_lateness.get_or_create(&Tenant { tenant_id: self.tenant.clone() }).observe(late.as_secs_f64());
    }

    /// How long ago the oldest message expired that is still in a mailbox.
    pub fn sweep_lag(&self, lag: Duration) {
        let seconds = i64::try_from(lag.as_secs()).unwrap_or(i64::MAX);
        self.sweep_lag.get_or_create(&Tenant { tenant_id: self.tenant.clone() }).set(seconds);
    }

    /// The OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if encode(&mut text, &registry).is_err() {
            text.clear();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        contexts::IN,
        traffic::{DeliveryLatency, ReceiverMetrics, SenderMetrics},
        *,
    };

    #[test]
    fn what_the_log_forgets_is_counted_from_zero() {
        let metrics = Metrics::new("acme");
        assert!(metrics.render().contains("acb_messages_forgotten_total{tenant_id=\"acme\"} 0"), "{}", metrics.render());
        metrics.forgotten();
        metrics.sweep_lag(Duration::from_millis(61_500));
        let text = metrics.render();
        assert!(text.contains("acb_messages_forgotten_total{tenant_id=\"acme\"} 1"), "{text}");
        assert!(text.contains("acb_mailbox_sweep_lag_seconds{tenant_id=\"acme\"} 61"), "{text}");
    }

    #[test]
    fn agents_that_are_gone_are_in_no_scrape() {
        let metrics = Arc::new(Metrics::new("acme"));
        for agent in ["alice", "bob"] {
            SenderMetrics::new(&metrics, agent).sent("event", 1, Duration::ZERO);
            ReceiverMetrics::new(&metrics, agent).received(1);
        }
        metrics.contexts().streamed("carol", IN, 1);
        metrics.forget_agents(|agent| agent != "bob");
        let text = metrics.render();
        assert!(!text.contains("alice") && !text.contains("carol") && text.contains("bob"), "{text}");
        // Its session may have ended after it.
        ReceiverMetrics::new(&metrics, "alice").received(1);
        metrics.forget_agents(|agent| agent == "alice");
        assert!(!metrics.render().contains("alice"));
    }

    #[test]
    fn a_session_counts_what_a_scrape_shows() {
        let metrics = Arc::new(Metrics::new("acme"));
        let (mut sender, mut receiver) = (SenderMetrics::new(&metrics, "alice"), ReceiverMetrics::new(&metrics, "bob"));
        assert!(!metrics.render().contains("alice"), "nothing was sent");
        for _ in 0..2 {
            sender.sent("command", 100, Duration::from_millis(1));
            receiver.received(50);
            DeliveryLatency::new(&metrics).took(time::Duration::MILLISECOND);
        }
        let text = metrics.render();
        for line in [
            "acb_messages_total{type=\"command\",tenant_id=\"acme\"} 2",
            "acb_messages_total{type=\"event\",tenant_id=\"acme\"} 0",
            "acb_agent_messages_sent_total{agent_id=\"alice\"} 2",
            "acb_agent_messages_received_total{agent_id=\"bob\"} 2",
            "acb_agent_bandwidth_bytes{agent_id=\"alice\",direction=\"in\"} 200",
            "acb_agent_bandwidth_bytes{agent_id=\"bob\",direction=\"out\"} 100",
            "acb_message_latency_seconds_count{operation=\"send\"} 2",
            "acb_message_latency_seconds_count{operation=\"deliver\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        // Forgotten while its session goes on: it comes back in no scrape.
        metrics.forget_agents(|agent| agent == "alice");
        sender.sent("command", 100, Duration::from_millis(1));
        assert!(!metrics.render().contains("alice"));
    }
}
