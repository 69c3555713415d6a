//! The keys of OpenID Connect issuers: asked for when they are needed, kept for a while, and used a while longer where the issuer is away.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::subject_token::{NO_KEYS, Why};
use crate::{
    directory::{
        issuer::Issuer,
        snapshot::Snapshot,
        trusted_issuer::{IssuerTerms, TrustedIssuer},
    },
    metrics::oidc::OidcMetrics,
};

/// Keys that are older are asked for anew.
pub const FRESH: Duration = Duration::from_secs(5 * 60);
/// Keys that are older prove nobody, where the issuer gives no newer ones.
pub const USABLE: Duration = Duration::from_secs(60 * 60);
/// An issuer that was asked, or that answered, is left alone for so long, whatever tokens name.
pub const FLOOR: Duration = Duration::from_secs(10);
/// A login whose key is known, and old, waits no longer for the answer of its issuer. Were it not to wait at all, the first login after a quiet hour would
/// be by keys that the issuer gave up long ago.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Asks issuers for their keys.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// The JSON Web Key Set of an issuer, or why there is none. It ends within seconds, and reads a bounded number of bytes.
    async fn keys(&self, issuer: &IssuerTerms) -> Result<Value, String>;
}

/// What is known of one issuer's keys.
#[derive(Clone, Debug, Default)]
struct Known {
    /// With when they were asked for.
    keys: Option<(Arc<Issuer>, Instant)>,
    /// When the issuer was asked last, or answered, whatever it was.
    asked_at: Option<Instant>,
    /// Of the last question: closed when it has ended, and since when it is on its way.
    question: Option<(watch::Receiver<()>, Instant)>,
}

impl Known {
    /// The keys, where they may still be used.
    fn usable(&self, now: Instant) -> Option<&Arc<Issuer>> {
        self.keys.as_ref().filter(|(_, at)| now.duration_since(*at) < USABLE).map(|(keys, _)| keys)
    }

    /// Whether a key of this name may be used without asking.
    fn is_fresh(&self, kid: &str, now: Instant) -> bool {
        self.keys.as_ref().is_some_and(|(keys, at)| now.duration_since(*at) < FRESH && keys.key(kid).is_some())
    }

    /// Whether the issuer may be asked again.
    fn may_ask(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.duration_since(at) >= FLOOR)
    }

    /// The question that is on its way, and since when.
    fn question(&self) -> Option<(watch::Receiver<()>, Instant)> {
        self.question.clone().filter(|(answered, _)| answered.has_changed().is_ok())
    }
}

#[derive(Debug)]
struct Entry {
    /// By which it was asked. By others the answer might be another one.
    terms: IssuerTerms,
    known: Mutex<Known>,
}

impl Entry {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The keys of all issuers that the tenant trusts. Clones share them.
#[derive(Clone)]
pub struct IssuerKeys {
    source: Arc<dyn KeySource>,
    entries: Arc<Mutex<HashMap<String, Arc<Entry>>>>,
    metrics: OidcMetrics,
}

impl fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerKeys").finish_non_exhaustive()
    }
}

impl IssuerKeys {
    /// None yet.
    #[must_use]
    pub fn new(source: Arc<dyn KeySource>, metrics: OidcMetrics) -> Self {
        Self { source, entries: Arc::default(), metrics }
    }

    /// The keys that are known, without asking.
    pub(crate) fn known(&self, trusted: &TrustedIssuer) -> Option<Arc<Issuer>> {
        let entry = self.entries().get(&trusted.terms().url).filter(|entry| entry.terms == *trusted.terms()).cloned()?;
        let known = entry.known();
        known.usable(Instant::now()).cloned()
    }

    /// The keys to look for one of this name in. The issuer is asked where they are old or have none of that name, and then not again for a while.
    pub(crate) async fn for_key(&self, trusted: &TrustedIssuer, kid: &str, snapshot: &Snapshot) -> Result<Arc<Issuer>, Why> {
        let entry = self.entry(trusted, snapshot);
        if let Some((mut answered, since)) = self.question(&entry, kid) {
            let serves = entry.known().usable(Instant::now()).is_some_and(|keys| keys.key(kid).is_some());
            // It never changes: it closes when the question has ended, in whatever way.
            if serves {
                let _ = timeout_at(since + PATIENCE, answered.changed()).await;
            } else {
                let _ = answered.changed().await;
            }
        }
        let known = entry.known();
        known.usable(Instant::now()).cloned().ok_or(NO_KEYS)
    }

    /// The question that a key of this name has to wait for: the one that is on its way, or a new one where the issuer may be asked.
    fn question(&self, entry: &Arc<Entry>, kid: &str) -> Option<(watch::Receiver<()>, Instant)> {
        let now = Instant::now();
        let mut known = entry.known();
        if known.is_fresh(kid, now) {
            return None;
        }
        if let Some(question) = known.question() {
            return Some(question);
        }
        if !known.may_ask(now) {
            return None;
        }
        let (asking, answered) = watch::channel(());
        known.asked_at = Some(now);
        known.question = Some((answered.clone(), now));
        let (keys, entry) = (self.clone(), entry.clone());
        // A task of its own: with the call of who asked first it would end when that one leaves, and a stranger who always leaves would keep all others from
        // the answer.
        tokio::spawn(async move {
            keys.ask(&entry, now).await;
            drop(asking);
        });
        Some((answered, now))
    }

    async fn ask(&self, entry: &Entry, began: Instant) {
        let url = entry.terms.url.as_str();
        let answer = self.source.keys(&entry.terms).await;
        let mut known = entry.known();
        // Once more: an issuer that needs long to fail would be asked again at once.
        known.asked_at = Some(Instant::now());
        match answer {
            Ok(jwks) => {
                known.keys = Some((Arc::new(Issuer::new(url, &jwks)), began));
                self.metrics.fetched(url);
            }
            Err(why) => {
                tracing::warn!(issuer = url, why, "the issuer does not say which keys it has");
                self.metrics.failed(url);
            }
        }
    }

    /// That of this issuer. Those of issuers that the tenant trusts no more are let go of.
    fn entry(&self, trusted: &TrustedIssuer, snapshot: &Snapshot) -> Arc<Entry> {
        let terms = trusted.terms();
        let mut entries = self.entries();
        entries.retain(|url, entry| snapshot.trusted_issuers.get(url).is_some_and(|issuer| *issuer.terms() == entry.terms));
        let entry =
            entries.entry(terms.url.clone()).or_insert_with(|| Arc::new(Entry { terms: terms.clone(), known: Mutex::default() }));
        Arc::clone(entry)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::json;
    use tokio::{
        sync::Semaphore,
        time::{advance, timeout},
    };

    use super::*;

    /// An issuer with keys of these names, that answers as often as it is let.
    #[derive(Default)]
    struct Answers {
        kids: Mutex<Option<Vec<&'static str>>>,
        asked: AtomicUsize,
        may_answer: Option<Semaphore>,
    }

    impl Answers {
        fn have(&self, kids: Option<&[&'static str]>) {
            *self.kids.lock().unwrap() = kids.map(<[_]>::to_vec);
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    #[async_trait]
    impl KeySource for Answers {
        async fn keys(&self, _: &IssuerTerms) -> Result<Value, String> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if let Some(may_answer) = &self.may_answer {
                may_answer.acquire().await.unwrap().forget();
            }
            let kids = self.kids.lock().unwrap().clone().ok_or("away")?;
            let modulus = BASE64_URL_SAFE_NO_PAD.encode([0xff; 256]);
            let keys: Vec<Value> = kids.iter().map(|kid| json!({"kid": kid, "kty": "RSA", "n": modulus, "e": "AQAB"})).collect();
            Ok(json!({"keys": keys}))
        }
    }

    fn trusted() -> TrustedIssuer {
        let terms =
            IssuerTerms { url: "https://issuer.example".to_owned(), agent: "claims.sub".to_owned(), ..IssuerTerms::default() };
        TrustedIssuer::new(terms).unwrap()
    }

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.trusted_issuers.insert(trusted().terms().url.clone(), Arc::new(trusted()));
        snapshot
    }

    /// Whether a key of this name is found, and how often the issuer was asked by then.
    async fn look(keys: &IssuerKeys, source: &Answers, kid: &str) -> (bool, usize) {
        let found = keys.for_key(&trusted(), kid, &snapshot()).await;
        (found.is_ok_and(|keys| keys.key(kid).is_some()), source.asked())
    }

    fn keys(source: &Arc<Answers>) -> IssuerKeys {
        IssuerKeys::new(source.clone(), OidcMetrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn an_issuer_is_asked_when_it_must_be_and_no_oftener() {
        let source = Arc::new(Answers::default());
        source.have(Some(&["one"]));
        let keys = keys(&source);
        assert!(keys.known(&trusted()).is_none());
        for _ in 0..100 {
            assert_eq!(look(&keys, &source, "one").await, (true, 1));
        }
        // Whatever strangers name: one question in ten seconds.
        for number in 0..1000 {
            assert_eq!(look(&keys, &source, &format!("invented-{number}")).await, (false, 1));
        }
        advance(FLOOR).await;
        source.have(Some(&["one", "two"]));
        assert_eq!(look(&keys, &source, "two").await, (true, 2));
        assert_eq!(look(&keys, &source, "one").await, (true, 2));
        // A key that the issuer gave up counts for as long as what was asked is fresh.
        source.have(Some(&["two"]));
        advance(FRESH - Duration::from_secs(1)).await;
        assert_eq!(look(&keys, &source, "one").await, (true, 2));
        advance(Duration::from_secs(1)).await;
        assert_eq!(look(&keys, &source, "one").await, (false, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_outlive_an_issuer_that_is_away_for_an_hour_and_no_longer() {
        let source = Arc::new(Answers::default());
        let keys = keys(&source);
        assert_eq!(look(&keys, &source, "one").await, (false, 1));
        source.have(Some(&["one"]));
        // It was asked just now.
        assert_eq!(look(&keys, &source, "one").await, (false, 1));
        advance(FLOOR).await;
        assert_eq!(look(&keys, &source, "one").await, (true, 2));
        source.have(None);
        advance(USABLE - Duration::from_secs(1)).await;
        assert_eq!(look(&keys, &source, "one").await, (true, 3));
        assert!(keys.known(&trusted()).is_some());
        advance(Duration::from_secs(1)).await;
        assert_eq!(look(&keys, &source, "one").await, (false, 3));
        assert!(keys.known(&trusted()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_takes_the_answer_from_nobody() {
        let source = Arc::new(Answers { may_answer: Some(Semaphore::new(0)), ..Answers::default() });
        source.have(Some(&["one"]));
        let keys = keys(&source);
        let stranger = timeout(Duration::from_millis(30), look(&keys, &source, "invented"));
        assert!(stranger.await.is_err(), "the issuer did not answer yet");
        source.may_answer.as_ref().unwrap().add_permits(1);
        assert_eq!(look(&keys, &source, "one").await, (true, 1));
        // Nor does a key that the issuer gave up count longer, where who asks first leaves each time.
        source.have(Some(&[]));
        advance(FRESH).await;
        assert!(timeout(Duration::from_millis(30), look(&keys, &source, "invented")).await.is_err());
        source.may_answer.as_ref().unwrap().add_permits(1);
        assert_eq!(look(&keys, &source, "one").await, (false, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_long_for_a_slow_issuer_whose_key_is_known() {
        let source = Arc::new(Answers { may_answer: Some(Semaphore::new(1)), ..Answers::default() });
        source.have(Some(&["one"]));
        let keys = keys(&source);
        assert_eq!(look(&keys, &source, "one").await, (true, 1));
        advance(FRESH).await;
        let began = Instant::now();
        let first = look(&keys, &source, "one");
        tokio::pin!(first);
        assert!(futures::poll!(&mut first).is_pending());
        // Who asked waits no longer than others.
        assert_eq!(first.await, (true, 2));
        assert_eq!(began.elapsed(), PATIENCE);
        assert_eq!(look(&keys, &source, "one").await, (true, 2));
        assert_eq!(began.elapsed(), PATIENCE, "it was waited for already");
        // Those whose key is not known all wait for the same answer.
        let unknown = look(&keys, &source, "two");
        tokio::pin!(unknown);
        assert!(futures::poll!(&mut unknown).is_pending());
        advance(FLOOR).await;
        assert!(futures::poll!(&mut unknown).is_pending());
        source.have(None);
        source.may_answer.as_ref().unwrap().add_permits(1);
        assert_eq!(unknown.await, (false, 2));
        // An issuer that took long to say nothing is left alone for a while, too.
        assert_eq!(look(&keys, &source, "one").await, (true, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn by_other_terms_an_issuer_is_asked_anew() {
        let source = Arc::new(Answers::default());
        source.have(Some(&["one"]));
        let keys = keys(&source);
        assert_eq!(look(&keys, &source, "one").await, (true, 1));
        let terms = IssuerTerms { authorities: Some("another".to_owned()), ..trusted().terms().clone() };
        let other = TrustedIssuer::new(terms).unwrap();
        assert!(keys.known(&other).is_none());
        let mut snapshot = snapshot();
        snapshot.trusted_issuers.insert(other.terms().url.clone(), Arc::new(TrustedIssuer::new(other.terms().clone()).unwrap()));
        keys.for_key(&other, "one", &snapshot).await.unwrap();
        assert_eq!(source.asked(), 2);
        assert!(keys.known(&trusted()).is_none(), "what was asked by the terms before is gone");
    }
}
