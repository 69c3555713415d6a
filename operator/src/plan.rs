//! The plan: what a reconcile will do, as plain data. It is printed by `acb plan`, held by golden tests and applied by the
//! effects. It names Secrets and their generations, and never holds what is in them.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::Value;

/// Ordered steps. An empty plan means: converged.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// Applied in this order; each is idempotent.
    pub steps: Vec<Step>,
}

/// One change, and the system that it changes.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::large_enum_variant, reason = "a plan is short, and its steps are matched on everywhere")]
#[serde(tag = "system", rename_all = "camelCase")]
pub enum Step {
    /// Topics, users and ACLs.
    Kafka(KafkaStep),
    /// Logins and projected rows.
    Postgres(PostgresStep),
    /// Objects and Secrets.
    Kubernetes(KubernetesStep),
}

impl Step {
    /// The step, where it is Kafka's.
    #[must_use]
    pub fn kafka(&self) -> Option<&KafkaStep> {
        match self {
            Self::Kafka(step) => Some(step),
            _ => None,
        }
    }
}

/// A Secret, by name and generation. The generation is part of the name of the object: `<name>-<generation>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Where it is.
    pub namespace: String,
    /// Without the generation.
    pub name: String,
    /// From 1; one more at each rotation.
    pub generation: u64,
}

impl SecretRef {
    /// The name of the Secret object.
    #[must_use]
    pub fn object_name(&self) -> String {
        format!("{}-{}", self.name, self.generation)
    }

    /// The generation before it; `None` for the first.
    #[must_use]
    pub fn before(&self) -> Option<Self> {
        let generation = self.generation.checked_sub(1).filter(|generation| *generation > 0)?;
        Some(Self { generation, ..self.clone() })
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.object_name())
    }
}

/// How the content of a Secret is made. The effect generates it where the Secret is missing, and never overwrites.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum SecretContent {
    /// `ca.crt`, `ca.key`: the tenant's certificate authority, in the operator's namespace.
    CertificateAuthority {
        /// Subject common name.
        common_name: String,
    },
    /// `tls.crt`, `tls.key`, `ca.crt`: a leaf of a CA.
    TlsLeaf {
        /// Which CA signs.
        authority: SecretRef,
        /// Subject alternative names: DNS names and IP addresses.
        names: Vec<String>,
    },
    /// `signing.key`, `audit.key`, `pepper`, `refresh.key`.
    HubKeys,
    /// A new `signing.key` and `audit.key`; `pepper` and `refresh.key` of the Secret before. The key that signs until then is
    /// `signing.previous.key`, and goes on until `signing.from`. Its public half and those of other keys before are `signing.previous.pub`; tokens
    /// of each are taken until its line of `signing.previous.until`.
    RotatedHubKeys {
        /// The Secret before.
        previous: SecretRef,
    },
    /// `username` as given, and a random `password`; `ca.crt` where the server's authorities are given.
    Login {
        /// The user.
        username: String,
        /// Certificates (PEM) that the server's is signed by. Public, so a plan may hold them.
        #[serde(skip_serializing_if = "Option::is_none")]
        authorities: Option<String>,
    },
    /// `api-key`: `acb_<prefix>_<secret>`.
    ApiKey {
        /// The tenant's CA, which seals it: a key without this seal was not made by the operator.
        authority: SecretRef,
    },
}

/// A change to Kubernetes (standalone: to the state folder, and what runs from it).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum KubernetesStep {
    /// Server-side apply of a whole object: `apiVersion`, `kind`, `metadata`, and what ACB owns of the rest.
    Apply {
        /// The object.
        object: Value,
    },
    /// Makes a Secret where it is missing.
    EnsureSecret {
        /// Which.
        secret: SecretRef,
        /// How.
        content: SecretContent,
        /// The request for a rotation that it answers; written on it.
        #[serde(skip_serializing_if = "Option::is_none")]
        asked: Option<String>,
    },
    /// Writes the certificate of an authority into a ConfigMap, as `ca.crt`: it is public, and made by the effect, so that the plan
    /// can't hold it.
    PublishCertificate {
        /// Of the ConfigMap.
        namespace: String,
        /// Of the ConfigMap.
        name: String,
        /// Whose `ca.crt`.
        authority: SecretRef,
    },
    /// Removes an object that ACB made.
    Delete {
        /// Such as `apps/v1`.
        api_version: String,
        /// Such as `Deployment`.
        kind: String,
        /// Empty for cluster-scoped objects.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A change to PostgreSQL, made as `acb_operator` in one transaction that checks the leader's epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::large_enum_variant, reason = "a plan is short, and its steps are matched on everywhere")]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum PostgresStep {
    /// Makes the login `acb_t_<id>` or sets its verifier and connection limit, from the Secret's password.
    EnsureLogin {
        /// 20 hex digits.
        tenant_id: String,
        /// Where the password is.
        secret: SecretRef,
        /// `CONNECTION LIMIT`.
        connection_limit: u32,
    },
    /// Sets the tenant's row and its context types.
    ProjectTenant {
        /// 20 hex digits.
        tenant_id: String,
        /// The whole projection.
        tenant: TenantRow,
    },
    /// Sets one agent with its groups; bumps the generation.
    ProjectAgent {
        /// 20 hex digits.
        tenant_id: String,
        /// The whole projection.
        agent: AgentRow,
        /// Its API key, whose HMAC under the pepper in `pepper` is stored.
        api_key: Option<ApiKeyRef>,
    },
    /// Takes from an agent that is there what it may no longer have: its role, its limits and whether it is refused are set, and its
    /// ServiceAccount is forgotten where it has none any more; its keys stay; bumps the generation.
    RestrainAgent {
        /// 20 hex digits.
        tenant_id: String,
        /// The projection as it is then.
        agent: AgentRow,
    },
    /// Removes an agent, its keys and its memberships; bumps the generation.
    RemoveAgent {
        /// 20 hex digits.
        tenant_id: String,
        /// The Agent's UID.
        agent_id: String,
    },
    /// Makes a topic of the PostgreSQL bus, or sets its retention. Partitions only grow.
    EnsureTopic {
        /// 20 hex digits.
        tenant_id: String,
        /// The topic.
        topic: TopicSpec,
    },
    /// Writes down that no resource asks for a topic any more, on either bus: from now on its time runs.
    RetireTopic {
        /// 20 hex digits.
        tenant_id: String,
        /// The full name.
        topic: String,
        /// How long it stays.
        retention_seconds: u64,
    },
    /// Strikes that out: it is asked for again, or it is gone.
    ReviveTopic {
        /// 20 hex digits.
        tenant_id: String,
        /// The full name.
        topic: String,
    },
    /// Removes a topic of the PostgreSQL bus, and what is in it.
    RemoveTopic {
        /// 20 hex digits.
        tenant_id: String,
        /// The full name.
        topic: String,
    },
    /// Ends the tenant's sessions and bars its login. Data stays.
    DisableLogin {
        /// 20 hex digits.
        tenant_id: String,
    },
    /// Removes every row of the tenant and its login.
    RemoveTenant {
        /// 20 hex digits.
        tenant_id: String,
    },
}

/// The projected row of a tenant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantRow {
    /// The Tenant's name.
    pub name: String,
    /// `Free`, `Starter`, `Professional` or `Enterprise`.
    pub tier: String,
    /// `Declared` or `Open`.
    pub registration: String,
    /// Whether its agents are refused.
    pub suspended: bool,
    /// Effective limits, by the field names of the Quota resource.
    pub limits: Value,
    /// The most calls of single operations that each agent makes in a minute.
    pub operation_limits: BTreeMap<String, i64>,
    /// Days that its audit records are kept.
    pub audit_days: u32,
    /// Its context types.
    pub context_types: Vec<ContextTypeRow>,
    /// Who issues the tokens of ServiceAccounts; `None` where no agent has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<IssuerRow>,
    /// OpenID Connect issuers whose tokens prove agents, by their URLs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub oidc_issuers: Vec<OidcIssuerRow>,
}

/// An OpenID Connect issuer, and by which terms its tokens are taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OidcIssuerRow {
    /// What its tokens have as `iss`.
    pub issuer: String,
    /// For whom its tokens are.
    pub audiences: Vec<String>,
    /// CEL: the name of the agent.
    pub agent: String,
    /// CEL: a lower role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Certificates (PEM) that its own is signed by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// Private networks in which it may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
}

/// Who says of a token that it is a Kubernetes ServiceAccount's.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRow {
    /// What its tokens have as `iss`.
    pub issuer: String,
    /// What they had until it changed, as long as that is taken, too.
    pub previous: Option<String>,
    /// Its public keys, as a JSON Web Key Set.
    pub jwks: Value,
}

impl IssuerRow {
    /// Without an issuer before it.
    #[must_use]
    pub fn new(issuer: &str, jwks: Value) -> Self {
        Self { issuer: issuer.to_owned(), previous: None, jwks }
    }
}

/// The projected row of a context type.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContextTypeRow {
    /// Name.
    pub name: String,
    /// Partitions.
    pub partitions: u32,
    /// Seconds.
    pub retention_seconds: u64,
    /// `delete` or `compact`.
    pub cleanup: String,
    /// Bytes.
    pub max_message_bytes: u32,
    /// JSON Schema that payloads must meet, with its id and version.
    pub schema: Option<Value>,
}

/// The projected row of an agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentRow {
    /// The Agent's UID.
    pub id: String,
    /// The Agent's name.
    pub name: String,
    /// Its type.
    pub r#type: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// Where it is.
    pub location: String,
    /// String to string.
    pub metadata: Value,
    /// `admin`, `agent-producer`, `agent-consumer`, `agent-full` or `observer`.
    pub role: String,
    /// Context types.
    pub publishes: Vec<String>,
    /// Context types.
    pub subscribes: Vec<String>,
    /// Effective limits, by the field names of the Quota resource.
    pub limits: Value,
    /// Whether it is refused.
    pub suspended: bool,
    /// The ServiceAccount that proves it, where that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountRow>,
}

/// A ServiceAccount that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountRow {
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Another one, once it was deleted and made again.
    pub uid: String,
}

/// Where an API key is, and where the pepper is that its HMAC is made with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeyRef {
    /// Holds `api-key`.
    pub secret: SecretRef,
    /// Holds `pepper`.
    pub keys: SecretRef,
    /// The tenant's CA, which sealed the key.
    pub authority: SecretRef,
    /// The key that it replaces, where that one still works. No other does.
    pub before: Option<ReplacedKey>,
}

/// A key that still works for a while.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplacedKey {
    /// Holds `api-key`.
    pub secret: SecretRef,
    /// From when it is replaced.
    pub overlap_seconds: u64,
}

/// Seconds of a retention without an end: a thousand years.
pub const FOR_EVER: u64 = 31_557_600_000;

/// A topic, on either bus.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicSpec {
    /// The full name.
    pub name: String,
    /// How many.
    pub partitions: u32,
    /// Seconds.
    pub retention_seconds: u64,
    /// `delete` or `compact`.
    pub cleanup: String,
    /// Bytes of a record, at most.
    pub max_message_bytes: u32,
}

/// What a user may take of each broker, of all its connections together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KafkaQuota {
    /// Of what it appends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_bytes_per_second: Option<u64>,
    /// Of what it reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_bytes_per_second: Option<u64>,
    /// Of the time of one thread of a broker: 200 is two of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_percent: Option<u64>,
}

/// A change to Kafka. Steps of one kind that follow one another are sent as one request.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "camelCase")]
pub enum KafkaStep {
    /// Makes a topic, or sets its configuration.
    EnsureTopic {
        /// The topic.
        topic: TopicSpec,
    },
    /// Sets the SCRAM-SHA-512 credential of a user from the Secret's password.
    EnsureUser {
        /// The user.
        username: String,
        /// Where the password is.
        secret: SecretRef,
    },
    /// Read, Write and Describe on topics, Describe on groups, prefixed on `prefix`.
    EnsureAcls {
        /// The user.
        username: String,
        /// Such as `acb.acme.`.
        prefix: String,
    },
    /// Sets what a user may take of each broker; what is unset, it may take as much of as it likes.
    EnsureQuota {
        /// The user.
        username: String,
        /// The whole quota.
        quota: KafkaQuota,
    },
    /// Removes a user's ACLs, credential and quota.
    RemoveUser {
        /// The user.
        username: String,
    },
    /// Removes a topic and what is in it.
    RemoveTopic {
        /// The full name.
        name: String,
    },
}
