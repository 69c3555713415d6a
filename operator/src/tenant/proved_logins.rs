//! Logins that were tried, and worked. While a login's password and its version in the store are the same, it is not tried again for a day:
//! a version changes with whoever changes the login. Only in memory, and for one leader's term.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};

/// Tried again after so long, a quarter more or less by the password, so that they don't come at once: a version says nothing of who is let in
/// from where, and on Kafka it can be met by chance.
const HOLDS: Duration = Duration::from_secs(24 * 3600);
/// One of all tenants tries to log in to Kafka this often, whatever is known: only so it shows that the brokers let everyone in.
const SAMPLED_EVERY: Duration = Duration::from_secs(600);

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Store {
    /// PostgreSQL.
    Postgres,
    /// Kafka.
    Kafka,
}

impl Store {
    /// As people know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Kafka => "Kafka",
        }
    }
}

/// A password that is to be tried.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    store: Store,
    user: String,
    /// Of the password: it has as many random bits.
    digest: [u8; 32],
    version: u64,
}

impl Attempt {
    /// `version` is what the store had of the login before this: a change in between is then tried once too often, and never not at all. `None`
    /// where the store does not tell: what was tried is not remembered.
    pub(crate) fn new(store: Store, user: &str, password: &str, version: Option<u64>) -> Option<Self> {
        Some(Self { store, user: user.to_owned(), digest: Sha256::digest(password.as_bytes()).into(), version: version? })
    }

    /// Where.
    pub(crate) fn store(&self) -> Store {
        self.store
    }
}

#[derive(Clone, Copy, Debug)]
struct Proof {
    digest: [u8; 32],
    version: u64,
    until: Instant,
}

#[derive(Debug, Default)]
struct Inner {
    proofs: BTreeMap<(Store, String), Proof>,
    /// When Kafka was last logged in to.
    sampled: Option<Instant>,
}

/// What was proved.
#[derive(Debug, Default)]
pub struct ProvedLogins(Mutex<Inner>);

impl ProvedLogins {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it need not be tried.
    pub(crate) fn is_proved(&self, attempt: &Attempt, now: Instant) -> bool {
        let inner = self.inner();
        let is_sample = attempt.store == Store::Kafka
            && inner.sampled.is_none_or(|sampled| now.saturating_duration_since(sampled) >= SAMPLED_EVERY);
        let known = inner.proofs.get(&(attempt.store, attempt.user.clone()));
        !is_sample
            && known.is_some_and(|known| (known.digest, known.version) == (attempt.digest, attempt.version) && now < known.until)
    }

    /// It was tried: whether it works.
    pub(crate) fn tried(&self, attempt: Attempt, works: bool, now: Instant) {
        let mut inner = self.inner();
        if attempt.store == Store::Kafka {
            inner.sampled = Some(now);
        }
        // Those of tenants that are gone end here.
        inner.proofs.retain(|_, proof| now < proof.until);
        let Attempt { store, user, digest, version } = attempt;
        if works {
            let until = now + HOLDS.mul_f64(0.75 + 0.5 * f64::from(digest[0]) / 255.0);
            inner.proofs.insert((store, user), Proof { digest, version, until });
        } else {
            inner.proofs.remove(&(store, user));
        }
    }

    /// Every login of a store is to be tried again.
    pub(crate) fn forget(&self, store: Store) {
        self.inner().proofs.retain(|(of, _), _| *of != store);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn attempt(store: Store, user: &str, password: &str, version: u64) -> Attempt {
        Attempt::new(store, user, password, Some(version)).unwrap()
    }

    #[test]
    fn a_login_is_not_tried_again_until_something_of_it_is_another() {
        let (logins, now) = (ProvedLogins::default(), Instant::now());
        let acme = || attempt(Store::Postgres, "acb_t_1", "secret", 7);
        assert!(!logins.is_proved(&acme(), now));
        logins.tried(acme(), true, now);
        assert!(logins.is_proved(&acme(), now + Duration::from_secs(17 * 3600)));
        for other in [
            attempt(Store::Postgres, "acb_t_1", "another", 7),
            attempt(Store::Postgres, "acb_t_1", "secret", 8),
            attempt(Store::Postgres, "acb_t_2", "secret", 7),
            attempt(Store::Kafka, "acb_t_1", "secret", 7),
        ] {
            assert!(!logins.is_proved(&other, now), "{other:?}");
        }
        assert!(!logins.is_proved(&acme(), now + HOLDS + HOLDS / 4), "not for ever");
        logins.tried(acme(), false, now);
        assert!(!logins.is_proved(&acme(), now), "and not what was refused since");
        assert!(
            Attempt::new(Store::Postgres, "acb_t_1", "secret", None).is_none(),
            "a store that tells no version proves nothing"
        );
    }

    #[test]
    fn one_of_all_tenants_tries_kafka_every_ten_minutes() {
        let (logins, now) = (ProvedLogins::default(), Instant::now());
        let of = |n: u32| attempt(Store::Kafka, &format!("acb_t_{n}"), "secret", 5000);
        (0..10).for_each(|n| logins.tried(of(n), true, now));
        let mut tried = Vec::new();
        // Each is looked at once a minute, for an hour.
        for second in (0..3600).step_by(6) {
            let (n, at) = (second / 6 % 10, now + Duration::from_secs(u64::from(second)));
            if !logins.is_proved(&of(n), at) {
                tried.push(second);
                logins.tried(of(n), true, at);
            }
        }
        assert_eq!(tried, [600, 1200, 1800, 2400, 3000]);
        logins.forget(Store::Kafka);
        assert!(!logins.is_proved(&of(1), now + Duration::from_secs(3001)), "where one is let in to more than its own, all try");
    }

    #[test]
    fn what_is_kept_of_tenants_that_are_gone_ends() {
        let (logins, now) = (ProvedLogins::default(), Instant::now());
        (0..100).for_each(|n| logins.tried(attempt(Store::Postgres, &format!("acb_t_{n}"), "secret", 1), true, now));
        logins.tried(attempt(Store::Postgres, "acb_t_x", "secret", 1), true, now + 2 * HOLDS);
        assert_eq!(logins.inner().proofs.len(), 1);
    }
}
