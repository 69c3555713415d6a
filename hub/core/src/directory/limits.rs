//! What an agent, or the tenant as a whole, may use, as the operator worked it out: the smallest of the tier, the Tenant and the Quotas.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Deserializer};

/// Limits. What is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Messages that are sent in a minute.
    #[serde(deserialize_with = "limit")]
    pub messages_per_minute: Option<u64>,
    /// Bytes of their payloads.
    #[serde(deserialize_with = "limit")]
    pub bytes_per_minute: Option<u64>,
    /// Messages that are sent in a calendar month.
    #[serde(deserialize_with = "limit")]
    pub messages_per_month: Option<u64>,
    /// Requests in a minute.
    #[serde(deserialize_with = "limit")]
    pub requests_per_minute: Option<u64>,
    /// Bytes of one request.
    #[serde(deserialize_with = "limit")]
    pub request_bytes: Option<u64>,
    /// Streams that are open at a time.
    #[serde(deserialize_with = "limit")]
    pub concurrent_streams: Option<u64>,
    /// Connections that calls are open on at a time.
    #[serde(deserialize_with = "limit")]
    pub connections: Option<u64>,
    /// Bytes of contexts.
    #[serde(deserialize_with = "limit")]
    pub storage_bytes: Option<u64>,
    /// Contexts.
    #[serde(deserialize_with = "limit")]
    pub contexts: Option<u64>,
    /// Agents that the tenant has; of a single agent it says nothing.
    #[serde(deserialize_with = "limit")]
    pub max_agents: Option<u64>,
}

/// What each agent may ask for in a minute of single operations, by their names.
pub type OperationLimits = HashMap<String, u64>;

/// A limit that is below zero lets nothing through, as zero does.
fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<i64>::deserialize(deserializer)?.map(|limit| u64::try_from(limit).unwrap_or(0)))
}

/// Who is limited, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// An agent, with those that it registered.
    Agent(&'a str),
    /// All agents of the tenant together.
    Tenant(&'a str),
}

impl Whose<'_> {
    /// As it is told, such as `agent worker-a`.
    #[must_use]
    pub fn subject(self) -> String {
        match self {
            Self::Agent(name) => format!("agent {name}"),
            Self::Tenant(name) => format!("tenant {name}"),
        }
    }

    /// Without the name.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Agent(_) => "the agent",
            Self::Tenant(_) => "the tenant",
        }
    }
}

/// A limit, and what was used of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitUsage {
    /// Whose it is, such as `agent worker-a`.
    pub subject: String,
    /// Its name in the resources.
    pub limit: &'static str,
    /// What it is; `None`: there is none.
    pub most: Option<u64>,
    /// What was used in this minute or month, or is used now.
    pub used: u64,
    /// How long until it is 0 again; `None`: that is for no clock to say.
    pub resets_in: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_were_projected() {
        let read = |text: &str| serde_json::from_str::<Limits>(text).unwrap();
        assert_eq!(read("{}"), Limits::default());
        let text =
            r#"{"messagesPerMinute": 9223372036854775807, "bytesPerMinute": null, "storageBytes": 5, "ofALaterVersion": true}"#;
        assert_eq!(
            read(text),
            Limits { messages_per_minute: Some(i64::MAX.unsigned_abs()), storage_bytes: Some(5), ..Limits::default() }
        );
        assert_eq!(read(r#"{"contexts": 3}"#).contexts, Some(3));
        assert_eq!(read(r#"{"maxAgents": 3}"#).max_agents, Some(3));
        assert_eq!(read(r#"{"messagesPerMonth": 10000}"#).messages_per_month, Some(10_000));
        assert_eq!(read(r#"{"messagesPerMinute": -1}"#).messages_per_minute, Some(0));
        assert!(serde_json::from_str::<Limits>(r#"{"messagesPerMinute": "many"}"#).is_err());
    }
}
