//! A plan as people read it: one line a step, `+` for what is made or set, `-` for what is removed.

use std::fmt;

use acb_crds::Retention;
use serde_json::Value;

use crate::plan::{
    ApiKeyRef, KafkaQuota, KafkaStep, KubernetesStep, Plan, PostgresStep, SecretContent, ServiceAccountRow, Step, TopicSpec,
};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("nothing to do\n");
        }
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kafka(step) => step.fmt(f),
            Self::Postgres(step) => step.fmt(f),
            Self::Kubernetes(step) => step.fmt(f),
        }
    }
}

impl fmt::Display for TopicSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.partitions == 1 { "" } else { "s" };
        let retention = Retention::from_seconds(self.retention_seconds);
        write!(f, "topic {} ({} partition{plural}, {retention}", self.name, self.partitions)?;
        f.write_str(if self.cleanup == "compact" { ", compacted)" } else { ")" })
    }
}

impl fmt::Display for KafkaQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most =
            |limit: Option<u64>, unit: &str| limit.map_or_else(|| "unlimited".to_owned(), |limit| format!("{limit} {unit}"));
        let (producer, consumer) = (most(self.producer_bytes_per_second, "B/s"), most(self.consumer_bytes_per_second, "B/s"));
        write!(f, "appends {producer}, reads {consumer}, request time {}", most(self.request_percent, "%"))
    }
}

impl fmt::Display for KafkaStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnsureTopic { topic } => write!(f, "+ kafka {topic}"),
            Self::EnsureUser { username, secret } => write!(f, "+ kafka user {username} (password in {secret})"),
            Self::EnsureAcls { username, prefix } => {
                write!(f, "+ kafka acls of {username} (read, write and describe topics, describe groups {prefix}*)")
            }
            Self::EnsureQuota { username, quota } => write!(f, "+ kafka quota of {username} ({quota})"),
            Self::RemoveUser { username } => write!(f, "- kafka user {username}, its acls and its quota"),
            Self::RemoveTopic { name } => write!(f, "- kafka topic {name} and what is in it"),
        }
    }
}

/// Limits, schemas and the like, by name; not a word for what is unset.
fn limits(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let mut fields: Vec<String> = fields.map(|(name, value)| format!("{name} {value}")).collect();
    fields.sort();
    if fields.is_empty() { "none".to_owned() } else { fields.join(", ") }
}

impl fmt::Display for PostgresStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EnsureLogin { tenant_id, secret, connection_limit } => {
                write!(f, "+ postgres login acb_t_{tenant_id} (password in {secret}, {connection_limit} connections)")
            }
            Self::ProjectTenant { tenant_id, tenant } => {
                let types: Vec<&str> = tenant.context_types.iter().map(|row| row.name.as_str()).collect();
                let types = if types.is_empty() { "none".to_owned() } else { types.join(", ") };
                let suspended = if tenant.suspended { ", suspended" } else { "" };
                let (name, tier, registration) = (&tenant.name, &tenant.tier, &tenant.registration);
                write!(f, "+ postgres tenant {name} {tenant_id} ({tier}, {registration}{suspended}; types: {types}; limits: ")?;
                write!(f, "{}", limits(&tenant.limits))?;
                for (operation, most) in &tenant.operation_limits {
                    write!(f, ", {operation} {most} a minute")?;
                }
                let cluster = tenant.issuer.iter().flat_map(|row| std::iter::once(&row.issuer).chain(&row.previous));
                let issuers: Vec<&str> =
                    cluster.chain(tenant.oidc_issuers.iter().map(|row| &row.issuer)).map(String::as_str).collect();
                if issuers.is_empty() { f.write_str(")") } else { write!(f, "; tokens of {})", issuers.join(", ")) }
            }
            Self::ProjectAgent { agent, api_key, .. } => {
                let groups =
                    if agent.groups.is_empty() { String::new() } else { format!("; groups: {}", agent.groups.join(", ")) };
                let suspended = if agent.suspended { ", suspended" } else { "" };
                write!(
                    f,
                    "+ postgres agent {} ({}{suspended}{groups}; limits: {}",
                    agent.name,
                    agent.role,
                    limits(&agent.limits)
                )?;
                if let Some(ServiceAccountRow { namespace, name, .. }) = &agent.service_account {
                    write!(f, "; ServiceAccount {namespace}/{name}")?;
                }
                match api_key {
                    Some(ApiKeyRef { secret, before: Some(before), .. }) => {
                        write!(f, "; key in {secret}, the one before for {} s)", before.overlap_seconds)
                    }
                    Some(ApiKeyRef { secret, .. }) => write!(f, "; key in {secret})"),
                    None => f.write_str("; no key)"),
                }
            }
            Self::RestrainAgent { agent, .. } => {
                let suspended = if agent.suspended { ", suspended" } else { "" };
                let (name, role, limits) = (&agent.name, &agent.role, limits(&agent.limits));
                write!(f, "- postgres agent {name} held to less ({role}{suspended}; limits: {limits}); its keys stay")
            }
            Self::RemoveAgent { agent_id, .. } => write!(f, "- postgres agent {agent_id} with its keys and memberships"),
            Self::EnsureTopic { topic, .. } => write!(f, "+ postgres {topic}"),
            Self::RetireTopic { topic, retention_seconds, .. } => {
                let retention = Retention::from_seconds(*retention_seconds);
                write!(f, "+ postgres mark of topic {topic}: nobody asks for it, and it goes after {retention}")
            }
            Self::ReviveTopic { topic, .. } => write!(f, "- postgres mark of topic {topic}: it is asked for again, or gone"),
            Self::RemoveTopic { topic, .. } => write!(f, "- postgres topic {topic} and what is in it"),
            Self::DisableLogin { tenant_id } => write!(f, "- postgres login acb_t_{tenant_id} barred; its data stays"),
            Self::RemoveTenant { tenant_id } => write!(f, "- postgres every row of tenant {tenant_id}, and its login"),
        }
    }
}

impl fmt::Display for SecretContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CertificateAuthority { common_name } => write!(f, "certificate authority {common_name:?}"),
            Self::TlsLeaf { authority, names } => write!(f, "certificate by {authority} for {}", names.join(", ")),
            Self::HubKeys => f.write_str("the hub's keys"),
            Self::RotatedHubKeys { previous } => {
                write!(f, "the hub's keys: a new one to sign with, that of {previous} still checked for a while")
            }
            Self::Login { username, authorities: None } => write!(f, "login of {username}"),
            Self::Login { username, authorities: Some(_) } => write!(f, "login of {username}, with the server's authorities"),
            Self::ApiKey { .. } => f.write_str("API key"),
        }
    }
}

impl fmt::Display for KubernetesStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place =
            |namespace: &str, name: &str| if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
        match self {
            Self::Apply { object } => {
                let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                write!(f, "+ {} {}", text("/kind"), place(text("/metadata/namespace"), text("/metadata/name")))?;
                let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_u64);
                match (number("/spec/replicas"), number("/spec/minReplicas"), number("/spec/maxReplicas")) {
                    (Some(replicas), ..) => write!(f, " ({replicas} replicas)"),
                    (None, Some(min), Some(max)) => write!(f, " ({min} to {max} replicas)"),
                    _ => Ok(()),
                }
            }
            Self::EnsureSecret { secret, content, .. } => write!(f, "+ Secret {secret} ({content})"),
            Self::PublishCertificate { namespace, name, authority } => {
                write!(f, "+ ConfigMap {} (certificate of {authority})", place(namespace, name))
            }
            Self::Delete { kind, namespace, name, .. } => write!(f, "- {kind} {}", place(namespace, name)),
        }
    }
}
