//! What an agent, or the tenant as a whole, may use, as the operator worked it out: the smallest of the tier, the Tenant and the Quotas.

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
    /// Agents that the tenant has; of a single agent it says nothing.
    #[serde(deserialize_with = "limit")]
    pub max_agents: Option<u64>,
}

/// A limit that is below zero lets nothing through, as zero does.
fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<i64>::deserialize(deserializer)?.map(|limit| u64::try_from(limit).unwrap_or(0)))
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
        assert_eq!(read(text), Limits { messages_per_minute: Some(i64::MAX.unsigned_abs()), ..Limits::default() });
        assert_eq!(read(r#"{"maxAgents": 3}"#).max_agents, Some(3));
        assert_eq!(read(r#"{"messagesPerMonth": 10000}"#).messages_per_month, Some(10_000));
        assert_eq!(read(r#"{"messagesPerMinute": -1}"#).messages_per_minute, Some(0));
        assert!(serde_json::from_str::<Limits>(r#"{"messagesPerMinute": "many"}"#).is_err());
    }
}
