//! Quota: namespaced, written by the tenant within the ceilings of its tier.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{common::Condition, limits::QuotaLimits, selector::LabelSelectorRequirement};

/// Limits for some agents of a tenant, or for all of it. The smallest limit that applies is the one that holds.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "acb.dev",
    version = "v1alpha1",
    kind = "Quota",
    plural = "quotas",
    // `kubectl get quota` is to mean Kubernetes' own ResourceQuota, whose short name that is.
    singular = "acbquota",
    shortname = "qta",
    category = "acb",
    namespaced,
    status = "QuotaStatus",
    derive = "PartialEq",
    doc = "Limits for some agents of a tenant, or for all of it. The smallest limit that applies is the one that holds.",
    validation = Rule::new("self.metadata.name.size() <= 63").message("a quota's name has at most 63 characters"),
    printcolumn(name = "Agents", type_ = "integer", json_path = ".status.agentCount"),
    printcolumn(name = "Msgs/min", type_ = "integer", json_path = ".status.effective.messagesPerMinute"),
    printcolumn(name = "Storage", type_ = "integer", json_path = ".status.effective.storageBytes"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Synced", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.limits.maxAgents) || has(self.limits.messagesPerMinute) || has(self.limits.bytesPerMinute) || has(self.limits.messagesPerMonth) || has(self.limits.requestsPerMinute) || has(self.limits.requestBytes) || has(self.limits.concurrentStreams) || has(self.limits.connections) || has(self.limits.storageBytes) || has(self.limits.contexts)")
        .message("a quota sets at least one limit")
)]
pub struct QuotaSpec {
    /// Which agents: those that meet all that is set here, each with these limits. Empty: the tenant as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// What is limited, within the ceilings of the tenant's tier. One that is unset is not limited here.
    pub limits: QuotaLimits,
}

/// Which agents. Everything that is set must be met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that the Agent resource must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub match_labels: BTreeMap<String, String>,
    /// What the labels of the Agent resource must meet, as in a LabelSelector.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub match_expressions: Vec<LabelSelectorRequirement>,
    /// The Agent has one of these names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 63)))]
    pub names: Vec<String>,
    /// The Agent is in one of these groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 63)))]
    pub groups: Vec<String>,
    /// The Agent is of one of these types.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 200)))]
    pub types: Vec<String>,
}

impl Selector {
    /// Whether nothing is set, which means the tenant as a whole.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl QuotaSpec {
    /// The selector, unless it means the tenant as a whole.
    #[must_use]
    pub fn agents(&self) -> Option<&Selector> {
        self.selector.as_ref().filter(|selector| !selector.is_empty())
    }
}

/// What the operator found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (it can be used), `Synced` (every system has what the spec says), `Reconciling`, `Stalled`, `Suspended`, and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// How many agents it applies to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_count: Option<i64>,
    /// What holds for them: the smallest of this, the Tenant's, the tier's and other Quotas' of the same agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<QuotaLimits>,
    /// How much of it is used, in steps of a twentieth: messages in this calendar month, contexts and their bytes, agents. With a selector, by the one that uses the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<QuotaLimits>,
    /// Fields of the spec that are set, and that nothing acts on yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields_not_acted_on: Vec<String>,
}
