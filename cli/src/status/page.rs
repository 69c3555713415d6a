//! What is known of a tenant, on one page.

use serde::Serialize;
use serde_json::Value;

use super::lag::Lags;
use crate::{
    get::since,
    output::{self, Failure},
    standalone::{condition, endpoints, ready_condition, text},
};

/// What is known of a tenant.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TenantStatus {
    /// The resource.
    pub(super) tenant: Value,
    pub(super) hub: Hub,
    pub(super) agents: Vec<Value>,
    pub(super) credentials: Vec<Credential>,
    pub(super) events: Vec<Event>,
    /// What the caller may not see, and why.
    pub(super) unseen: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hub {
    pub(super) replicas: u64,
    pub(super) ready: u64,
    pub(super) image: String,
    pub(super) pods: Vec<Pod>,
    /// Records of each topic that a replica has not read yet, of the one that is furthest behind.
    pub(super) lag: Lags,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) phase: String,
    pub(super) ready: bool,
    pub(super) restarts: u64,
    /// What it waits for, or why it ended last.
    pub(super) message: String,
    /// RFC 3339; empty where it is not known.
    pub(super) created_at: String,
}

/// A Secret that a hub or an agent uses, or used. Never what is in it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Credential {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) created_at: String,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) at: String,
    pub(super) kind: String,
    pub(super) reason: String,
    pub(super) object: String,
    pub(super) message: String,
}

impl TenantStatus {
    /// For people.
    pub(super) fn show(&self) -> Result<(), Failure> {
        let at = |pointer: &str| match text(&self.tenant, pointer) {
            "" => "-".to_owned(),
            text => text.to_owned(),
        };
        let endpoints = endpoints(&self.tenant);
        let facts = [
            ("tenant", at("/metadata/name")),
            ("id", at("/status/tenantId")),
            ("tier", at("/spec/tier")),
            ("age", since(&at("/metadata/creationTimestamp"))),
            ("namespaces", format!("{} (agents), {} (hub)", at("/status/namespace"), at("/status/hubNamespace"))),
            ("endpoints", if endpoints.is_empty() { "-".to_owned() } else { endpoints.join(", ") }),
            ("hub", format!("{} of {} replicas are ready", self.hub.ready, self.hub.replicas)),
            ("image", if self.hub.image.is_empty() { "-".to_owned() } else { self.hub.image.clone() }),
        ];
        let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in facts {
            output::line(format_args!("{name:<width$}  {}", output::printable(&value)))?;
        }
        heading("Conditions")?;
        output::table(&["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], self.conditions())?;
        heading("Hub")?;
        let pods = self.hub.pods.iter().map(|pod| {
            let ready = if pod.ready { "yes" } else { "no" }.to_owned();
            let (restarts, age) = (pod.restarts.to_string(), since(&pod.created_at));
            vec![pod.name.clone(), pod.phase.clone(), ready, restarts, age, pod.message.clone()]
        });
        output::table(&["POD", "PHASE", "READY", "RESTARTS", "AGE", "MESSAGE"], pods.collect())?;
        if !self.hub.lag.is_empty() {
            heading("Topics that the hub reads")?;
            let lags = self.hub.lag.iter().map(|(topic, lag)| vec![topic.clone(), lag.to_string()]);
            output::table(&["TOPIC", "LAG"], lags.collect())?;
        }
        heading("Context types")?;
        output::table(&["NAME", "TOPIC", "PARTITIONS", "FROM", "UNWANTED FOR"], self.context_types())?;
        heading("Agents")?;
        output::table(&["NAME", "ROLE", "READY", "REASON", "MESSAGE"], self.agents.iter().map(agent).collect())?;
        heading("Credentials")?;
        let credentials = self
            .credentials
            .iter()
            .map(|credential| vec![credential.namespace.clone(), credential.name.clone(), since(&credential.created_at)]);
        output::table(&["NAMESPACE", "SECRET", "AGE"], credentials.collect())?;
        if !self.events.is_empty() {
            heading("Last events")?;
            let events = self.events.iter().map(|event| {
                let Event { at, kind, reason, object, message } = event;
                vec![since(at), kind.clone(), reason.clone(), object.clone(), message.clone()]
            });
            output::table(&["AGO", "TYPE", "REASON", "OBJECT", "MESSAGE"], events.collect())?;
        }
        if !self.unseen.is_empty() {
            heading("Not seen")?;
            self.unseen.iter().try_for_each(|what| output::line(output::printable(what)))?;
        }
        heading("Waits for")?;
        output::line(output::printable(&self.waits_for()))
    }

    fn context_types(&self) -> Vec<Vec<String>> {
        let types = self.tenant.pointer("/status/contextTypes").and_then(Value::as_array);
        let row = |found: &Value| {
            let field = |name: &str| text(found, name).to_owned();
            let partitions = found.pointer("/partitions").map(ToString::to_string).unwrap_or_default();
            let unwanted = found.get("unwantedSince").and_then(Value::as_str).map_or_else(|| "-".to_owned(), since);
            vec![field("/name"), field("/topic"), partitions, field("/origin"), unwanted]
        };
        types.into_iter().flatten().map(row).collect()
    }

    fn conditions(&self) -> Vec<Vec<String>> {
        let conditions = self.tenant.pointer("/status/conditions").and_then(Value::as_array);
        let row = |condition: &Value| {
            let field = |name: &str| text(condition, name).to_owned();
            vec![
                field("/type"),
                field("/status"),
                field("/reason"),
                since(text(condition, "/lastTransitionTime")),
                field("/message"),
            ]
        };
        conditions.into_iter().flatten().map(row).collect()
    }

    /// What has to happen before the tenant is as it should be.
    fn waits_for(&self) -> String {
        let not_ready = |object: &&Value| ready_condition(object).is_none_or(|ready| text(ready, "/status") != "True");
        let mut waits: Vec<String> = Vec::new();
        if not_ready(&&self.tenant) {
            let ready = ready_condition(&self.tenant).cloned().unwrap_or_default();
            let message = if ready.is_null() { "the operator, which has not looked at it yet" } else { text(&ready, "/message") };
            waits.push(format!("Tenant {}: {message}", text(&self.tenant, "/metadata/name")));
        }
        let synced = condition(&self.tenant, "Synced").filter(|synced| text(synced, "/status") != "True");
        if let (true, Some(synced)) = (waits.is_empty(), synced) {
            waits.push(format!("what is new in Tenant {}: {}", text(&self.tenant, "/metadata/name"), text(synced, "/message")));
        }
        if self.hub.ready < self.hub.replicas {
            waits.push(format!("{} replicas of the hub", self.hub.replicas - self.hub.ready));
        }
        let agents = self.agents.iter().filter(not_ready).count();
        if agents > 0 {
            waits.push(format!("{agents} agents that are not ready"));
        }
        if waits.is_empty() { "nothing".to_owned() } else { waits.join("\n") }
    }
}

fn heading(title: &str) -> Result<(), Failure> {
    output::line(format_args!("\n{title}"))
}

fn agent(agent: &Value) -> Vec<String> {
    let ready = ready_condition(agent).cloned().unwrap_or_default();
    let field = |name: &str| text(&ready, name).to_owned();
    let (name, role) = (text(agent, "/metadata/name").to_owned(), text(agent, "/spec/role").to_owned());
    vec![name, role, field("/status"), field("/reason"), field("/message")]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, ready: &str) -> Value {
        json!({"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": ready, "message": "no room"}]}})
    }

    #[test]
    fn what_it_waits_for_is_said() {
        let mut status = TenantStatus { tenant: object("acme", "True"), ..TenantStatus::default() };
        assert_eq!(status.waits_for(), "nothing");
        let away = json!({"type": "Synced", "status": "False", "message": "Kafka is away"});
        status.tenant["status"]["conditions"].as_array_mut().into_iter().for_each(|all| all.push(away.clone()));
        assert_eq!(status.waits_for(), "what is new in Tenant acme: Kafka is away");
        status.hub = Hub { replicas: 3, ready: 1, ..Hub::default() };
        status.agents = vec![object("a", "True"), object("b", "False"), json!({"metadata": {"name": "c"}})];
        status.tenant = object("acme", "False");
        assert_eq!(status.waits_for(), "Tenant acme: no room\n2 replicas of the hub\n2 agents that are not ready");
    }
}
