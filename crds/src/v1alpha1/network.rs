//! Who may connect, as a NetworkPolicy has it.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::LabelSelector;

/// Pods by their namespaces and labels, or addresses: an entry of `from` of a NetworkPolicy. A `podSelector` alone would mean the pods
/// beside the hub, where no agent is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.ipBlock) != has(self.namespaceSelector) && (!has(self.podSelector) || has(self.namespaceSelector))")
        .message("set either namespaceSelector, perhaps with podSelector, or ipBlock")
)]
pub struct NetworkPolicyPeer {
    /// Namespaces whose pods may connect. Empty: all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Of those namespaces, the pods that may connect. Unset: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
    /// Addresses that may connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_block: Option<IpBlock>,
}

/// A block of addresses, and parts of it that are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpBlock {
    /// The block of addresses, such as `10.1.0.0/16` or `fd00::/8`.
    #[schemars(length(max = 50), regex(pattern = "^[0-9a-fA-F.:]+/[0-9]{1,3}$"))]
    pub cidr: String,
    /// Smaller blocks within it that may not connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50), inner(length(max = 50), regex(pattern = "^[0-9a-fA-F.:]+/[0-9]{1,3}$")))]
    pub except: Vec<String>,
}
