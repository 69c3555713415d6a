//! PostgreSQL and Kafka beside the cluster, as a platform team has them: TLS, SCRAM, prepared by `acb bootstrap`. They end with the process
//! that started them, so they have one of their own: `acb-e2e backends`.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use acb_operator::{
    bootstrap::{self, Server},
    local_postgres::{LocalPostgres, LocalPostgresOptions},
};
use acb_testbed::{Kafka, KafkaListener};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    authority::Authority,
    error::{Error, Result, at, wrong},
    place::{Place, write_private},
    process::Daemon,
    state::State,
};

/// How they are reached. Without `Debug`: it holds passwords. In `target/e2e/run/backends.json`, for its owner alone.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Backends {
    pub(crate) host: IpAddr,
    pub(crate) postgres_port: u16,
    pub(crate) postgres_ca: String,
    /// Of `acb_operator`.
    pub(crate) postgres_password: String,
    /// Of `postgres`, the superuser.
    pub(crate) postgres_superuser_password: String,
    pub(crate) kafka_bootstrap: String,
    pub(crate) kafka_ca: String,
    pub(crate) kafka_user: String,
    pub(crate) kafka_password: String,
}

fn path(place: &Place) -> PathBuf {
    place.run().join("backends.json")
}

impl Backends {
    /// Those that run.
    pub(crate) fn read(place: &Place) -> Result<Self> {
        let path = path(place);
        Ok(serde_json::from_slice(&fs::read(&path).map_err(at(&path))?)?)
    }
}

/// Starts both, in a process of their own, and waits until they take connections.
pub(crate) fn start(place: &Place, state: &mut State, host: IpAddr) -> Result<()> {
    let _ = fs::remove_file(path(place));
    let program = std::env::current_exe().map_err(at("acb-e2e"))?;
    let daemon: Daemon = state.start("backends", Command::new(program).args(["backends", "--host", &host.to_string()]))?;
    daemon.wait(120, || path(place).exists())
}

/// Runs both until SIGTERM.
pub(crate) async fn serve(place: &Place, host: IpAddr) -> Result<()> {
    let mut end = signal(SignalKind::terminate()).map_err(at("SIGTERM"))?;
    let folder = tempfile::Builder::new().prefix("acb-e2e-postgres-").tempdir().map_err(at("a temporary folder"))?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).map_err(at(folder.path()))?;
    let authority = Authority::new("acb-e2e-postgres")?;
    let postgres = postgres(folder.path(), &authority, host).await?;
    let postgres_password = random()?;
    let warnings = bootstrap::bootstrap(postgres.superuser(), &postgres_password, Server::Exclusive).await;
    warnings.map_err(|error| Error::Wrong(error.to_string()))?;
    let kafka = Kafka::start_on(KafkaListener::Tls, host).await;
    let superuser = folder.path().join("state/superuser-password");
    let backends = Backends {
        host,
        postgres_port: postgres.port(),
        postgres_ca: authority.pem(),
        postgres_password,
        postgres_superuser_password: fs::read_to_string(&superuser).map_err(at(&superuser))?.trim().to_owned(),
        kafka_bootstrap: kafka.bootstrap_servers(),
        kafka_ca: kafka.ca_pem().unwrap_or_default().to_owned(),
        kafka_user: Kafka::ADMIN.to_owned(),
        kafka_password: kafka.admin_password().to_owned(),
    };
    // Whole when it is there.
    let draft = place.run().join("backends.json.new");
    write_private(&draft, &serde_json::to_string_pretty(&backends)?)?;
    fs::rename(&draft, path(place)).map_err(at(path(place)))?;
    end.recv().await;
    drop(kafka);
    postgres.stop().await;
    Ok(())
}

async fn postgres(folder: &Path, authority: &Authority, host: IpAddr) -> Result<LocalPostgres> {
    let tls = folder.join("tls");
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
    let options = LocalPostgresOptions { fsync: false, settings, ..LocalPostgresOptions::new(folder.join("state")) };
    LocalPostgres::start(options).await.map_err(|error| Error::Wrong(error.to_string()))
}

/// PostgreSQL refuses to run as root, and reads no key of another user.
fn postgres_user() -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd").map_err(at("/etc/passwd"))?;
    let fields = users.lines().find_map(|line| line.strip_prefix("postgres:")).map(|rest| rest.split(':').collect::<Vec<_>>());
    match fields.as_deref() {
        Some([_, uid, gid, ..]) => match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok((uid, gid)),
            _ => wrong("/etc/passwd has no numbers for the user postgres"),
        },
        _ => wrong("there is no user postgres: scripts/install-dependencies build"),
    }
}

fn random() -> Result<String> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| Error::Wrong(format!("no random numbers: {error}")))?;
    Ok(hex::encode(bytes))
}
