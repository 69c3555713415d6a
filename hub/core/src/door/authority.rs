//! Exchanges credentials for tokens.

use std::{fmt, sync::Arc};

use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    access_token::Tokens,
    api_key::{MAX_CREDENTIAL_BYTES, api_key_hmac, key_prefix},
    login_queue::LoginQueue,
    ports::CredentialStore,
    refresh_token::{NewFamily, REFRESH_TOKEN_LIFE, Rotation, format_token, hash, random_token},
};
use crate::{
    directory::{agent::AgentId, refresher::Refresher, snapshot::Snapshot},
    fault::{Code, Fault},
    kit::hmac::keyed,
};

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
    queue: Arc<LoginQueue>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of one tenant.
    pub fn new(tokens: Tokens, store: Arc<dyn CredentialStore>, directory: Arc<Refresher>) -> Self {
        Self { tokens, store, directory, queue: Arc::default() }
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
        let _turn = self.queue.next().await?;
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
        let _turn = self.queue.next().await?;
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
        let _turn = self.queue.next().await?;
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

    use async_trait::async_trait;
    use tokio::{sync::Semaphore, task::JoinSet};

    use super::*;
    use crate::{
        directory::snapshot::{Directory, DirectoryStore},
        door::{
            access_token::tests::keyring,
            api_key::StoredKey,
            login_queue::{AT_ONE_TIME, MAX_WAITING},
            refresh_token::TokenHash,
        },
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
        for number in 0..AT_ONE_TIME + MAX_WAITING + 10 {
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
        assert_eq!(store.asked.load(Ordering::SeqCst), AT_ONE_TIME + MAX_WAITING);
    }
}
