//! API keys and refresh tokens: what is exchanged for access tokens. Neither is ever stored, only what proves it.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use time::{Duration, OffsetDateTime};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::{
    agent::AgentId,
    directory::Snapshot,
    fault::{Code, Fault},
    refresh::Refresher,
    token::Tokens,
};

/// How long a refresh token is valid, if it is not used.
pub const REFRESH_TOKEN_LIFE: Duration = Duration::days(7);
/// A lost answer may be asked for again this long.
pub const REUSE_GRACE: Duration = Duration::seconds(30);
/// Families of one agent: exchanging once more forgets the one that was unused for longest.
pub const MAX_FAMILIES: u32 = 64;
/// Tokens of one family: two for each hour of a token's life. An older used one is no longer recognised as used again, only refused.
pub const MAX_FAMILY_TOKENS: u32 = 336;
/// Longer credentials are not looked at.
const MAX_CREDENTIAL_BYTES: usize = 256;
/// Credentials that are looked at in the store at one time. Anybody may present one: the store's other sessions are for those who are known.
const AT_ONE_TIME: usize = 2;
/// Credentials that wait for their turn: as many agents as may come back at once after an outage, and then some.
const WAITING: usize = 256;

/// HMAC-SHA-256 of a whole API key (`acb_<prefix>_<secret>`) under the tenant's pepper: what the operator projects.
#[must_use]
pub fn api_key_hmac(pepper: &[u8], api_key: &str) -> [u8; 32] {
    keyed(pepper, api_key.as_bytes())
}

/// What the operator projected of an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKey {
    /// Whose it is.
    pub agent: AgentId,
    /// See [`api_key_hmac`].
    pub hmac: [u8; 32],
    /// Until when; `None`: until it is removed.
    pub expires_at: Option<OffsetDateTime>,
}

/// SHA-256 of a refresh token.
pub type TokenHash = [u8; 32];

/// A refresh token, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRefresh {
    /// All tokens that came from one exchange.
    pub family: Uuid,
    /// Whose.
    pub agent: AgentId,
    /// Until when.
    pub expires_at: OffsetDateTime,
    /// When it was exchanged for its successor.
    pub used_at: Option<OffsetDateTime>,
    /// Whether its family was revoked.
    pub revoked: bool,
    /// Whether the API key that its family came from is still its agent's, and valid.
    pub key_lives: bool,
}

/// What is to be done about a refresh token that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Mark it used and make its successor.
    Rotate,
    /// It was just used, and the answer may be lost: its successor again.
    Repeat,
    /// It was used long ago, so two parties hold it: revoke the family.
    Revoke,
    /// It is expired or revoked.
    Refuse,
    /// It is good, and the key that it came from is not: removed, rotated or past its overlap.
    KeyGone,
}

impl StoredRefresh {
    /// Decides about a token that is presented now.
    #[must_use]
    pub fn judge(&self, now: OffsetDateTime) -> Judgement {
        if self.revoked || self.expires_at <= now {
            return Judgement::Refuse;
        }
        match self.used_at {
            Some(used_at) if now - used_at > REUSE_GRACE => Judgement::Revoke,
            _ if !self.key_lives => Judgement::KeyGone,
            None => Judgement::Rotate,
            Some(_) => Judgement::Repeat,
        }
    }
}

/// What became of a refresh token that was presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Its successor is stored, and ends then.
    Successor {
        /// Whose.
        agent: AgentId,
        /// The prefix of the API key that it came from.
        key: String,
        /// When the successor ends.
        expires_at: OffsetDateTime,
    },
    /// It was used before: its family is now revoked.
    Reused {
        /// Whose.
        agent: AgentId,
    },
    /// It is good, and its API key is gone.
    KeyGone,
    /// Unknown, expired or revoked.
    Refused,
}

/// A family of refresh tokens, as it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFamily {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub agent: AgentId,
    /// The prefix of the API key that was exchanged.
    pub key: String,
    /// When its first token ends.
    pub expires_at: OffsetDateTime,
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
    /// Revokes the family of a token, if it is known.
    async fn revoke_refresh(&self, hash: TokenHash) -> Result<(), Fault>;
}

/// What a caller gets for a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// The JWT.
    pub access_token: String,
    /// When it ends.
    pub access_expires_at: OffsetDateTime,
    /// The refresh token.
    pub refresh_token: String,
    /// When it ends.
    pub refresh_expires_at: OffsetDateTime,
    /// For whom.
    pub agent: AgentId,
    /// For whom.
    pub agent_name: String,
    /// The prefix of the API key that it came from.
    pub key: String,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("agent", &self.agent_name).finish_non_exhaustive()
    }
}

/// Exchanges credentials for tokens.
#[derive(Clone)]
pub struct Authority {
    tokens: Tokens,
    store: Arc<dyn CredentialStore>,
    directory: Arc<Refresher>,
    turns: Arc<Turns>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of one tenant.
    pub fn new(tokens: Tokens, store: Arc<dyn CredentialStore>, directory: Arc<Refresher>) -> Self {
        Self { tokens, store, directory, turns: Arc::default() }
    }

    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.tokens.tenant()
    }

    /// The public keys, as JSON.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.tokens.keyring().jwks()
    }

    /// Tokens for an API key. Every failure looks the same.
    pub async fn exchange(&self, api_key: &str) -> Result<Grant, Fault> {
        let prefix = key_prefix(api_key).ok_or_else(refused)?;
        let _turn = self.turns.next().await?;
        let stored = self.store.api_key(prefix).await?;
        let now = OffsetDateTime::now_utc();
        // The same work for an unknown prefix.
        let presented = api_key_hmac(self.tokens.keyring().pepper(), api_key);
        let expected = stored.as_ref().map_or([0; 32], |stored| stored.hmac);
        let equal = bool::from(presented.ct_eq(&expected));
        let stored = stored.filter(|stored| equal && stored.expires_at.is_none_or(|at| now < at)).ok_or_else(refused)?;
        let snapshot = self.directory.current().await?;
        let refresh_token = random_token()?;
        let refresh_expires_at = now + REFRESH_TOKEN_LIFE;
        let grant = self.grant(&snapshot, stored.agent, prefix, refresh_token, refresh_expires_at)?;
        let (id, key) = (Uuid::now_v7(), prefix.to_owned());
        let family = NewFamily { id, agent: stored.agent, key, expires_at: refresh_expires_at };
        self.store.insert_refresh(hash(&grant.refresh_token), &family).await?;
        Ok(grant)
    }

    /// New tokens for a refresh token.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Grant, Fault> {
        if refresh_token.len() > MAX_CREDENTIAL_BYTES {
            return Err(refused());
        }
        // Derived, so that every replica gives the same successor, and none stores it.
        let successor = format_token(&keyed(self.tokens.keyring().refresh(), refresh_token.as_bytes()));
        let _turn = self.turns.next().await?;
        match self.store.rotate_refresh(hash(refresh_token), hash(&successor)).await? {
            Rotation::Successor { agent, key, expires_at } => {
                let snapshot = self.directory.current().await?;
                self.grant(&snapshot, agent, &key, successor, expires_at)
            }
            Rotation::KeyGone => Err(Fault::new(
                Code::Unauthenticated,
                "API_KEY_GONE",
                "the API key that this refresh token came from was removed or replaced: exchange the key that the agent's Secret holds now",
            )),
            Rotation::Reused { agent } => {
                tracing::warn!(agent_id = %agent, "a refresh token was used again: its family is revoked");
                Err(refused())
            }
            Rotation::Refused => Err(refused()),
        }
    }

    /// Revokes the family of a refresh token. Succeeds for unknown ones, too.
    pub async fn revoke(&self, refresh_token: &str) -> Result<(), Fault> {
        if refresh_token.len() > MAX_CREDENTIAL_BYTES {
            return Ok(());
        }
        let _turn = self.turns.next().await?;
        self.store.revoke_refresh(hash(refresh_token)).await
    }

    fn grant(
        &self,
        snapshot: &Snapshot,
        agent: AgentId,
        key: &str,
        refresh_token: String,
        refresh_expires_at: OffsetDateTime,
    ) -> Result<Grant, Fault> {
        let agent = snapshot.agent(agent).filter(|agent| !agent.suspended && !snapshot.suspended).ok_or_else(refused)?;
        let now = OffsetDateTime::now_utc();
        let (access_token, access_expires_at) = self.tokens.issue(agent, Some(key), snapshot.generation, now)?;
        Ok(Grant {
            access_token,
            access_expires_at,
            refresh_token,
            refresh_expires_at,
            agent: agent.id,
            agent_name: agent.name.clone(),
            key: key.to_owned(),
        })
    }
}

/// Who may ask the store about a credential, one after the other.
#[derive(Debug)]
struct Turns {
    places: Semaphore,
    turns: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONE_TIME + WAITING), turns: Semaphore::new(AT_ONE_TIME) }
    }
}

impl Turns {
    /// Waits for one's turn, which ends when what is returned is dropped.
    async fn next(&self) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), Fault> {
        let busy = || {
            Fault::new(
                Code::ResourceExhausted,
                "TOO_MANY_LOGINS",
                "as many credentials wait to be looked at as this replica takes: try again in a few seconds",
            )
        };
        let place = self.places.try_acquire().map_err(|_| busy())?;
        let turn = self.turns.acquire().await.map_err(|_| busy())?;
        Ok((turn, place))
    }
}

/// What is no secret of an API key `acb_<prefix>_<secret>`. `None` where it is none.
#[must_use]
pub fn key_prefix(api_key: &str) -> Option<&str> {
    if api_key.len() > MAX_CREDENTIAL_BYTES {
        return None;
    }
    let (prefix, secret) = api_key.strip_prefix("acb_")?.split_once('_')?;
    (!prefix.is_empty() && !secret.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(prefix)
}

pub(crate) fn keyed(key: &[u8], data: &[u8]) -> [u8; 32] {
    // HMAC pads or hashes a key of any length; this is the form that can't fail.
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn random_token() -> Result<String, Fault> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)
        .map_err(|_| Fault::new(Code::Internal, "NO_RANDOMNESS", "the hub's machine gives no randomness"))?;
    Ok(format_token(&bytes))
}

fn format_token(bytes: &[u8; 32]) -> String {
    format!("acbr_{}", BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

/// The one answer to every credential that is not good.
fn refused() -> Fault {
    Fault::new(
        Code::Unauthenticated,
        "CREDENTIAL_REFUSED",
        "the credential is unknown, expired or revoked, or its agent is suspended: see the Agent resource and the Secret of its API key",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::task::JoinSet;

    use super::*;
    use crate::{
        directory::{Directory, DirectoryStore},
        token::tests::keyring,
    };

    /// Answers nobody until it is let, and knows no credential.
    struct Slow {
        may_answer: Semaphore,
        asked: AtomicUsize,
    }

    impl Slow {
        async fn answer<T>(&self, answer: T) -> Result<T, Fault> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let _permit = self.may_answer.acquire().await.unwrap();
            Ok(answer)
        }
    }

    #[async_trait]
    impl CredentialStore for Slow {
        async fn api_key(&self, _: &str) -> Result<Option<StoredKey>, Fault> {
            self.answer(None).await
        }
        async fn insert_refresh(&self, _: TokenHash, _: &NewFamily) -> Result<(), Fault> {
            self.answer(()).await
        }
        async fn rotate_refresh(&self, _: TokenHash, _: TokenHash) -> Result<Rotation, Fault> {
            self.answer(Rotation::Refused).await
        }
        async fn revoke_refresh(&self, _: TokenHash) -> Result<(), Fault> {
            self.answer(()).await
        }
    }

    #[async_trait]
    impl DirectoryStore for Slow {
        async fn generation(&self) -> Result<u64, Fault> {
            Ok(1)
        }
        async fn load(&self) -> Result<Snapshot, Fault> {
            Ok(Snapshot::new(1, Vec::new(), Vec::new()))
        }
    }

    #[tokio::test]
    async fn strangers_ask_the_store_two_at_a_time_and_a_crowd_is_told_to_come_later() {
        let store = Arc::new(Slow { may_answer: Semaphore::new(0), asked: AtomicUsize::new(0) });
        let refresher = Arc::new(Refresher::new(Directory::default(), store.clone()));
        let authority = Authority::new(Tokens::new("acme", "0011", keyring(1)), store.clone(), refresher);
        let mut calls = JoinSet::new();
        for number in 0..AT_ONE_TIME + WAITING + 10 {
            let authority = authority.clone();
            calls.spawn(async move {
                let answer = match number % 3 {
                    0 => authority.exchange("acb_a_b").await.map(drop),
                    1 => authority.refresh("acbr_x").await.map(drop),
                    _ => authority.revoke("acbr_x").await,
                };
                answer.map_or_else(|fault| fault.reason, |()| "fine")
            });
        }
        for _ in 0..10 {
            assert_eq!(calls.join_next().await.unwrap().unwrap(), "TOO_MANY_LOGINS");
        }
        tokio::task::yield_now().await;
        assert_eq!(store.asked.load(Ordering::SeqCst), AT_ONE_TIME);
        store.may_answer.add_permits(1);
        while let Some(answer) = calls.join_next().await {
            assert!(["CREDENTIAL_REFUSED", "fine"].contains(&answer.unwrap()));
        }
        assert_eq!(store.asked.load(Ordering::SeqCst), AT_ONE_TIME + WAITING);
    }

    fn stored() -> StoredRefresh {
        StoredRefresh {
            family: Uuid::nil(),
            agent: AgentId(Uuid::nil()),
            expires_at: OffsetDateTime::UNIX_EPOCH + REFRESH_TOKEN_LIFE,
            used_at: None,
            revoked: false,
            key_lives: true,
        }
    }

    #[test]
    fn a_refresh_token_is_used_once_and_repeated_for_half_a_minute() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        assert_eq!(stored().judge(at(10)), Judgement::Rotate);
        let used = StoredRefresh { used_at: Some(at(10)), ..stored() };
        assert_eq!(used.judge(at(40)), Judgement::Repeat);
        assert_eq!(used.judge(at(41)), Judgement::Revoke);
        assert_eq!(StoredRefresh { revoked: true, ..used }.judge(at(11)), Judgement::Refuse);
        assert_eq!(stored().judge(stored().expires_at), Judgement::Refuse);
    }

    #[test]
    fn a_refresh_token_ends_with_the_key_that_it_came_from() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds);
        let orphan = StoredRefresh { key_lives: false, ..stored() };
        assert_eq!(orphan.judge(at(10)), Judgement::KeyGone);
        let used = StoredRefresh { used_at: Some(at(10)), ..orphan };
        assert_eq!(used.judge(at(40)), Judgement::KeyGone);
        assert_eq!(used.judge(at(41)), Judgement::Revoke, "a stolen token is noticed all the same");
        assert_eq!(StoredRefresh { revoked: true, ..used }.judge(at(41)), Judgement::Refuse);
    }

    #[test]
    fn the_hmac_is_the_standard_one() {
        // RFC 4231, test cases 1 and 6: a short key, and one longer than a block.
        assert_eq!(
            hex::encode(keyed(&[0x0b; 20], b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        let data = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(hex::encode(keyed(&[0xaa; 131], data)), "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
    }

    #[test]
    fn only_keys_of_our_form_have_a_prefix() {
        assert_eq!(key_prefix("acb_0a1b_se_cret"), Some("0a1b"));
        for bad in ["", "acb_", "acb__x", "acb_a_", "acb_a", "xyz_a_b", "acb_a b_c", &format!("acb_a_{}", "x".repeat(300))] {
            assert_eq!(key_prefix(bad), None, "{bad}");
        }
    }
}
