//! When each credential was last used: noted in memory where a token is issued, and written behind that. No login waits for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::ports::{CredentialStore, CredentialUse};

/// Between two looks at what is to be written.
const EVERY: Duration = Duration::from_secs(5);
/// A credential's use is not written more often.
const AT_MOST_EVERY: Duration = Duration::from_secs(60);
/// More than a tenant has credentials. Only those are noted that proved somebody.
const MAX_NOTED: usize = 20_000;

/// The uses that this replica saw. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct CredentialUses(Arc<Mutex<HashMap<String, Noted>>>);

#[derive(Clone, Copy, Debug)]
struct Noted {
    used: Instant,
    /// The use that was written last, and when.
    written: Option<(Instant, Instant)>,
}

impl Noted {
    fn is_due(&self, now: Instant) -> bool {
        self.written.is_none_or(|(used, at)| used < self.used && now.duration_since(at) >= AT_MOST_EVERY)
    }

    /// Whether it says nothing any more that the next use would not say.
    fn is_over(&self, now: Instant) -> bool {
        self.written.is_some_and(|(used, at)| used == self.used && now.duration_since(at) >= AT_MOST_EVERY)
    }
}

impl CredentialUses {
    /// A credential was used now.
    pub(crate) fn note(&self, credential: &str) {
        let (now, mut noted) = (Instant::now(), self.lock());
        if let Some(noted) = noted.get_mut(credential) {
            noted.used = now;
        } else if noted.len() < MAX_NOTED {
            noted.insert(credential.to_owned(), Noted { used: now, written: None });
        }
    }

    /// Writes them, for as long as it is polled.
    pub async fn write(&self, store: &dyn CredentialStore) {
        loop {
            sleep(EVERY).await;
            self.write_once(store).await;
        }
    }

    /// Writes what is due. What can't be written is due again.
    async fn write_once(&self, store: &dyn CredentialStore) {
        let now = Instant::now();
        let due: Vec<(String, Instant)> = {
            let mut noted = self.lock();
            noted.retain(|_, noted| !noted.is_over(now));
            noted
                .iter()
                .filter(|(_, noted)| noted.is_due(now))
                .map(|(credential, noted)| (credential.clone(), noted.used))
                .collect()
        };
        if due.is_empty() {
            return;
        }
        let ago = |used: &Instant| now.duration_since(*used);
        let uses: Vec<_> = due.iter().map(|(name, used)| CredentialUse { credential: name.clone(), ago: ago(used) }).collect();
        if let Err(fault) = store.note_uses(&uses).await {
            tracing::warn!(%fault, credentials = uses.len(), "when credentials were last used is not written, and tried again");
            return;
        }
        let (at, mut noted) = (Instant::now(), self.lock());
        for (credential, used) in due {
            if let Some(noted) = noted.get_mut(&credential) {
                noted.written = Some((used, at));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::{
        directory::agent::AgentId,
        door::{
            api_key::StoredKey,
            credential::{Credential, CredentialOwner},
            refresh_token::{NewFamily, Rotation, TokenHash},
        },
        fault::Fault,
    };

    /// Keeps what was written, and can be away.
    #[derive(Default)]
    struct Kept {
        written: Mutex<Vec<(String, u64)>>,
        is_away: AtomicBool,
    }

    #[async_trait]
    impl CredentialStore for Kept {
        async fn api_key(&self, _: &str) -> Result<Option<StoredKey>, Fault> {
            Ok(None)
        }
        async fn insert_refresh(&self, _: TokenHash, _: &NewFamily) -> Result<(), Fault> {
            Ok(())
        }
        async fn rotate_refresh(&self, _: TokenHash, _: TokenHash) -> Result<Rotation, Fault> {
            Ok(Rotation::Refused)
        }
        async fn revoke_refresh(&self, _: TokenHash) -> Result<Option<AgentId>, Fault> {
            Ok(None)
        }
        async fn note_uses(&self, uses: &[CredentialUse]) -> Result<(), Fault> {
            if self.is_away.load(Ordering::SeqCst) {
                return Err(Fault::unavailable("AWAY", "it is away"));
            }
            self.written.lock().unwrap().extend(uses.iter().map(|used| (used.credential.clone(), used.ago.as_secs())));
            Ok(())
        }
        async fn credentials(&self, _: CredentialOwner<'_>, _: Option<(&str, &str)>, _: u32) -> Result<Vec<Credential>, Fault> {
            Ok(Vec::new())
        }
    }

    impl Kept {
        fn take(&self) -> Vec<(String, u64)> {
            std::mem::take(&mut *self.written.lock().unwrap())
        }
    }

    async fn later(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_use_is_written_behind_it_and_at_most_once_a_minute() {
        let (uses, store) = (CredentialUses::default(), Kept::default());
        let used = |ago: u64| vec![("k1".to_owned(), ago)];
        uses.note("k1");
        later(3).await;
        uses.write_once(&store).await;
        assert_eq!(store.take(), used(3));
        for _ in 0..11 {
            later(5).await;
            uses.note("k1");
            uses.write_once(&store).await;
        }
        assert_eq!(store.take(), [], "within a minute");
        // The last one is written all the same, once the minute is over.
        later(5).await;
        uses.write_once(&store).await;
        assert_eq!(store.take(), used(5));
        later(60).await;
        uses.write_once(&store).await;
        assert!(store.take().is_empty() && uses.lock().is_empty(), "nothing is held for good");
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_written_is_tried_again_and_no_more_is_held_than_there_may_be() {
        let (uses, store) = (CredentialUses::default(), Kept::default());
        store.is_away.store(true, Ordering::SeqCst);
        uses.note("k1");
        uses.write_once(&store).await;
        later(5).await;
        store.is_away.store(false, Ordering::SeqCst);
        uses.write_once(&store).await;
        assert_eq!(store.take(), [("k1".to_owned(), 5)]);
        for number in 0..2 * MAX_NOTED {
            uses.note(&number.to_string());
        }
        assert_eq!(uses.lock().len(), MAX_NOTED);
    }
}
