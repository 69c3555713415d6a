//! The public keys by which agents receive what the hub can't read. They are the agents' own: the hub keeps them and hands them out.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{
    agent::{Agent, AgentId},
    presence::no_such_agent,
    snapshot::Directory,
};
use crate::{
    fault::{Code, Fault},
    kit::quoted::quoted,
};

/// The only suite that there is: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305 of RFC 9180.
pub const SUITE: &str = "X25519-HKDF-SHA256-CHACHA20POLY1305";
/// Bytes of its public keys.
const PUBLIC_KEY: usize = 32;
/// Keys of one agent.
pub const MAX_KEYS: usize = 8;
/// Agents that are asked for by name.
const MAX_NAMES: usize = 64;
/// Members of a group whose keys are given.
const MAX_MEMBERS: usize = 1000;

/// By what a key is named: SHA-256 of it.
pub type KeyId = [u8; 32];

/// A public key that an agent published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncryptionKey {
    /// By what it is named.
    pub id: KeyId,
    /// What it is for.
    pub suite: String,
    /// The key.
    pub public: Vec<u8>,
    /// When the agent published it.
    pub published_at: OffsetDateTime,
}

/// Keeps them.
#[async_trait]
pub trait EncryptionKeyStore: Send + Sync + 'static {
    /// Adds one, as the newest. False where the agent has `most` others.
    async fn publish(&self, agent: AgentId, id: KeyId, suite: &str, public: &[u8], most: usize) -> Result<bool, Fault>;
    /// Removes one; whether it was there.
    async fn withdraw(&self, agent: AgentId, id: KeyId) -> Result<bool, Fault>;
    /// Those of these agents, the newest first.
    async fn keys(&self, agents: &[AgentId]) -> Result<HashMap<AgentId, Vec<EncryptionKey>>, Fault>;
}

/// The keys of one tenant's agents. Clones share it.
#[derive(Clone)]
pub struct EncryptionKeys {
    directory: Directory,
    store: Arc<dyn EncryptionKeyStore>,
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKeys").finish_non_exhaustive()
    }
}

impl EncryptionKeys {
    /// Of the tenant with this directory.
    pub fn new(directory: Directory, store: Arc<dyn EncryptionKeyStore>) -> Self {
        Self { directory, store }
    }

    /// A key of the caller's own.
    ///
    /// # Errors
    /// `ENCRYPTION_KEY_INVALID`, `TOO_MANY_ENCRYPTION_KEYS`, or where the store does not answer.
    pub async fn publish(&self, caller: &Agent, suite: &str, public: &[u8]) -> Result<KeyId, Fault> {
        if suite != SUITE {
            let why = format!("the suite {} is none that there is: use {SUITE}", quoted(suite));
            return Err(Fault::invalid("ENCRYPTION_KEY_INVALID", why));
        }
        if public.len() != PUBLIC_KEY {
            let why = format!("a public key of {SUITE} has {PUBLIC_KEY} bytes, and this one has {}", public.len());
            return Err(Fault::invalid("ENCRYPTION_KEY_INVALID", why));
        }
        let id = Sha256::digest(public).into();
        if self.store.publish(caller.id, id, suite, public, MAX_KEYS).await? {
            return Ok(id);
        }
        let why = format!("the agent has published {MAX_KEYS} keys: withdraw those that nothing on its way needs any more");
        Err(Fault::new(Code::ResourceExhausted, "TOO_MANY_ENCRYPTION_KEYS", why))
    }

    /// Withdraws a key of the caller's own.
    ///
    /// # Errors
    /// `ENCRYPTION_KEY_NOT_FOUND`, or where the store does not answer.
    pub async fn withdraw(&self, caller: &Agent, id: &[u8]) -> Result<KeyId, Fault> {
        let missing = || Fault::not_found("ENCRYPTION_KEY_NOT_FOUND", "the agent has published no such key");
        let id = id.try_into().map_err(|_| missing())?;
        if self.store.withdraw(caller.id, id).await? { Ok(id) } else { Err(missing()) }
    }

    /// The keys of the agents of these names, and of those who are in a group now: by name, each agent once.
    ///
    /// # Errors
    /// `AGENT_NOT_FOUND`, `GROUP_NOT_FOUND`, `TOO_MANY_RECIPIENTS`, or where the store does not answer.
    pub async fn list(&self, names: &[String], group: &str) -> Result<Vec<(Arc<Agent>, Vec<EncryptionKey>)>, Fault> {
        if names.len() > MAX_NAMES {
            let why = format!("keys of at most {MAX_NAMES} agents are given at one time, and {} were named", names.len());
            return Err(Fault::invalid("TOO_MANY_RECIPIENTS", why));
        }
        let snapshot = self.directory.snapshot();
        let mut agents = names
            .iter()
            .map(|name| snapshot.agent_named(name).cloned().ok_or_else(|| no_such_agent(name)))
            .collect::<Result<Vec<_>, _>>()?;
        if !group.is_empty() {
            let members = snapshot.memberships(group).iter().filter(|member| member.left_at.is_none());
            let members: Vec<_> = members.filter_map(|member| snapshot.agent(member.agent).cloned()).collect();
            if members.is_empty() {
                return Err(Fault::not_found("GROUP_NOT_FOUND", format!("nobody is in the group {} now", quoted(group))));
            }
            if members.len() > MAX_MEMBERS {
                let why =
                    format!("keys of at most {MAX_MEMBERS} agents are given at one time, and the group has {}", members.len());
                return Err(Fault::invalid("TOO_MANY_RECIPIENTS", why));
            }
            agents.extend(members);
        }
        agents.sort_by(|left, right| left.name.cmp(&right.name));
        agents.dedup_by_key(|agent| agent.id);
        let ids: Vec<_> = agents.iter().map(|agent| agent.id).collect();
        let mut keys = self.store.keys(&ids).await?;
        Ok(agents.into_iter().map(|agent| (agent.clone(), keys.remove(&agent.id).unwrap_or_default())).collect())
    }
}
