//! Which of two passwords a store takes. While one is replaced, every replica has the new one and the one before, and the store takes one of
//! them: a hub begins with the new one, falls back to the one before, and goes over as soon as the new one is taken. What is connected
//! stays connected.

use std::{fmt, sync::Arc, time::Duration};

use acb_hub_bus::KafkaBus;
use acb_hub_core::directory::refresher::jittered;
use acb_hub_pool::Pool;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use crate::config::Replaced;

/// Between two tries. A store goes over when all replicas are there: what connects anew right after that is refused for so long. Each try
/// before it is a refused login at the store.
const EVERY: Duration = Duration::from_secs(2);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A store, as far as passwords go.
pub(crate) trait Gate: Send + Sync {
    /// For people.
    fn name(&self) -> &'static str;

    /// Whether the store takes this password now; an error: it did not say.
    fn is_taken(&self, password: &str) -> impl Future<Output = Result<bool, String>> + Send;

    /// What connects from now on uses this password.
    fn log_in_with(&self, password: &str) -> impl Future<Output = ()> + Send;
}

/// Follows the store from the one password to the other. Never ends.
pub(crate) async fn follow(gate: impl Gate, Replaced { new, previous }: Replaced) {
    let mut uses_previous = false;
    loop {
        match taken(&gate, &new).await {
            Ok(true) => {
                if uses_previous {
                    gate.log_in_with(&new).await;
                    tracing::info!(store = gate.name(), "the new password is taken, and used from now on");
                }
                break;
            }
            Ok(false) if !uses_previous => {
                if taken(&gate, &previous).await == Ok(true) {
                    gate.log_in_with(&previous).await;
                    uses_previous = true;
                    tracing::info!(store = gate.name(), "the new password is not taken yet: the one before is used");
                }
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(store = gate.name(), error, "which password is taken is not known"),
        }
        sleep(jittered(EVERY)).await;
    }
    std::future::pending().await
}

async fn taken(gate: &impl Gate, password: &str) -> Result<bool, String> {
    timeout(PATIENCE, gate.is_taken(password)).await.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
}

fn shown(error: impl fmt::Display) -> String {
    error.to_string()
}

/// PostgreSQL.
pub(crate) struct PostgresGate(pub(crate) Pool);

impl PostgresGate {
    fn with(&self, password: &str) -> PgConnectOptions {
        PgConnectOptions::clone(&self.0.connect_options()).password(password)
    }
}

impl Gate for PostgresGate {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    async fn is_taken(&self, password: &str) -> Result<bool, String> {
        match PgConnection::connect_with(&self.with(password)).await {
            Ok(connection) => {
                // Only the login was tried: an error while closing does not matter.
                let _ = connection.close().await;
                Ok(true)
            }
            Err(error) => match error.as_database_error().and_then(|error| error.code()).as_deref() {
                Some("28P01" | "28000") => Ok(false),
                // The limit is looked at after the password was found right.
                Some("53300") if error.to_string().contains("for role") => Ok(true),
                _ => Err(shown(error)),
            },
        }
    }

    async fn log_in_with(&self, password: &str) {
        self.0.set_connect_options(self.with(password));
    }
}

/// Kafka.
pub(crate) struct KafkaGate(pub(crate) Arc<KafkaBus>);

impl Gate for KafkaGate {
    fn name(&self) -> &'static str {
        "Kafka"
    }

    async fn is_taken(&self, password: &str) -> Result<bool, String> {
        self.0.is_taken(password).await.map_err(shown)
    }

    async fn log_in_with(&self, password: &str) {
        self.0.log_in_with(password).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A store that takes one password, and what was used for it.
    #[derive(Clone, Default)]
    struct Wood(Arc<Mutex<(String, Vec<String>)>>);

    impl Wood {
        fn takes(&self, password: &str) {
            self.0.lock().unwrap().0 = password.to_owned();
        }

        async fn until_used(&self, passwords: &[&str]) {
            let used = async {
                while self.0.lock().unwrap().1 != passwords {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(Duration::from_secs(60), used).await.unwrap();
        }
    }

    impl Gate for Wood {
        fn name(&self) -> &'static str {
            "wood"
        }

        async fn is_taken(&self, password: &str) -> Result<bool, String> {
            match self.0.lock().unwrap().0.as_str() {
                "" => Err("down".to_owned()),
                taken => Ok(taken == password),
            }
        }

        async fn log_in_with(&self, password: &str) {
            self.0.lock().unwrap().1.push(password.to_owned());
        }
    }

    fn passwords() -> Replaced {
        Replaced { new: "new".to_owned(), previous: "old".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_store_is_followed_from_the_one_password_to_the_other() {
        let store = Wood::default();
        let following = tokio::spawn(follow(store.clone(), passwords()));
        sleep(Duration::from_secs(5)).await;
        store.until_used(&[]).await;
        store.takes("old");
        store.until_used(&["old"]).await;
        store.takes("");
        sleep(Duration::from_secs(5)).await;
        store.takes("new");
        store.until_used(&["old", "new"]).await;
        assert!(!following.is_finished());
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_from_the_first_is_left_alone() {
        let store = Wood::default();
        store.takes("new");
        let following = tokio::spawn(follow(store.clone(), passwords()));
        sleep(Duration::from_secs(5)).await;
        store.takes("old");
        sleep(Duration::from_secs(5)).await;
        store.until_used(&[]).await;
        following.abort();
    }
}
