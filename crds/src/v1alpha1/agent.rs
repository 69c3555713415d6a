//! Agent: namespaced, written by the tenant.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, Retention},
    limits::AgentLimits,
};

/// A program that talks to others of its tenant through the tenant's hub.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "acb.dev",
    version = "v1alpha1",
    kind = "Agent",
    plural = "agents",
    shortname = "agt",
    category = "acb",
    namespaced,
    status = "AgentStatus",
    derive = "PartialEq",
    doc = "A program that talks to others of its tenant through the tenant's hub.",
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("an agent's name has at most 63 characters"),
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("an agent's name has only small letters, digits and inner hyphens"),
    selectable = ".spec.role",
    selectable = ".spec.type",
    selectable = ".spec.suspend",
    selectable = ".status.tenant",
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Synced", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "Tenant", type_ = "string", json_path = ".status.tenant", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// What kind of agent it is, for those who look for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub r#type: Option<String>,
    /// What it can do, for those who look for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 200)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub capabilities: Vec<String>,
    /// The groups that it is in: what is sent to a group reaches it, and contexts of scope `group` are its own to read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub groups: Vec<String>,
    /// Where the agent runs, for those who look for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub location: Option<String>,
    /// Anything else that others may look for, at most 16 KiB together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 100))]
    pub attributes: BTreeMap<String, String>,
    /// What the agent may do in its tenant, from everything (`Admin`) to looking on (`Observer`).
    pub role: Role,
    /// Context types that it publishes. One that the Tenant does not list gets a topic, within the tier's allowance.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$")))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new("!self.exists(t, t in ['sys', 'system', 'default'] || t.startsWith('kube'))")
            .message("sys, system, default and names that start with kube are reserved: choose another name")
    )]
    pub publishes: Vec<String>,
    /// Context types that it reads and subscribes to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100), inner(length(max = 63), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$")))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub subscribes: Vec<String>,
    /// How it proves who it is: an API key where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// Refuses the agent, and keeps its mailbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// What an agent may do within its tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Role {
    /// Everything in this tenant.
    Admin,
    /// Sends messages and publishes contexts.
    AgentProducer,
    /// Receives messages and reads contexts.
    AgentConsumer,
    /// Both.
    AgentFull,
    /// Sees agents and public contexts.
    Observer,
    /// Sees agents, what each of them used, and the audit trail; no message and no context.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Admin, Self::AgentProducer, Self::AgentConsumer, Self::AgentFull, Self::Observer, Self::Auditor];

    /// As in the resource.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::AgentProducer => "AgentProducer",
            Self::AgentConsumer => "AgentConsumer",
            Self::AgentFull => "AgentFull",
            Self::Observer => "Observer",
            Self::Auditor => "Auditor",
        }
    }

    /// As in the database, and as the hub says it to agents.
    #[must_use]
    pub fn stored(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::AgentProducer => "agent-producer",
            Self::AgentConsumer => "agent-consumer",
            Self::AgentFull => "agent-full",
            Self::Observer => "observer",
            Self::Auditor => "auditor",
        }
    }
}

/// How an agent proves who it is. Several may be set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.apiKey) || has(self.serviceAccount) || has(self.external) || has(self.clientCertificate)")
        .message("set at least one of apiKey, serviceAccount, external and clientCertificate, or leave credentials out for an API key")
)]
pub struct Credentials {
    /// A key in the Secret that `status.apiKeySecret` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<ApiKey>,
    /// A Kubernetes ServiceAccount of the same namespace, whose tokens for the audience `acb:<tenant id>` prove the agent. One proves one agent. Without
    /// `apiKey` beside it the agent has no key. There are none with `acb dev`: there the Agent is `Stalled` without `apiKey`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
    /// A subject of one of the Tenant's OIDC issuers. Not acted on yet: without `apiKey` beside it the Agent is `Stalled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalSubject>,
    /// A client certificate. Not acted on yet: without `apiKey` beside it the Agent is `Stalled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificate>,
    /// When the API key is replaced by itself. Unset: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
}

/// An API key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {}

/// A Kubernetes ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// Name of the ServiceAccount.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// A subject of an OIDC issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalSubject {
    /// The issuer of its tokens: one of the Tenant's OIDC issuers.
    #[schemars(length(max = 500), regex(pattern = "^https://"))]
    pub issuer: String,
    /// The `sub` that its tokens have.
    #[schemars(length(min = 1, max = 255))]
    pub subject: String,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificate {
    /// A subject alternative name (URI or DNS) of it.
    #[schemars(length(min = 1, max = 255))]
    pub name: String,
}

/// When keys are replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Age of the newest key at which another is made.
    pub every: Retention,
    /// How long the key before it still works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Retention>,
}

/// What the operator found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (it can be used), `Synced` (every system has what the spec says), `Reconciling`, `Stalled`, `Suspended`, and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Name of the Tenant whose agent it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Name of the Secret whose key `api-key` holds the API key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret: Option<String>,
    /// When that Secret was made, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_since: Option<String>,
    /// The audience that a token of its ServiceAccount must have, and no other beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_audience: Option<String>,
    /// What holds, after the tier, the Tenant and every Quota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<AgentEffective>,
    /// Fields of the spec that are set, and that nothing acts on yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields_not_acted_on: Vec<String>,
}

/// What holds for an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentEffective {
    /// The smallest limits that apply to the agent.
    pub limits: AgentLimits,
}
