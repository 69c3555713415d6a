//! Tenant: cluster-scoped, written by the platform team.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    affinity::Affinity,
    common::{Condition, CredentialStatus, Retention, Toleration},
    limits::{AgentLimits, TenantLimits},
    network::NetworkPolicyPeer,
    resources::ResourceRequirements,
};

/// An organisation or a team whose agents talk to each other and to no one else. The operator gives it topics, a database login,
/// two namespaces and a hub of its own.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "acb.dev",
    version = "v1alpha1",
    kind = "Tenant",
    plural = "tenants",
    shortname = "tn",
    category = "acb",
    status = "TenantStatus",
    derive = "PartialEq",
    doc = "An organisation or a team whose agents talk to each other and to no one else.",
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("a tenant's name has at most 40 characters, so that its topics, roles and namespaces fit"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("a tenant's name starts with a letter and has only small letters, digits and inner hyphens"),
    validation = Rule::new("!(self.metadata.name in ['sys', 'system', 'default']) && !self.metadata.name.startsWith('kube')")
        .message("sys, system, default and names that start with kube are reserved: choose another name"),
    selectable = ".spec.tier",
    selectable = ".spec.suspend",
    printcolumn(name = "Tier", type_ = "string", json_path = ".spec.tier"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Synced", type_ = "string", json_path = ".status.conditions[?(@.type==\"Synced\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Agents", type_ = "integer", json_path = ".status.agentCount"),
    printcolumn(name = "Hub", type_ = "integer", json_path = ".status.hub.readyReplicas"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Suspended", type_ = "boolean", json_path = ".spec.suspend", priority = 1),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.hub.version", priority = 1),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoints[0].address", priority = 1),
    printcolumn(name = "Last Sync", type_ = "date", json_path = ".status.lastSyncTime", priority = 1),
    printcolumn(name = "Id", type_ = "string", json_path = ".status.tenantId", priority = 1),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".status.namespace", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.agentNamespace) == has(oldSelf.agentNamespace) && (!has(self.agentNamespace) || self.agentNamespace == oldSelf.agentNamespace)")
        .message("agentNamespace is immutable: delete the Tenant and make it again to move its agents")
)]
pub struct TenantSpec {
    /// What the tenant may use. Its limits are the ceiling of everything else here.
    pub tier: Tier,
    /// Limits of the whole tenant that differ from the tier's, within what the platform allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<TenantLimits>,
    /// Limits of each agent that differ from the default, within what the platform allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_limits: Option<AgentLimits>,
    /// The kinds of context that agents publish and read. Each has a topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub context_types: Vec<ContextType>,
    /// The hub that the tenant's agents connect to: how many replicas it has, with what resources, and who reaches it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<Hub>,
    /// An existing namespace for the Agents, instead of `acb-<name>`. It must carry the label `acb.dev/tenant` with this Tenant's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(
        validation = Rule::new("!self.startsWith('kube-') && !self.startsWith('acbhub-') && !(self in ['default', 'acb-system'])")
            .message("this namespace belongs to Kubernetes or to ACB: name one of the tenant's own")
    )]
    pub agent_namespace: Option<String>,
    /// Who may be an agent: `Declared` (the default): only who has an Agent resource; `Open`: an agent may register others of its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// Kubernetes subjects that are bound to the tenant-admin role in the tenant's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub admins: Vec<Subject>,
    /// What happens to the tenant's rows and topics when this Tenant is deleted. `Retain` (the default) keeps them under the tenant's name; `Delete` removes them, and both namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// Refuses all of the tenant's agents, and keeps everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// The record of who did what. Not acted on yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Who else than ACB vouches for agents. Not acted on yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
}

/// What a tenant may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Tier {
    /// 3 agents, 10,000 messages a month, 1 GB.
    Free,
    /// 10 agents, 500,000 messages a month, 10 GB.
    Starter,
    /// 50 agents, 5,000,000 messages a month, 100 GB.
    Professional,
    /// By agreement.
    Enterprise,
}

impl Tier {
    /// As in the resource.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Free => "Free",
            Self::Starter => "Starter",
            Self::Professional => "Professional",
            Self::Enterprise => "Enterprise",
        }
    }
}

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
}

/// Who may be an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Registration {
    /// Only who has an Agent resource.
    Declared,
    /// An authenticated agent may register others of its role.
    Open,
}

impl Registration {
    /// As in the resource.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Declared => "Declared",
            Self::Open => "Open",
        }
    }
}

/// As in a RoleBinding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.kind == 'ServiceAccount') == has(self.__namespace__)").message("namespace goes with kind ServiceAccount")
)]
pub struct Subject {
    /// What becomes a tenant admin: a `User`, a `Group` or a `ServiceAccount`.
    pub kind: SubjectKind,
    /// Name of the user, group or ServiceAccount that becomes a tenant admin.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the ServiceAccount. For users and groups there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
}

/// As in a RoleBinding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubjectKind {
    /// A person.
    User,
    /// People.
    Group,
    /// A program.
    ServiceAccount,
}

impl SubjectKind {
    /// As in a RoleBinding.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::ServiceAccount => "ServiceAccount",
        }
    }
}

/// What becomes of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It stays.
    Retain,
    /// It goes.
    Delete,
}

/// The record of who did what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// Days that audit records are kept, 90 where unset. Not acted on yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 90, max = 3650))]
    pub retention_days: Option<u32>,
}

/// Who else than ACB vouches for agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// OpenID Connect issuers whose tokens are exchanged for ACB's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub oidc: Vec<OidcIssuer>,
    /// Agents that prove who they are by a client certificate. Not acted on yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
}

/// An OpenID Connect issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OidcIssuer {
    /// The `iss` of its tokens: the HTTPS URL below which its discovery document is.
    #[schemars(length(max = 500), regex(pattern = "^https://"))]
    pub issuer: String,
    /// What the `aud` of its tokens must hold.
    #[schemars(length(min = 1, max = 200))]
    pub audience: String,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mtls {
    /// ConfigMap in the tenant's namespace with the `ca.crt` of who signs them.
    #[schemars(length(min = 1, max = 253))]
    pub ca_config_map: String,
}

/// What the operator found and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantStatus {
    /// The generation of the spec that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (it can be used), `Synced` (every system has what the spec says), `Reconciling`, `Stalled`, `Degraded`, `Suspended`, and others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// When every system was last seen to have what the spec says, in RFC 3339. Written when something else changes, or when that is no longer so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_sync_time: Option<String>,
    /// 20 hex digits: what the tenant is called in PostgreSQL and Kafka.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Namespace that its Agents and Quotas belong into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Namespace that its hub runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_namespace: Option<String>,
    /// How many Agents the tenant has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_count: Option<i64>,
    /// Spec, defaults of the tier and Quotas combined: the values in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<TenantEffective>,
    /// The systems that hold the tenant's data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// How agents reach the hub: each way to it, for gRPC over TLS 1.3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// ConfigMap in the tenant's namespace with the `ca.crt` that the hub's certificate is checked against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_config_map: Option<String>,
    /// The hub as it runs: how many of its replicas take traffic, and what they run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubStatus>,
    /// The context types that there are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub context_types: Vec<ContextTypeStatus>,
    /// What its hub logs in and signs with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<CredentialStatus>,
    /// Fields of the spec that are set, and that nothing acts on yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields_not_acted_on: Vec<String>,
}

/// What holds, where the spec is silent too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TenantEffective {
    /// Limits of the tenant as a whole.
    pub limits: TenantLimits,
    /// Limits of each agent, before Quotas make them smaller.
    pub agent_limits: AgentLimits,
    /// Replicas of the hub.
    pub hub_replicas: u32,
    /// Who may be an agent: `Declared` or `Open`.
    pub registration: String,
    /// What happens to the tenant's data when it is deleted: `Retain` or `Delete`.
    pub deletion_policy: String,
}

/// Which systems hold a tenant's data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Where messages and changes are logged: `postgres` or `kafka`.
    pub bus: String,
    /// Name of the Kafka cluster, of those that the operator has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<String>,
    /// Name of the PostgreSQL server, of those that the operator has.
    pub postgres: String,
}

/// A way to a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// What leads to the hub: its Service from within the cluster (`ClusterIP`), a port of every node (`NodePort`), a load balancer, a Gateway, or a process of this machine (`Local`).
    pub r#type: EndpointType,
    /// `host:port` that agents connect to. The host is `*` where it is any node's address.
    pub address: String,
}

/// What leads to a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndpointType {
    /// Its Service, from within the cluster.
    ClusterIP,
    /// A port of every node.
    NodePort,
    /// A load balancer.
    LoadBalancer,
    /// A Gateway.
    Gateway,
    /// A process of this machine.
    Local,
}

/// A hub as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HubStatus {
    /// Replicas that there should be.
    pub replicas: u32,
    /// Replicas that take traffic, of whichever revision.
    pub ready_replicas: u32,
    /// Image that a replica of the newest revision runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Version of the hub, where the image's tag says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A context type that there is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContextTypeStatus {
    /// Name of the type, as agents publish and subscribe to it.
    pub name: String,
    /// What asks for it: the `Tenant`, an `Agent` that publishes it, or `Nobody` any more. What nobody asks for counts until its topic is removed.
    pub origin: String,
    /// Topic that changes of its contexts are in.
    pub topic: String,
    /// Partitions of the topic.
    pub partitions: u32,
    /// Since when nobody asks for it, in RFC 3339. The topic is removed once its retention has passed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwanted_since: Option<String>,
}
