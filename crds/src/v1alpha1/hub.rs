//! The hub of a Tenant: how many replicas it has, what they are, and who reaches it.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{affinity::Affinity, common::Toleration, network::NetworkPolicyPeer, resources::ResourceRequirements};

/// The tenant's hub.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.replicas) || !has(self.autoscaling)")
        .message("set either replicas, or autoscaling for a HorizontalPodAutoscaler"),
    validation = Rule::new("has(self.gatewayRef) == (has(self.hostnames) && self.hostnames.size() > 0)")
        .message("set gatewayRef and hostnames together: by which names the hub is reached through which Gateway")
)]
pub struct Hub {
    /// Replicas of the hub, 1 where unset. Not together with `autoscaling`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub replicas: Option<u32>,
    /// A HorizontalPodAutoscaler that decides how many replicas there are. Not together with `replicas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// Image of the hub, instead of the platform's: another version for this tenant alone. It is of the same repository, or of one that the platform allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 500),
        regex(pattern = r"^[a-z0-9]([-a-z0-9._:/]*[a-z0-9])?(:[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?(@sha256:[0-9a-f]{64})?$")
    )]
    pub image: Option<String>,
    /// Secrets in the hub's namespace with the logins of registries, for its image. They are the platform's to put there; those that it names for all hubs count, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// What the pods of the hub carry beside what they need: labels, annotations, a priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// Resources of each replica. Where nothing is given: requests of `100m` and `64Mi`, and a limit of `1Gi` of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels that a node must have to run a replica of the hub, as in a PodSpec.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that replicas of the hub tolerate, as in a PodSpec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub tolerations: Vec<Toleration>,
    /// Where replicas of the hub are scheduled, as in a PodSpec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// The Service in front of the hub's replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<HubService>,
    /// The Gateway whose TLSRoute hands TLS through to the hub. Set together with `hostnames`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_ref: Option<GatewayRef>,
    /// Names by which agents connect to the hub through the Gateway. They are in the TLSRoute, and in the hub's certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hostnames: Vec<String>,
    /// Who may connect to the hub beside the pods in the tenant's namespace, as in a NetworkPolicy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub ingress_peers: Vec<NetworkPolicyPeer>,
}

/// How the hub is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HubService {
    /// Type of the Service: `ClusterIP` where unset, `NodePort` or `LoadBalancer` to be reached from outside of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<ServiceType>,
}

/// As in a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// Within the cluster.
    ClusterIP,
    /// A port of every node.
    NodePort,
    /// By the cloud's load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// As in a Service.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// An object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    /// Name of the object that is meant.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// What the pods of a hub carry beside what they need.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.labels) || self.labels.all(key, !key.startsWith('acb.dev/') && !key.startsWith('app.kubernetes.io/') && key != 'pod-template-hash')")
        .message("labels of acb.dev and of app.kubernetes.io are those by which the hub's pods are found: choose others"),
    validation = Rule::new("!has(self.annotations) || self.annotations.all(key, !key.startsWith('acb.dev/'))")
        .message("annotations of acb.dev are the operator's: choose others")
)]
pub struct PodTemplate {
    /// Labels of the hub's pods, beside those of ACB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the hub's pods, beside those of ACB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 50))]
    pub annotations: BTreeMap<String, String>,
    /// Name of the PriorityClass of the hub's pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub priority_class_name: Option<String>,
}

/// How far the hub is scaled, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minReplicas) || self.minReplicas <= self.maxReplicas").message("minReplicas is more than maxReplicas"))]
pub struct Autoscaling {
    /// The fewest replicas of the hub, 1 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub min_replicas: Option<u32>,
    /// The most replicas of the hub, within what the tier allows.
    #[schemars(range(min = 1, max = 50))]
    pub max_replicas: u32,
    /// The use of the requested CPU, in percent over all replicas, that the autoscaler aims at: 70 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "targetCPUUtilizationPercentage")]
    #[schemars(range(min = 1, max = 100))]
    pub target_cpu_utilization_percentage: Option<u32>,
}

/// A listener of a Gateway, as in the `parentRefs` of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Namespace of the Gateway, whose pods reach the hub.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// Name of the Gateway's listener that the route is attached to. Unset: every listener that takes the hostnames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"))]
    pub section_name: Option<String>,
    /// Port of the Gateway's listener, for `status.endpoints`: 443 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}
