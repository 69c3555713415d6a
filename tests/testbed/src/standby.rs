//! A second PostgreSQL that follows another one, and can be behind it when it takes over.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use acb_operator::local_postgres::{LocalPostgres, LocalPostgresOptions};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::Postgres;

const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A hot standby by streaming replication. Ends with this value.
#[derive(Debug)]
pub struct Standby {
    server: LocalPostgres,
    primary: PgConnectOptions,
}

impl Standby {
    /// A copy of what the primary has now, which follows it.
    pub async fn of(primary: &Postgres) -> Self {
        let folder = tempfile::Builder::new().prefix("acb-pg-standby-").tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // The server's watchdog removes it, also where this process is killed.
        let folder = folder.keep();
        let superuser = primary.superuser_options();
        let mut connection = primary.superuser().await;
        let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut connection).await.unwrap();
        let password = std::fs::read_to_string(Path::new(&data).with_file_name("superuser-password")).unwrap();
        std::fs::write(folder.join("superuser-password"), &password).unwrap();
        copy(primary.server(), password.trim(), &folder.join("data")).await;
        let options = LocalPostgresOptions {
            fsync: false,
            ephemeral: true,
            settings: vec![("max_connections".to_owned(), "200".to_owned())],
            ..LocalPostgresOptions::new(folder)
        };
        let server = LocalPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"));
        Self { server, primary: superuser }
    }

    /// Its port on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    fn superuser_options(&self) -> PgConnectOptions {
        self.primary.clone().port(self.port())
    }

    /// Waits until it has all that the primary has, and lets nothing more in: from now on it is behind.
    pub async fn fall_behind(&self) {
        let mut primary = PgConnection::connect_with(&self.primary).await.unwrap();
        let at: String = sqlx::query_scalar("SELECT pg_current_wal_lsn()::text").fetch_one(&mut primary).await.unwrap();
        self.until(&format!("SELECT pg_last_wal_replay_lsn() >= '{at}'")).await;
        let mut standby = PgConnection::connect_with(&self.superuser_options()).await.unwrap();
        sqlx::query("ALTER SYSTEM SET primary_conninfo = ''").execute(&mut standby).await.unwrap();
        sqlx::query("SELECT pg_reload_conf()").execute(&mut standby).await.unwrap();
        self.until("SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)").await;
    }

    /// Takes over, with what it has.
    pub async fn promote(&self) {
        let mut standby = PgConnection::connect_with(&self.superuser_options()).await.unwrap();
        sqlx::query("SELECT pg_promote()").execute(&mut standby).await.unwrap();
        self.until("SELECT NOT pg_is_in_recovery()").await;
    }

    async fn until(&self, condition: &str) {
        let deadline = Instant::now() + DEADLINE;
        let mut standby = PgConnection::connect_with(&self.superuser_options()).await.unwrap();
        loop {
            let holds: bool =
                sqlx::query_scalar(sqlx::AssertSqlSafe(condition.to_owned())).fetch_one(&mut standby).await.unwrap();
            if holds {
                return;
            }
            assert!(Instant::now() < deadline, "the standby: not {condition}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A base backup, for the user that the server runs as.
async fn copy(primary: &LocalPostgres, password: &str, to: &Path) {
    let program = format!("/usr/lib/postgresql/{}/bin/pg_basebackup", primary.major());
    let mut backup = Command::new(program);
    backup.env("PGPASSWORD", password).args(["-h", primary.host(), "-U", "postgres", "-X", "stream", "-c", "fast", "-R", "-p"]);
    backup.arg(primary.port().to_string()).arg("-D").arg(to);
    run(backup).await;
    if rustix::process::geteuid().is_root() {
        let mut own = Command::new("chown");
        own.args(["-R", "postgres:"]).arg(to);
        run(own).await;
    }
}

async fn run(mut command: Command) {
    let (output, command) = tokio::task::spawn_blocking(move || (command.output(), command)).await.unwrap();
    let output = output.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
