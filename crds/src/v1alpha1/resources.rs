//! Resources of a container, as Kubernetes has them.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::quantity::Quantity;

/// What a container asks for, and what it may use at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.requests) || self.requests.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])")
        .message("a hub requests cpu, memory and ephemeral-storage, and nothing else"),
    validation = Rule::new("!has(self.limits) || self.limits.all(name, name in ['cpu', 'memory', 'ephemeral-storage'])")
        .message("a hub has limits of cpu, memory and ephemeral-storage, and nothing else")
)]
pub struct ResourceRequirements {
    /// What the scheduler reserves for each replica: `cpu`, `memory` and `ephemeral-storage`. Where a limit alone is set, that much.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Quantity>,
    /// What each replica may use at most, of `cpu`, `memory` and `ephemeral-storage`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Quantity>,
}
