//! PostgreSQL in one leader's term: claimed at the first use, which fences every earlier leader, and brought up to date. A password that
//! is replaced in its file is taken up.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::sync::OnceCell;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::config::Config;
use crate::{
    bootstrap::{self, MigrateError},
    effect::{
        EffectError, SecretReader,
        kafka_access::Announcer,
        postgres::{PostgresEffect, failed},
    },
    reconcile::runtime::Database,
    tenant::fetch::PostgresReader,
};

/// What was not to be had a moment ago is not asked for by every tenancy in turn.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);
/// The files of credentials are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// PostgreSQL, for one term.
pub(super) struct Claim {
    config: Arc<Config>,
    pool: PgPool,
    holder: String,
    secrets: Arc<dyn SecretReader>,
    claimed: OnceCell<Database>,
    failed: Mutex<Option<(Instant, EffectError)>>,
    password: Mutex<(Instant, Zeroizing<String>)>,
}

impl Claim {
    /// Connects to nothing yet. `holder` says who, for people.
    pub(super) fn new(config: Arc<Config>, holder: &str, secrets: Arc<dyn SecretReader>) -> Result<Self, EffectError> {
        let login = config.operator_login().map_err(|error| EffectError::refused("the operator's configuration", error))?;
        let connections = u32::try_from(config.concurrency).unwrap_or(4) + 2;
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(0)
            .idle_timeout(Duration::from_secs(120))
            .acquire_timeout(ACQUIRE_WITHIN)
            .connect_lazy_with(login);
        let password = config.operator_password().map_err(|error| EffectError::refused("the operator's configuration", error))?;
        Ok(Self {
            config,
            pool,
            holder: holder.to_owned(),
            secrets,
            claimed: OnceCell::new(),
            failed: Mutex::new(None),
            password: Mutex::new((Instant::now(), password)),
        })
    }

    /// PostgreSQL, claimed for this term.
    pub(super) async fn database(&self) -> Result<Database, EffectError> {
        self.look_at_password();
        if let Some((at, error)) = &*self.failed.lock().unwrap_or_else(PoisonError::into_inner)
            && at.elapsed() < AGAIN_AFTER
        {
            return Err(error.clone());
        }
        let claimed = self.claimed.get_or_try_init(|| self.claim()).await.cloned();
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) =
            claimed.as_ref().err().map(|error| (Instant::now(), error.clone()));
        claimed
    }

    async fn claim(&self) -> Result<Database, EffectError> {
        let epoch = bootstrap::claim_leadership(&self.pool, &self.holder)
            .await
            .map_err(|error| failed("claiming leadership (was `acb bootstrap` run?)", &error))?;
        let version = bootstrap::migrate(&self.pool, epoch).await.map_err(|error| match &error {
            MigrateError::Failed { source, .. } | MigrateError::Unreadable(source) => failed(&error.to_string(), source),
            MigrateError::Newer { .. } => EffectError::refused("PostgreSQL", &error),
        })?;
        info!(epoch = epoch.0, version, "PostgreSQL is claimed, its schema current");
        let mut effect = PostgresEffect::new(self.pool.clone(), epoch, Arc::clone(&self.secrets));
        if let Some(kafka) = &self.config.kafka {
            effect = effect.with_announcer(Arc::new(Announcer::new(kafka.clone())));
        }
        Ok(Database { reader: PostgresReader { pool: self.pool.clone(), tenants: self.config.tenant_login() }, effect })
    }

    fn look_at_password(&self) {
        let mut known = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0.elapsed() < LOOK_EVERY {
            return;
        }
        known.0 = Instant::now();
        match self.config.operator_password().and_then(|password| Ok((self.config.operator_login()?, password))) {
            Ok((login, password)) if password != known.1 => {
                info!("PostgreSQL's password was replaced");
                self.pool.set_connect_options(login);
                known.1 = password;
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "the login to PostgreSQL can't be read; the one before is used"),
        }
    }

    /// No connection is left behind.
    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
