//! Context types of a Tenant.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::Retention;

/// A kind of context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContextType {
    /// Name of the type, as agents publish and subscribe to it. It is a part of the topic's name.
    #[schemars(length(max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(
        validation = Rule::new("!(self in ['sys', 'system', 'default']) && !self.startsWith('kube')")
            .message("sys, system, default and names that start with kube are reserved: choose another name")
    )]
    pub name: String,
    /// Partitions of the topic, 4 where unset. They may grow, never shrink: the order of each context then starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self >= oldSelf").message("partitions can only grow: make a new context type for fewer"))]
    pub partitions: Option<u32>,
    /// How long the log keeps changes: `7d` where unset, `9999d` at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// How the topic is kept within bounds. `Delete` (the default) drops what is older than the retention; `Compact` keeps the last change of each context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Cleanup>,
    /// Bytes of a published context with its envelope: 1048576 where unset, which is also the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1024, max = 1_048_576))]
    pub max_message_bytes: Option<u32>,
    /// The JSON Schema that payloads of this type must meet. Others are refused when they are shared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_schema: Option<PayloadSchema>,
}

/// How a topic is kept within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cleanup {
    /// By age.
    Delete,
    /// The last record of each key.
    Compact,
}

impl Cleanup {
    /// As Kafka's `cleanup.policy` has it, and the database.
    #[must_use]
    pub fn stored(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
        }
    }
}

/// A JSON Schema, with its id and version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PayloadSchema {
    /// Id of the schema. Each context that was checked with it carries it.
    #[schemars(length(min = 1, max = 200))]
    pub id: String,
    /// Version of the schema. Each context that was checked with it carries it.
    #[schemars(length(min = 1, max = 50))]
    pub version: String,
    /// The JSON Schema itself (draft 2020-12).
    #[schemars(schema_with = "super::common::free_object")]
    pub json_schema: serde_json::Value,
}
