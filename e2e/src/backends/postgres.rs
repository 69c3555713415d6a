//! A PostgreSQL that can be stopped, started again, and lost.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use acb_operator::local_postgres::{LocalPostgres, LocalPostgresOptions};
use tempfile::TempDir;

use crate::{
    authority::Authority,
    error::{Error, Result, at, wrong},
    place::Place,
};

/// It keeps its port and its superuser's password, whatever happens to it.
pub(super) struct Postgres {
    server: Option<LocalPostgres>,
    options: LocalPostgresOptions,
    /// Where `scripts/postgres17` puts its binaries.
    seventeen: PathBuf,
    pub(super) ca: String,
    _folder: TempDir,
}

impl Postgres {
    /// Prepares it; starts nothing.
    pub(super) fn new(place: &Place, host: IpAddr) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("acb-e2e-postgres-").tempdir().map_err(at("a temporary folder"))?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(at(folder.path()))?;
        let authority = Authority::new("acb-e2e-postgres")?;
        let tls = folder.path().join("tls");
        authority.server("postgres", &["localhost"], &[host])?.write(&tls, "server")?;
        let rules = tls.join("pg_hba.conf");
        // Who is not on this machine speaks TLS.
        let text = format!(
            "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\nhostssl all all {host}/24 scram-sha-256\n"
        );
        fs::write(&rules, text).map_err(at(&rules))?;
        if rustix::process::geteuid().is_root() {
            let (uid, gid) = postgres_user()?;
            for file in [tls.clone(), tls.join("server.crt"), tls.join("server.key"), rules.clone()] {
                chown(&file, Some(uid), Some(gid)).map_err(at(&file))?;
            }
        }
        let setting = |name: &str, value: String| (name.to_owned(), value);
        let settings = vec![
            setting("listen_addresses", format!("127.0.0.1,{host}")),
            setting("max_connections", "200".to_owned()),
            setting("ssl", "on".to_owned()),
            setting("ssl_min_protocol_version", "TLSv1.3".to_owned()),
            setting("ssl_cert_file", tls.join("server.crt").display().to_string()),
            setting("ssl_key_file", tls.join("server.key").display().to_string()),
            setting("hba_file", rules.display().to_string()),
        ];
        // Without `ephemeral`: the folder goes with its owner.
        let options = LocalPostgresOptions { fsync: false, settings, ..LocalPostgresOptions::new(folder.path().join("state")) };
        let seventeen = place.root.join("target/testbed/pg17/bin");
        Ok(Self { server: None, options, seventeen, ca: authority.pem(), _folder: folder })
    }

    pub(super) async fn start(&mut self) -> Result<()> {
        let port = self.server.is_none().then(|| self.kept_port()).flatten();
        let server = LocalPostgres::start(self.options.clone()).await.map_err(|error| Error::Wrong(error.to_string()))?;
        if let Some(port) = port.filter(|port| *port != server.port()) {
            return wrong(format!("somebody took port {port} while PostgreSQL was away"));
        }
        self.server = Some(server);
        Ok(())
    }

    pub(super) async fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
    }

    /// Ends it, removes all that it held, and starts an empty one.
    pub(super) async fn lose(&mut self, version: Option<&str>) -> Result<()> {
        self.stop().await;
        let data = self.options.state_dir.join("data");
        fs::remove_dir_all(&data).map_err(at(&data))?;
        if version.is_some() {
            if !self.seventeen.join("postgres").exists() {
                return Err(Error::Missing("PostgreSQL 17 is missing: run scripts/postgres17".to_owned()));
            }
            self.options.bin_dir = Some(self.seventeen.clone());
        }
        self.start().await
    }

    pub(super) fn log(&self) -> PathBuf {
        self.options.state_dir.join("postgres.log")
    }

    fn kept_port(&self) -> Option<u16> {
        fs::read_to_string(self.options.state_dir.join("port")).ok()?.trim().parse().ok()
    }

    pub(super) fn running(&self) -> Result<&LocalPostgres> {
        self.server.as_ref().ok_or_else(|| Error::Wrong("PostgreSQL does not run".to_owned()))
    }

    pub(super) fn superuser_password(&self) -> Result<String> {
        let path = self.options.state_dir.join("superuser-password");
        Ok(fs::read_to_string(&path).map_err(at(&path))?.trim().to_owned())
    }
}

/// PostgreSQL refuses to run as root, and reads no key of another user.
fn postgres_user() -> Result<(u32, u32)> {
    let path = Path::new("/etc/passwd");
    let users = fs::read_to_string(path).map_err(at(path))?;
    let fields = users.lines().find_map(|line| line.strip_prefix("postgres:")).map(|rest| rest.split(':').collect::<Vec<_>>());
    match fields.as_deref() {
        Some([_, uid, gid, ..]) => match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok((uid, gid)),
            _ => wrong("/etc/passwd has no numbers for the user postgres"),
        },
        _ => wrong("there is no user postgres: scripts/install-dependencies build"),
    }
}
