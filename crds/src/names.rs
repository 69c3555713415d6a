//! Every name that is derived from a resource, in any system. Nothing else may put one together: that two tenants never share a
//! name is proven here, once.

use std::{fmt, str::FromStr};

use sha2::{Digest, Sha256};

/// The API group.
pub const GROUP: &str = "acb.dev";

/// The finalizer that holds what is deleted until it is taken down.
pub const FINALIZER: &str = "acb.dev/cleanup";

/// The most bytes of a tenant's name.
pub const TENANT_MAX: usize = 40;

/// The most bytes of a context type's name, and of an agent's: a DNS label.
pub const LABEL_MAX: usize = 63;

/// ACB's own topics of each tenant.
pub const SYSTEM_TOPICS: [&str; 5] = ["messages", "control", "audit", "dlq", "usage"];

/// The object names in a tenant's two namespaces.
pub mod objects {
    /// The hub's Deployment, Service and container.
    pub const HUB: &str = "hub";
    /// Selects the hub's pods by their label, among all that are in its namespace.
    pub const HUB_PODS: &str = "app.kubernetes.io/component=hub";
    /// ConfigMap with `hub.json`.
    pub const HUB_CONFIG: &str = "hub-config";
    /// Secret with the hub's leaf certificate.
    pub const HUB_TLS: &str = "hub-tls";
    /// Secret with the signing key, the pepper and the key of refresh tokens.
    pub const HUB_KEYS: &str = "hub-keys";
    /// Secret with the login to PostgreSQL.
    pub const HUB_POSTGRES: &str = "hub-postgres";
    /// Secret with the login to Kafka.
    pub const HUB_KAFKA: &str = "hub-kafka";
    /// ConfigMap with the certificate of the tenant's authority, in the tenant's namespace.
    pub const CA: &str = "acb-ca";
    /// The RoleBinding that lets the operator into a namespace, and its ServiceAccount.
    pub const OPERATOR: &str = "acb-operator";
    /// What attacks the walls between tenants, in the hub's namespace: its ServiceAccount, and the beginning of its Jobs' names.
    pub const ISOLATION: &str = "isolation";
    /// The RoleBinding that lets the operator start such Jobs and see how they end, in the hub's namespace.
    pub const OPERATOR_ISOLATION: &str = "acb-operator-isolation";
    /// The ResourceQuota of the tenant's namespace.
    pub const OBJECT_QUOTA: &str = "acb-objects";
    /// The RoleBinding of the tenant's admins, in the tenant's namespace.
    pub const TENANT_ADMINS: &str = "acb-tenant-admins";
}

/// What people ask for with an annotation, because it is done once, only after a mishap, or is no affair of the spec.
pub mod annotations {
    /// On a Tenant: the id of an earlier Tenant of its name, whose data it takes over.
    pub const ADOPT: &str = "acb.dev/adopt";
    /// On a Tenant or an Agent: a value that was not seen before replaces its credentials once.
    pub const ROTATE: &str = "acb.dev/rotate";
    /// On a Tenant: the wave in which changes of the platform come to it, a whole number, 0 where it has none. Lower ones come first. No label:
    /// the value of one can't begin with a minus.
    pub const ROLLOUT_WAVE: &str = "acb.dev/rollout-wave";
    /// On a Tenant: its own name lets `deletionPolicy` become `Delete`, where the data was to be retained before.
    pub const CONFIRM_DELETE: &str = "acb.dev/confirm-delete";
    /// On a Tenant or an Agent that is being deleted: its own name lets it go although something of it could not be taken down.
    pub const FORCE_RELEASE: &str = "acb.dev/force-release";
}

/// Why a name was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Too long.
    #[error("{name:?} has {length} bytes: use at most {max}")]
    TooLong {
        /// The name.
        name: String,
        /// Its bytes.
        length: usize,
        /// How many it may have.
        max: usize,
    },
    /// Other characters than allowed, or in other places.
    #[error("{name:?} does not match {pattern}: use small letters, digits and inner hyphens")]
    Pattern {
        /// The name.
        name: String,
        /// What it has to match.
        pattern: &'static str,
    },
    /// ACB or Kubernetes needs it.
    #[error("{name:?} is reserved, as are sys, system, default and all that starts with kube: choose another name")]
    Reserved {
        /// The name.
        name: String,
    },
}

/// What tenant and context-type names match.
pub const NAME_PATTERN: &str = "^[a-z]([-a-z0-9]*[a-z0-9])?$";

/// What agent names match: a DNS label.
pub const LABEL_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

fn check(name: &str, max: usize, digit_first: bool) -> Result<(), NameError> {
    if name.len() > max {
        let shown = name.chars().take(80).collect();
        return Err(NameError::TooLong { name: shown, length: name.len(), max });
    }
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let fits = bytes.first().is_some_and(|byte| byte.is_ascii_lowercase() || (digit_first && byte.is_ascii_digit()))
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-');
    if fits {
        Ok(())
    } else {
        let pattern = if digit_first { LABEL_PATTERN } else { NAME_PATTERN };
        Err(NameError::Pattern { name: name.to_owned(), pattern })
    }
}

fn check_reserved(name: &str) -> Result<(), NameError> {
    if matches!(name, "sys" | "system" | "default") || name.starts_with("kube") {
        return Err(NameError::Reserved { name: name.to_owned() });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$meta:meta])* $type:ident, $max:expr, $digit_first:expr, $reserved:expr) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(String);

        impl $type {
            /// Takes a name that fits every system, and no other.
            pub fn parse(name: &str) -> Result<Self, NameError> {
                check(name, $max, $digit_first)?;
                if $reserved {
                    check_reserved(name)?;
                }
                Ok(Self(name.to_owned()))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::parse(name)
            }
        }
    };
}

name! {
    /// The name of a Tenant: `[a-z]([-a-z0-9]*[a-z0-9])?`, at most 40 bytes, none of the reserved ones. Never a dot or an underscore:
    /// Kafka takes one for the other, and with a dot the prefix of `acme` would cover `acme.eu`.
    TenantName, TENANT_MAX, false, true
}

name! {
    /// The name of a context type: as a tenant's, at most 63 bytes.
    ContextTypeName, LABEL_MAX, false, true
}

name! {
    /// The name of an Agent: a DNS label.
    AgentName, LABEL_MAX, true, false
}

impl TenantName {
    /// `acb.<tenant>.`: what all of the tenant's topics and consumer groups start with. The final dot keeps `acme` out of `acme2`.
    #[must_use]
    pub fn topic_prefix(&self) -> String {
        format!("acb.{self}.")
    }

    /// `acb.<tenant>.sys.<name>`: a topic of ACB's own, one of [`SYSTEM_TOPICS`].
    #[must_use]
    pub fn system_topic(&self, name: &str) -> String {
        format!("acb.{self}.sys.{name}")
    }

    /// `acb.<tenant>.<context type>`.
    #[must_use]
    pub fn context_topic(&self, context_type: &ContextTypeName) -> String {
        format!("acb.{self}.{context_type}")
    }

    /// The namespace of its Agents and Quotas, where `spec.agentNamespace` names no other.
    #[must_use]
    pub fn namespace(&self) -> String {
        format!("acb-{self}")
    }

    /// The namespace of its hub, in which no subject of the tenant has any right.
    #[must_use]
    pub fn hub_namespace(&self) -> String {
        format!("acbhub-{self}")
    }
}

impl AgentName {
    /// The Secret with its API key, without the generation.
    #[must_use]
    pub fn api_key_secret(&self) -> String {
        format!("{self}-api-key")
    }
}

/// What tells a tenant from every other in systems whose names anyone can read: the first 80 bits of SHA-256 of its UID. A restore
/// finds it again, and a list of logins is not a list of customers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId([u8; 10]);

impl TenantId {
    /// Of the Tenant resource with this UID.
    #[must_use]
    pub fn from_uid(uid: &str) -> Self {
        let digest = Sha256::digest(uid.as_bytes());
        let mut id = [0; 10];
        id.copy_from_slice(&digest[..10]);
        Self(id)
    }

    /// From 20 hex digits, as [`hex`](Self::hex) writes them.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut id = [0; 10];
        let canonical = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (canonical && hex::decode_to_slice(text, &mut id).is_ok()).then_some(Self(id))
    }

    /// As PostgreSQL holds it.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 10] {
        &self.0
    }

    /// 20 hex digits.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The login in PostgreSQL and the user in Kafka.
    #[must_use]
    pub fn login(&self) -> String {
        format!("acb_t_{}", self.hex())
    }

    /// The Secret with its certificate authority, in the operator's namespace, without the generation.
    #[must_use]
    pub fn authority_secret(&self) -> String {
        format!("ca-{}", self.hex())
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({})", self.hex())
    }
}
