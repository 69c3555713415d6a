//! The ports of the door: they prove credentials, make some, and know of other replicas.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    api_key::{NewKey, StoredKey},
    credential::{Credential, CredentialOwner},
    refresh_token::{NewFamily, Rotation, TokenHash},
    replica_counts::ReplicaCounts,
};
use crate::{
    directory::{agent::AgentId, presence::Registration},
    fault::Fault,
};

/// That a token was issued for a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialUse {
    /// As [`Source::name`](crate::directory::source::Source::name) has it.
    pub credential: String,
    /// How long ago: whoever writes it down has a clock of its own.
    pub ago: Duration,
}

/// Where credentials are proved.
#[async_trait]
pub trait CredentialStore: Send + Sync + 'static {
    /// The API key of a prefix.
    async fn api_key(&self, prefix: &str) -> Result<Option<StoredKey>, Fault>;
    /// Stores the first token of a family, and forgets some expired ones and the agent's families beyond [`MAX_FAMILIES`].
    async fn insert_refresh(&self, hash: TokenHash, family: &NewFamily) -> Result<(), Fault>;
    /// Does, under the row's lock, what [`StoredRefresh::judge`] says. The successor lives for [`REFRESH_TOKEN_LIFE`]; the family
    /// keeps [`MAX_FAMILY_TOKENS`].
    async fn rotate_refresh(&self, hash: TokenHash, successor: TokenHash) -> Result<Rotation, Fault>;
    /// Revokes the family of a token, if it is known. Whose it was, where it was not revoked before.
    async fn revoke_refresh(&self, hash: TokenHash) -> Result<Option<AgentId>, Fault>;
    /// Writes down when credentials were used last, and forgets those that are there no more. What was used within a minute of what is written
    /// changes nothing.
    async fn note_uses(&self, uses: &[CredentialUse]) -> Result<(), Fault>;
    /// The credentials of this owner: by their agents' names and their own, those after these two, and no more than so many.
    async fn credentials(
        &self,
        of: CredentialOwner<'_>,
        after: Option<(&str, &str)>,
        limit: u32,
    ) -> Result<Vec<Credential>, Fault>;
}

/// Where agents are kept that others registered.
#[async_trait]
pub trait RegistrationStore: Send + Sync + 'static {
    /// Adds one, or replaces what `by` registered under this name, with its key. REGISTRATION_DECLARED where the tenant has no others than those
    /// with a resource, and TOO_MANY_AGENTS where it has `most` agents, or
    /// [`MAX_REGISTERED`](super::registration::MAX_REGISTERED) of them are registered by others.
    async fn register(&self, by: AgentId, registration: &Registration, key: &NewKey, most: Option<u64>) -> Result<(), Fault>;
    /// Removes what `by`, or whoever, registered under this name, its key and its presence; whether there was one.
    async fn unregister(&self, by: Option<AgentId>, name: &str) -> Result<bool, Fault>;
}

/// Knows what counts at each replica.
#[async_trait]
pub trait CountStore: Send + Sync + 'static {
    /// Says for so long what counts at this one, where that is news, and answers with what the others said that live.
    async fn exchange(&self, replica: Uuid, own: Option<&ReplicaCounts>, life: Duration) -> Result<Vec<ReplicaCounts>, Fault>;
}
