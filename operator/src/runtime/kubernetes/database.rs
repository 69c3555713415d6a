//! PostgreSQL in one leader's term: claimed at the first use, which fences every earlier leader, and brought up to date. A password that
//! is replaced in its file is taken up.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use acb_hub_pool::{Limits, Pool};
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
/// How long an answer may take: the operator's statements are short, and what is long is done in parts.
const PATIENCE: Duration = Duration::from_secs(20);
const IDLE: Duration = Duration::from_secs(120);
/// The files of credentials are looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// PostgreSQL, for one term.
pub(super) struct Claim {
    config: Arc<Config>,
    pool: Pool,
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
        let limits = Limits { connections: config.concurrency + 2, idle: IDLE, ..Limits::default() };
        let pool = Pool::new(login, limits).patient(PATIENCE);
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

    /// Whether it was claimed in this term.
    pub(super) fn is_claimed(&self) -> bool {
        self.claimed.initialized()
    }

    async fn claim(&self) -> Result<Database, EffectError> {
        let epoch = bootstrap::claim_leadership(&self.pool, &self.holder)
            .await
            .map_err(|error| failed("claiming leadership (was `acb bootstrap` run?)", &error))?;
        let version = bootstrap::migrate(&self.pool, epoch).await.map_err(|error| match &error {
            MigrateError::Failed { source, .. } | MigrateError::Unreadable(source) => failed(&error.to_string(), source),
            MigrateError::Newer { .. } => EffectError::refused("PostgreSQL", &error),
        })?;
        let mine = if self.config.kafka.is_some() { "kafka" } else { "postgres" };
        let kept = bootstrap::keep_bus(&self.pool, epoch, mine)
            .await
            .map_err(|error| failed("looking which kind of bus its tenants are on", &error))?;
        if kept != mine {
            let what = format!(
                "the tenants of this database are on the bus {kept}, and bus.kind is {mine}: set it back; nothing is moved from one to the other"
            );
            return Err(EffectError::refused("the operator's configuration", what));
        }
        info!(epoch = epoch.0, version, "PostgreSQL is claimed, its schema current");
        let mut effect = PostgresEffect::new(self.pool.clone(), epoch, Arc::clone(&self.secrets)).with_holder(&self.holder);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use std::{fs, process::Command};

    use acb_testbed::{Postgres, Version};
    use async_trait::async_trait;
    use tokio::time::{Instant as Clock, sleep};

    use super::*;
    use crate::{effect::SecretData, plan::SecretRef};

    struct NoSecrets;

    #[async_trait]
    impl SecretReader for NoSecrets {
        async fn read(&self, secret: &SecretRef) -> Result<SecretData, EffectError> {
            Err(EffectError::MissingSecret(secret.clone()))
        }
    }

    /// A configuration for a server, as the chart would mount it.
    fn folder(server: &Postgres, ssl_mode: &str, password: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let options = server.operator_options();
        let (host, port) = (options.get_host().to_owned(), options.get_port());
        let config = format!(
            "bus: {{kind: postgres}}\npostgres: {{host: {host}, port: {port}, database: acb, sslMode: {ssl_mode}}}\nhubImage: acb-hub:0\n"
        );
        fs::write(folder.path().join("config.yaml"), config).unwrap();
        fs::create_dir(folder.path().join("postgres")).unwrap();
        fs::write(folder.path().join("postgres/username"), "acb_operator").unwrap();
        fs::write(folder.path().join("postgres/password"), password).unwrap();
        folder
    }

    fn claim(folder: &tempfile::TempDir) -> Claim {
        let config = Config::load(&folder.path().join("config.yaml"), "acb-system").unwrap();
        Claim::new(Arc::new(config), "test", Arc::new(NoSecrets)).unwrap()
    }

    #[tokio::test]
    async fn a_wrong_password_is_named_and_mended_in_its_file() {
        let server = Postgres::start(Version::Installed).await;
        let folder = folder(&server, "prefer", "wrong");
        let claim = claim(&folder);
        let error = claim.database().await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("PostgreSQL refused") && text.contains("password authentication failed"), "{text}");
        assert!(!text.contains("wrong"), "no password is shown: {text}");

        let known = server.operator_password();
        fs::write(folder.path().join("postgres/password"), format!("{known}\n")).unwrap();
        let deadline = Clock::now() + LOOK_EVERY * 3;
        while let Err(error) = claim.database().await {
            assert!(Clock::now() < deadline, "not taken up: {error}");
            sleep(Duration::from_millis(200)).await;
        }
        claim.close().await;
    }

    #[tokio::test]
    async fn the_kind_of_bus_is_kept() {
        let server = Postgres::start(Version::Installed).await;
        let folder = folder(&server, "prefer", server.operator_password());
        let first = claim(&folder);
        first.database().await.unwrap();
        first.close().await;
        claim(&folder).database().await.unwrap();
        server.execute("UPDATE acb.schema_version SET bus_kind = 'kafka'").await;
        let error = claim(&folder).database().await.unwrap_err();
        assert!(!error.is_transient() && error.to_string().contains("on the bus kafka, and bus.kind is postgres"), "{error}");
    }

    #[tokio::test]
    async fn a_certificate_that_has_expired_is_named_and_a_good_one_heals() {
        let files = tempfile::tempdir().unwrap();
        fs::set_permissions(files.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let (certificate, key) = (files.path().join("server.crt"), files.path().join("server.key"));
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&authority.pem(), authority_key).unwrap();
        let server_key = rcgen::KeyPair::generate().unwrap();
        let write = |days: i64| {
            let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
            params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(9);
            params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(days);
            fs::write(&certificate, params.signed_by(&server_key, &issuer).unwrap().pem()).unwrap();
        };
        write(-1);
        fs::write(&key, server_key.serialize_pem()).unwrap();
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if rustix::process::geteuid().is_root() {
            // The server's key is its user's alone.
            let id =
                |flag: &str| String::from_utf8(Command::new("id").args([flag, "postgres"]).output().unwrap().stdout).unwrap();
            let (user, group) = (id("-u").trim().parse().unwrap(), id("-g").trim().parse().unwrap());
            std::os::unix::fs::chown(&key, Some(user), Some(group)).unwrap();
        }
        let text = |path: &std::path::Path| path.display().to_string();
        let (certificate_file, key_file) = (text(&certificate), text(&key));
        let settings = [("ssl", "on"), ("ssl_cert_file", certificate_file.as_str()), ("ssl_key_file", key_file.as_str())];
        let server = Postgres::start_with(Version::Installed, false, &settings).await;

        let folder = folder(&server, "verify-full", server.operator_password());
        fs::write(folder.path().join("postgres/ca.crt"), authority.pem()).unwrap();
        let claim = claim(&folder);
        let error = claim.database().await.unwrap_err();
        assert!(error.is_transient(), "time mends it, or someone elsewhere: {error}");
        assert!(error.to_string().contains("PostgreSQL") && error.to_string().contains("xpired"), "{error}");

        write(9);
        sqlx::raw_sql("SELECT pg_reload_conf()").execute(&mut server.superuser().await).await.unwrap();
        let deadline = Clock::now() + Duration::from_secs(30);
        while let Err(error) = claim.database().await {
            assert!(Clock::now() < deadline, "not healed: {error}");
            sleep(Duration::from_millis(200)).await;
        }
        claim.close().await;
    }
}
