//! Exchanges credentials for tokens.

use std::{fmt, net::IpAddr, sync::Arc};

use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    access_token::{Grounds, Tokens},
    api_key::{MAX_CREDENTIAL_BYTES, api_key_hmac, key_prefix},
    credential_use::CredentialUses,
    issuer_keys::IssuerKeys,
    issuer_queues::{IssuerQueues, OfIssuer},
    login_queue::{AT_ONE_TIME, LoginQueue, MAX_WAITING, Places},
    oidc_token,
    ports::CredentialStore,
    refresh_token::{NewFamily, REFRESH_TOKEN_LIFE, Rotation, format_token, hash, random_token},
    subject_token::{NO_KEYS, Proved, SubjectToken, TOKEN_TYPE, Why, may_change},
};
use crate::{
    directory::{
        agent::AgentId,
        issuer::Issuer,
        refresher::Refresher,
        snapshot::Snapshot,
        source::{AccountToken, OidcToken, Source},
        trail::Trail,
        trusted_issuer::TrustedIssuer,
    },
    fault::{Code, Fault},
    kit::{hmac::keyed, quoted::quoted},
};

/// What a caller gets for a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// The JWT.
    pub access_token: String,
    /// When it ends.
    pub access_expires_at: OffsetDateTime,
    /// What renews it; `None` where the credential itself is to be shown again.
    pub refresh: Option<RefreshToken>,
    /// For whom.
    pub agent: AgentId,
    /// For whom.
    pub agent_name: String,
    /// What it came from.
    pub source: Source,
}

/// A refresh token that was just made.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// All of it.
    pub text: String,
    /// When it ends.
    pub expires_at: OffsetDateTime,
}

impl Grant {
    /// The refresh token; empty where there is none.
    #[must_use]
    pub fn refresh_token(&self) -> &str {
        self.refresh.as_ref().map_or("", |refresh| &refresh.text)
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("agent", &self.agent_name).finish_non_exhaustive()
    }
}

/// Who waits to have a credential looked at. A crowd with invented keys must keep nobody from logging in whose key is known.
#[derive(Debug)]
struct Queues {
    keys: LoginQueue,
    /// Of keys that the directory does not have yet: they share one look at it.
    unknown_keys: Places,
    tokens: LoginQueue,
    /// Of those whose signature is to be checked: that is work of this machine, not of the store.
    signatures: LoginQueue,
    /// Of tokens of the cluster.
    accounts: OfIssuer,
    oidc: IssuerQueues,
}

impl Default for Queues {
    fn default() -> Self {
        Self {
            keys: LoginQueue::new(AT_ONE_TIME, MAX_WAITING),
            unknown_keys: Places::new(MAX_WAITING),
            tokens: LoginQueue::new(AT_ONE_TIME, MAX_WAITING),
            signatures: LoginQueue::new(1, MAX_WAITING),
            accounts: OfIssuer::default(),
            oidc: IssuerQueues::default(),
        }
    }
}

/// Exchanges credentials for tokens.
#[derive(Clone)]
pub struct Authority {
    tokens: Tokens,
    store: Arc<dyn CredentialStore>,
    directory: Arc<Refresher>,
    queues: Arc<Queues>,
    uses: CredentialUses,
    issuer_keys: Option<IssuerKeys>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of one tenant.
    pub fn new(tokens: Tokens, store: Arc<dyn CredentialStore>, directory: Arc<Refresher>) -> Self {
        Self { tokens, store, directory, queues: Arc::default(), uses: CredentialUses::default(), issuer_keys: None }
    }

    /// The same, which asks OpenID Connect issuers for their keys. Without that their tokens prove nobody.
    #[must_use]
    pub fn with_issuer_keys(self, keys: IssuerKeys) -> Self {
        Self { issuer_keys: Some(keys), ..self }
    }

    /// Writes when credentials were last used, for as long as it is polled.
    pub async fn write_uses(&self) {
        self.uses.write(&*self.store).await;
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

    /// Tokens for an API key that this source shows. Every failure looks the same.
    pub async fn exchange(&self, api_key: &str, source: IpAddr) -> Result<Grant, Fault> {
        let prefix = key_prefix(api_key).ok_or_else(refused)?;
        if !self.directory.directory().snapshot().api_keys.contains_key(prefix) {
            // It is newer than the directory, or invented: the store is not asked about a single one of those.
            let _place = self.queues.unknown_keys.take(source)?;
            if !self.directory.looked().await?.api_keys.contains_key(prefix) {
                return Err(refused());
            }
        }
        let _turn = self.queues.keys.next(source).await?;
        let stored = self.store.api_key(prefix).await?;
        let now = OffsetDateTime::now_utc();
        // The same work for one that was removed a moment ago.
        let presented = api_key_hmac(self.tokens.keyring().pepper(), api_key);
        let expected = stored.as_ref().map_or([0; 32], |stored| stored.hmac);
        let equal = bool::from(presented.ct_eq(&expected));
        let stored = stored.filter(|stored| equal && stored.expires_at.is_none_or(|at| now < at)).ok_or_else(refused)?;
        let snapshot = self.directory.current().await?;
        // By this machine's clock, as whoever holds the token counts.
        let refresh = RefreshToken { text: random_token()?, expires_at: now + REFRESH_TOKEN_LIFE };
        let (id, key) = (Uuid::now_v7(), prefix.to_owned());
        let (token, family) = (hash(&refresh.text), NewFamily { id, agent: stored.agent, key, life: REFRESH_TOKEN_LIFE });
        let grant = self.grant(&snapshot, stored.agent, Source::ApiKey(prefix.to_owned()), None, Some(refresh))?;
        self.store.insert_refresh(token, &family).await?;
        Ok(grant)
    }

    /// An access token for a token of a Kubernetes ServiceAccount, or of an OpenID Connect issuer: one that ends with it, and that nothing renews. Every
    /// failure looks the same; the hub's log has why.
    pub async fn exchange_subject(
        &self,
        (subject_token, token_type): (&str, &str),
        source: IpAddr,
        trail: &Trail,
    ) -> Result<Grant, Fault> {
        if token_type != TOKEN_TYPE {
            let why = format!("the hub exchanges subject tokens of type {TOKEN_TYPE}, not {}", quoted(token_type));
            return Err(Fault::invalid("TOKEN_TYPE_UNSUPPORTED", why));
        }
        let nobody = |why| {
            tracing::info!(why, "a subject token proves nobody");
            subject_refused()
        };
        let shown = SubjectToken::parse(subject_token).map_err(nobody)?;
        let known = self.directory.directory().snapshot();
        let issuer = trusted(&known, &shown);
        let of_issuer = issuer.map(|issuer| self.queues.oidc.of(issuer, &known));
        let queues = of_issuer.as_deref().unwrap_or(&self.queues.accounts);
        let prove = || match issuer {
            Some(issuer) => self.prove_oidc(&shown, issuer, &known),
            None => self.prove_account(&shown, &known),
        };
        let proved = self.in_turn(source, prove).await?;
        let (_turn, _place);
        let snapshot = match &proved {
            // An account that was deleted a moment ago must not log in once more.
            Ok(_) => {
                _turn = queues.known.next(source).await?;
                self.directory.current().await?
            }
            // One that was just named should. It takes no turn from those whom this replica knows.
            Err(why) if may_change(why) => {
                _place = queues.unknown.take(source)?;
                self.directory.looked().await?
            }
            Err(why) => return Err(nobody(why)),
        };
        let proved = match trusted(&snapshot, &shown) {
            Some(issuer) => match self.keys_asking(&shown, issuer, &snapshot).await {
                Ok(keys) => {
                    let now = OffsetDateTime::now_utc();
                    self.in_turn(source, || oidc_token::prove(&shown, issuer, &keys, &snapshot, now)).await?
                }
                Err(why) => Err(why),
            },
            None if snapshot.generation == known.generation => proved,
            None => self.in_turn(source, || self.prove_account(&shown, &snapshot)).await?,
        };
        let Proved { agent, source, ends_at } = proved.map_err(nobody)?;
        if let Source::Account(AccountToken { jti, iss, .. }) | Source::Oidc(OidcToken { jti, iss, .. }) = &source {
            trail.object("token", format_args!("{jti} of {iss}"));
        }
        trail.source(&source);
        self.name(agent, trail);
        self.grant(&snapshot, agent, source, Some(ends_at), None).map_err(|fault| match fault.code {
            Code::Unauthenticated => nobody("its agent is suspended, or is there no more"),
            _ => fault,
        })
    }

    fn prove_account(&self, shown: &SubjectToken<'_>, snapshot: &Snapshot) -> Result<Proved, Why> {
        shown.prove(snapshot, &self.tokens.audience(), OffsetDateTime::now_utc())
    }

    /// By the keys of its issuer that are known: nobody is asked for them here.
    fn prove_oidc(&self, shown: &SubjectToken<'_>, issuer: &TrustedIssuer, snapshot: &Snapshot) -> Result<Proved, Why> {
        let now = OffsetDateTime::now_utc();
        oidc_token::may_be_of(shown, issuer, now)?;
        let keys = self.issuer_keys.as_ref().and_then(|keys| keys.known(issuer)).ok_or(NO_KEYS)?;
        oidc_token::prove(shown, issuer, &keys, snapshot, now)
    }

    /// The keys to prove it by, where its issuer is asked for keys that are old or not known. Nobody is asked for what can't be that issuer's.
    async fn keys_asking(
        &self,
        shown: &SubjectToken<'_>,
        issuer: &TrustedIssuer,
        snapshot: &Snapshot,
    ) -> Result<Arc<Issuer>, Why> {
        oidc_token::may_be_of(shown, issuer, OffsetDateTime::now_utc())?;
        self.issuer_keys.as_ref().ok_or(NO_KEYS)?.for_key(issuer, shown.kid(), snapshot).await
    }

    /// What checks a signature. One is checked at a time, so that strangers with invented ones keep this machine busy only beside its other work.
    async fn in_turn<T>(&self, source: IpAddr, check: impl FnOnce() -> T) -> Result<T, Fault> {
        let _turn = self.queues.signatures.next(source).await?;
        Ok(check())
    }

    /// New tokens for a refresh token that this source shows. The trail has whose it was where it is refused for more than being unknown.
    pub async fn refresh(&self, refresh_token: &str, source: IpAddr, trail: &Trail) -> Result<Grant, Fault> {
        if refresh_token.len() > MAX_CREDENTIAL_BYTES {
            return Err(refused());
        }
        // Derived, so that every replica gives the same successor, and none stores it.
        let successor = format_token(&keyed(self.tokens.keyring().refresh(), refresh_token.as_bytes()));
        let _turn = self.queues.tokens.next(source).await?;
        match self.store.rotate_refresh(hash(refresh_token), hash(&successor)).await? {
            Rotation::Successor { agent, key, expires_at } => {
                let snapshot = self.directory.current().await?;
                self.grant(&snapshot, agent, Source::ApiKey(key), None, Some(RefreshToken { text: successor, expires_at }))
            }
            Rotation::KeyGone { agent } => {
                self.name(agent, trail);
                Err(Fault::new(
                    Code::Unauthenticated,
                    "API_KEY_GONE",
                    "the API key that this refresh token came from was removed or replaced: exchange the key that the agent's Secret holds now",
                ))
            }
            Rotation::Reused { agent } => {
                tracing::warn!(agent_id = %agent, "a refresh token was used again: its family is revoked");
                self.name(agent, trail);
                trail.revoked("one was used again");
                Err(refused())
            }
            Rotation::Refused => Err(refused()),
        }
    }

    /// Revokes the family of a refresh token that this source shows. Succeeds for unknown ones, too.
    pub async fn revoke(&self, refresh_token: &str, source: IpAddr, trail: &Trail) -> Result<(), Fault> {
        if refresh_token.len() > MAX_CREDENTIAL_BYTES {
            return Ok(());
        }
        let _turn = self.queues.tokens.next(source).await?;
        if let Some(agent) = self.store.revoke_refresh(hash(refresh_token)).await? {
            self.name(agent, trail);
            trail.revoked("as was asked for");
        }
        Ok(())
    }

    /// An agent that is not there any more has its UID, and no name.
    fn name(&self, agent: AgentId, trail: &Trail) {
        let snapshot = self.directory.directory().snapshot();
        trail.agent(agent, snapshot.agent(agent).map_or("", |agent| &agent.name));
    }

    fn grant(
        &self,
        snapshot: &Snapshot,
        agent: AgentId,
        source: Source,
        until: Option<OffsetDateTime>,
        refresh: Option<RefreshToken>,
    ) -> Result<Grant, Fault> {
        let agent = snapshot.agent(agent).filter(|agent| !agent.suspended && !snapshot.suspended).ok_or_else(refused)?;
        let now = OffsetDateTime::now_utc();
        let (generation, epoch) = (snapshot.generation, snapshot.credential_epoch);
        let grounds = Grounds { source: Some(source.clone()), until, generation, epoch };
        let (access_token, access_expires_at) = self.tokens.issue(agent, grounds, now)?;
        if let Some(credential) = source.credential() {
            self.uses.note(&credential);
        }
        Ok(Grant { access_token, access_expires_at, refresh, agent: agent.id, agent_name: agent.name.clone(), source })
    }
}

/// The OpenID Connect issuer that a token says to be of. What the cluster issued is its own, whoever else is trusted under that name.
fn trusted<'a>(snapshot: &'a Snapshot, shown: &SubjectToken<'_>) -> Option<&'a TrustedIssuer> {
    let now = OffsetDateTime::now_utc();
    let is_clusters = snapshot.issuer.as_ref().is_some_and(|issuer| issuer.is_named(shown.issuer(), now));
    snapshot.trusted_issuers.get(shown.issuer()).filter(|_| !is_clusters).map(|issuer| &**issuer)
}

/// The one answer to every credential that is not good.
fn refused() -> Fault {
    Fault::new(
        Code::Unauthenticated,
        "CREDENTIAL_REFUSED",
        "the credential is unknown, expired or revoked, or its agent is suspended: see the Agent resource and the Secret of its API key",
    )
}

/// The same for tokens of other issuers.
fn subject_refused() -> Fault {
    Fault::new(
        Code::Unauthenticated,
        "SUBJECT_TOKEN_REFUSED",
        "the token proves no agent here: it has to be of a ServiceAccount that an Agent of its namespace names, for the audience acb:<tenant id> \
         alone, or of an OpenID Connect issuer in the Tenant's spec.auth.oidc, and valid; the hub's log has why it is not",
    )
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, AtomicUsize, Ordering},
        time::Duration,
    };

    use async_trait::async_trait;
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::{Value, json};
    use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

    use super::*;
    use crate::{
        directory::{
            refresher::LOOKS_APART,
            snapshot::{Directory, DirectoryStore, KnownKey},
            trusted_issuer::IssuerTerms,
        },
        door::{
            access_token::tests::keyring,
            api_key::StoredKey,
            credential::{Credential, CredentialOwner},
            issuer_keys::KeySource,
            ports::CredentialUse,
            refresh_token::TokenHash,
        },
        metrics::oidc::OidcMetrics,
    };

    /// Answers nobody until it is let, and knows no credential.
    struct Slow {
        may_answer: Semaphore,
        asked: AtomicUsize,
        /// Of the directory, which answers at once.
        generation: AtomicU64,
        looks: AtomicUsize,
    }

    impl Default for Slow {
        fn default() -> Self {
            let (generation, looks) = (AtomicU64::new(1), AtomicUsize::new(0));
            Self { may_answer: Semaphore::new(0), asked: AtomicUsize::new(0), generation, looks }
        }
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
        async fn revoke_refresh(&self, _: TokenHash) -> Result<Option<AgentId>, Fault> {
            self.answer(None).await
        }
        async fn note_uses(&self, _: &[CredentialUse]) -> Result<(), Fault> {
            self.answer(()).await
        }
        async fn credentials(&self, _: CredentialOwner<'_>, _: Option<(&str, &str)>, _: u32) -> Result<Vec<Credential>, Fault> {
            self.answer(Vec::new()).await
        }
    }

    #[async_trait]
    impl DirectoryStore for Slow {
        async fn generation(&self) -> Result<u64, Fault> {
            self.looks.fetch_add(1, Ordering::SeqCst);
            Ok(self.generation.load(Ordering::SeqCst))
        }
        async fn load(&self) -> Result<Snapshot, Fault> {
            let generation = self.generation.load(Ordering::SeqCst);
            let mut snapshot = Snapshot::new(generation, Vec::new(), Vec::new());
            let agent = AgentId(Uuid::nil());
            // A key for each generation, and those before.
            for number in 1..=generation {
                snapshot.api_keys.insert(format!("known{number}"), KnownKey { agent, expires_at: None });
            }
            for url in [SILENT, HEALTHY] {
                let (audiences, agent) = (vec!["acb".to_owned()], "claims.sub".to_owned());
                let terms = IssuerTerms { url: url.to_owned(), audiences, agent, ..IssuerTerms::default() };
                snapshot.trusted_issuers.insert(url.to_owned(), Arc::new(TrustedIssuer::new(terms).unwrap()));
            }
            Ok(snapshot)
        }
    }

    const SILENT: &str = "https://silent.example";
    const HEALTHY: &str = "https://healthy.example";

    /// One of two issuers answers.
    struct Issuers;

    #[async_trait]
    impl KeySource for Issuers {
        async fn keys(&self, issuer: &IssuerTerms) -> Result<Value, String> {
            if issuer.url == SILENT {
                std::future::pending::<()>().await;
            }
            Ok(json!({"keys": []}))
        }
    }

    async fn authority(store: &Arc<Slow>) -> Authority {
        let refresher = Arc::new(Refresher::new(Directory::default(), store.clone()));
        refresher.current().await.unwrap();
        Authority::new(Tokens::new("acme", "0011", keyring(1)), store.clone(), refresher)
    }

    /// One that calls.
    fn source(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// What one source gets of so many places.
    fn share(places: usize) -> usize {
        places.div_ceil(2)
    }

    #[tokio::test]
    async fn strangers_ask_the_store_two_at_a_time_and_a_crowd_of_one_source_holds_its_share() {
        let store = Arc::new(Slow::default());
        let authority = authority(&store).await;
        let calls_of = |calls: &mut JoinSet<_>, count: usize, from: IpAddr| {
            for number in 0..count {
                let authority = authority.clone();
                calls.spawn(async move {
                    let answer = match number % 2 {
                        0 => authority.refresh("acbr_x", from, &Trail::default()).await.map(drop),
                        _ => authority.revoke("acbr_x", from, &Trail::default()).await,
                    };
                    answer.map_or_else(|fault| fault.reason, |()| "fine")
                });
            }
        };
        let mut crowd = JoinSet::new();
        calls_of(&mut crowd, AT_ONE_TIME + MAX_WAITING + 10, source(1));
        for _ in 0..AT_ONE_TIME + MAX_WAITING + 10 - share(AT_ONE_TIME + MAX_WAITING) {
            assert_eq!(crowd.join_next().await.unwrap().unwrap(), "TOO_MANY_LOGINS");
        }
        tokio::task::yield_now().await;
        assert_eq!(store.asked.load(Ordering::SeqCst), AT_ONE_TIME);
        // Others find their places beside it, and are not behind all of it.
        let mut others = JoinSet::new();
        calls_of(&mut others, 100, source(2));
        tokio::task::yield_now().await;
        store.may_answer.add_permits(1);
        while let Some(answer) = others.join_next().await {
            assert!(["CREDENTIAL_REFUSED", "fine"].contains(&answer.unwrap()));
        }
        let before = store.asked.load(Ordering::SeqCst);
        assert!(before < 100 + share(MAX_WAITING) / 2, "{before}: sources take turns");
        while let Some(answer) = crowd.join_next().await {
            assert!(["CREDENTIAL_REFUSED", "fine"].contains(&answer.unwrap()));
        }
        assert_eq!(store.asked.load(Ordering::SeqCst), share(AT_ONE_TIME + MAX_WAITING) + 100);
    }

    #[tokio::test]
    async fn invented_keys_cost_a_look_that_all_share_and_a_key_that_was_just_made_logs_in() {
        let store = Arc::new(Slow::default());
        store.may_answer.add_permits(1);
        let authority = authority(&store).await;
        let (began, before) = (Instant::now(), store.looks.load(Ordering::SeqCst));
        for round in 0..20 {
            let mut strangers = JoinSet::new();
            for number in 0..500 {
                let authority = authority.clone();
                let key = format!("acb_invented{number}_key");
                strangers.spawn(async move { authority.exchange(&key, source(round)).await.unwrap_err().reason });
            }
            let mut refused = 0;
            while let Some(answer) = strangers.join_next().await {
                refused += usize::from(answer.unwrap() == "CREDENTIAL_REFUSED");
            }
            assert!(refused >= share(MAX_WAITING), "{refused}: the others are too many of one source");
        }
        assert_eq!(store.asked.load(Ordering::SeqCst), 0, "the store is asked about none of them");
        let looks = store.looks.load(Ordering::SeqCst) - before;
        let most = 1 + began.elapsed().div_duration_f64(LOOKS_APART).ceil() as usize;
        assert!((1..=most).contains(&looks), "{looks} looks");
        // Nobody told this replica of it.
        store.generation.store(2, Ordering::SeqCst);
        assert_eq!(authority.exchange("acb_known2_key", source(1)).await.unwrap_err().reason, "CREDENTIAL_REFUSED");
        assert_eq!(store.asked.load(Ordering::SeqCst), 1, "it is looked at");
    }

    #[tokio::test]
    async fn invented_keys_keep_nobody_from_logging_in_whose_key_is_known() {
        let store = Arc::new(Slow::default());
        let authority = authority(&store).await;
        let strangers: Vec<_> = (0..MAX_WAITING)
            .map(|_| {
                let authority = authority.clone();
                tokio::spawn(async move { authority.exchange("acb_invented_key", source(1)).await })
            })
            .collect();
        let known = authority.exchange("acb_known1_key", source(1));
        tokio::pin!(known);
        assert!(futures::poll!(&mut known).is_pending());
        assert_eq!(store.asked.load(Ordering::SeqCst), 1, "it stands behind none of them");
        store.may_answer.add_permits(1);
        assert_eq!(known.await.unwrap_err().reason, "CREDENTIAL_REFUSED");
        for stranger in strangers {
            stranger.await.unwrap().unwrap_err();
        }
    }

    #[tokio::test]
    async fn who_waits_for_one_issuer_holds_up_nobody_of_another() {
        let store = Arc::new(Slow::default());
        let authority = authority(&store).await.with_issuer_keys(IssuerKeys::new(Arc::new(Issuers), OidcMetrics::default()));
        let token = |iss: &str| {
            let now = OffsetDateTime::now_utc().unix_timestamp();
            let claims = json!({"iss": iss, "aud": "acb", "sub": "ada", "exp": now + 600, "iat": now, "jti": "j"});
            let parts = [json!({"alg": "RS256", "kid": "invented"}).to_string(), claims.to_string(), "s".repeat(256)];
            parts.map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".")
        };
        let exchanged = |token: String| {
            let authority = authority.clone();
            async move {
                let shown = (token.as_str(), TOKEN_TYPE);
                authority.exchange_subject(shown, source(1), &Trail::default()).await.unwrap_err().reason
            }
        };
        let mut waiting = JoinSet::new();
        for _ in 0..MAX_WAITING {
            waiting.spawn(exchanged(token(SILENT)));
        }
        for _ in 0..MAX_WAITING - share(MAX_WAITING) {
            assert_eq!(waiting.join_next().await.unwrap().unwrap(), "TOO_MANY_LOGINS");
        }
        let answered = tokio::time::timeout(Duration::from_secs(10), exchanged(token(HEALTHY)));
        assert_eq!(answered.await.expect("it waits for an issuer that is another's"), "SUBJECT_TOKEN_REFUSED");
        assert_eq!(waiting.len(), share(MAX_WAITING));
    }
}
