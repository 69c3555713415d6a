//! What `acb-operator` is given on a cluster, in a folder, for operators that run as processes of this machine.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use acb_operator::runtime::kubernetes::config::{Config, ConfigError};
use serde_json::json;
use tempfile::TempDir;

use crate::{Kafka, Postgres};

/// The operator's own namespace.
pub const NAMESPACE: &str = "acb-system";

/// A configuration and its credentials. The folder goes with this value.
#[derive(Debug)]
pub struct OperatorFiles(TempDir);

/// What else an operator is told.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Drift is looked for this often.
    pub resync_seconds: u64,
    /// So many tenancies are reconciled at a time.
    pub concurrency: usize,
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    use io::Write as _;
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

impl OperatorFiles {
    /// For an operator that reaches this PostgreSQL and this Kafka at these ports of loopback, without TLS; without a Kafka the log is in
    /// PostgreSQL.
    pub fn new(postgres: (&Postgres, u16), kafka: Option<(&Kafka, u16)>, told: Told) -> io::Result<Self> {
        let files = Self(tempfile::Builder::new().prefix("acb-operator-").tempdir()?);
        let bus = kafka.map_or(
            json!({"kind": "postgres"}),
            |(_, port)| json!({"kind": "kafka", "bootstrapServers": format!("127.0.0.1:{port}"), "tls": false}),
        );
        let mut config = json!({
            "bus": bus,
            "postgres": {"host": "127.0.0.1", "port": postgres.1, "database": "acb", "sslMode": "disable"},
            "hubImage": "acb-hub:none",
            "resyncSeconds": told.resync_seconds,
            "concurrency": told.concurrency,
        });
        if kafka.is_some() {
            config["kafka"] = json!({"replicationFactor": 1});
        }
        // JSON is YAML.
        write(&files.config(), &config.to_string())?;
        let postgres = ("postgres", "acb_operator", postgres.0.operator_password());
        let kafka = kafka.map(|(kafka, _)| ("kafka", Kafka::ADMIN, kafka.admin_password()));
        for (system, username, password) in [Some(postgres), kafka].into_iter().flatten() {
            let folder = files.0.path().join(system);
            fs::create_dir(&folder)?;
            write(&folder.join("username"), username)?;
            write(&folder.join("password"), password)?;
        }
        Ok(files)
    }

    /// The file of the configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.path().join("config.yaml")
    }

    /// As the operator reads it.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config(), NAMESPACE)
    }

    /// How an operator of this name is started; `kubeconfig` is how it reaches the API server.
    #[must_use]
    pub fn command(&self, program: &Path, kubeconfig: &Path, name: &str, ops_port: u16) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", kubeconfig).arg("--config").arg(self.config());
        command.args(["--namespace", NAMESPACE, "--name", name, "--ops-port", &ops_port.to_string()]);
        command
    }
}
