//! Tenant: cluster-scoped, written by the platform team.
#![allow(unreachable_pub, reason = "the schema derive repeats each type in a private scope")]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Condition, CredentialStatus},
    context_type::ContextType,
    hub::Hub,
    limits::{AgentLimits, TenantLimits},
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
    /// How often each agent may call single operations of the hub.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["operation".into()]))]
    pub operation_limits: Vec<OperationLimit>,
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
    /// The record of who did what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Who else than ACB vouches for agents: issuers of OpenID Connect.
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

/// How often each agent may call one operation of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OperationLimit {
    /// The operation, such as `ListContexts`: a method of the hub's services, as `acb audit list` shows it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^([A-Z][a-z]+)+$"))]
    pub operation: String,
    /// The most calls of it in a minute.
    #[schemars(range(min = 0))]
    pub requests_per_minute: i64,
}

/// The record of who did what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// Days that audit records are kept, 90 where unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 90, max = 3650))]
    pub retention_days: Option<u32>,
}

/// Who else than ACB vouches for agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// OpenID Connect issuers whose tokens are exchanged for ACB's. The platform allows each of them; the Tenant is `Stalled` with any other one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["issuer".into()]))]
    pub oidc: Vec<OidcIssuer>,
    /// Agents that prove who they are by a client certificate. Not acted on yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtls: Option<Mtls>,
}

/// An OpenID Connect issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OidcIssuer {
    /// The `iss` of its tokens, to the letter: the HTTPS URL below which its discovery document is.
    #[schemars(length(max = 500), regex(pattern = "^https://[^/?#@\\\\]+(/[^?#\\\\]*)?$"))]
    pub issuer: String,
    /// The `aud` of its tokens is one of these, to the letter and alone.
    #[schemars(length(min = 1, max = 10), inner(length(min = 1, max = 200)))]
    pub audiences: Vec<String>,
    /// Certificates in PEM that the issuer's own is signed by. Unset: the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub certificate_authority: Option<String>,
    /// Which agent a token proves, by its claims.
    pub claim_mappings: ClaimMappings,
}

/// From the claims of a token to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimMappings {
    /// Yields the name of an Agent that there is, such as `claims.sub`. What yields another name, none or no text proves nobody.
    pub agent: ClaimMapping,
    /// Yields a role that allows no more than the agent's own, such as `has(claims.groups) && 'leads' in claims.groups ? '' : 'Observer'`. An empty text leaves the agent its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<ClaimMapping>,
}

/// An expression over the claims of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimMapping {
    /// An expression of CEL that yields a text. Its only variable is `claims`; there are no loops. It is checked when the Tenant is applied.
    #[schemars(length(min = 1, max = 2048))]
    pub expression: String,
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
    /// How much of the limits of the tenant as a whole is used, in steps of a twentieth: messages in this calendar month, contexts and their bytes, agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TenantLimits>,
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
    /// What came of the last attacks on the walls between this tenant and others: the condition `IsolationVerified` follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationStatus>,
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

/// What came of attacks on the walls between tenants, made with one tenant's own credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IsolationStatus {
    /// When they ended, or could not be made, in RFC 3339.
    pub checked_at: String,
    /// How many attacks were made, against all neighbours together.
    pub attacks: u32,
    /// How many of the attacks were refused.
    pub refused: u32,
    /// How many of the attacks had nothing to be tried on: they got nothing, and show nothing of a wall.
    #[serde(default, skip_serializing_if = "is_none_of_them")]
    pub nothing: u32,
    /// Neighbours that were attacked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<String>,
    /// Those of them whose hub could not be connected to, as network policies have it: its door was not tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<String>,
    /// Attacks that got what they wanted, each with whom it was against and what it got. At most ten are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub succeeded: Vec<String>,
    /// Attacks that proved nothing, each with why. At most ten are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inconclusive: Vec<String>,
    /// Why none, or not all, were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

fn is_none_of_them(count: &u32) -> bool {
    *count == 0
}

impl IsolationStatus {
    /// Whether attacks were made, and none of them got anything or is in doubt.
    #[must_use]
    pub fn is_unbroken(&self) -> bool {
        self.attacks > 0 && u64::from(self.attacks) == u64::from(self.refused) + u64::from(self.nothing)
    }
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
