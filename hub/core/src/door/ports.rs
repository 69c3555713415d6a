//! The port that proves credentials.

use async_trait::async_trait;

use super::{
    api_key::StoredKey,
    refresh_token::{NewFamily, Rotation, TokenHash},
};
use crate::fault::Fault;

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
    /// Revokes the family of a token, if it is known.
    async fn revoke_refresh(&self, hash: TokenHash) -> Result<(), Fault>;
}
