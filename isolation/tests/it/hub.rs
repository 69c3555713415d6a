//! A hub process with everything that its Deployment would mount.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use acb_testbed::TestTenant;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// What a hub proves itself with, and its tokens. Each tenant's own, unless a wall is down.
pub struct Identity {
    pub authority: Authority,
    pub signing_key: String,
    refresh_key: [u8; 32],
}

impl Identity {
    pub fn generate(name: &str) -> Self {
        let mut refresh_key = [0; 32];
        refresh_key[..16].copy_from_slice(&uuid::Uuid::new_v4().into_bytes());
        let signing_key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
        Self { authority: Authority::new(name), signing_key, refresh_key }
    }
}

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A chain and its key, both PEM.
    pub fn leaf(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        (CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

pub struct Hub {
    process: Child,
    dir: TempDir,
    pub endpoint: String,
    pub ca_pem: String,
}

impl Hub {
    /// A ready hub of this tenant.
    pub async fn start(tenant: &TestTenant, identity: &Identity) -> Self {
        let dir = TempDir::new().unwrap();
        let options = tenant.connect_options();
        let json = serde_json::json!({
            "tenant": tenant.name(),
            "tenantId": tenant.id_hex(),
            "bus": {"kind": "postgres"},
            "postgres": {
                "host": options.get_host(),
                "port": options.get_port(),
                "database": options.get_database().unwrap(),
                "sslMode": "prefer",
            },
        });
        let (certificate, key) = identity.authority.leaf();
        write(dir.path(), "config/hub.json", json.to_string());
        write(dir.path(), "postgres/username", tenant.username());
        write(dir.path(), "postgres/password", tenant.password());
        write(dir.path(), "keys/signing.key", &identity.signing_key);
        write(dir.path(), "keys/pepper", tenant.pepper());
        write(dir.path(), "keys/refresh.key", identity.refresh_key);
        write(dir.path(), "tls/tls.crt", certificate);
        write(dir.path(), "tls/tls.key", key);
        write(dir.path(), "tls/ca.crt", &identity.authority.pem);
        let [grpc, operations] = free_ports();
        let process = spawn(dir.path(), grpc, operations);
        let hub = Self { process, dir, endpoint: format!("https://127.0.0.1:{grpc}"), ca_pem: identity.authority.pem.clone() };
        hub.until_ready(operations).await;
        hub
    }

    async fn until_ready(&self, operations: u16) {
        let deadline = Instant::now() + DEADLINE;
        while !ready(operations).await.unwrap_or_default() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the hub is not ready:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn ready(operations: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", operations)).await?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.split(' ').nth(1) == Some("200"))
}

fn spawn(dir: &Path, grpc: u16, operations: u16) -> Child {
    let log = fs::File::create(dir.join("log")).unwrap();
    Command::new(binary())
        .env_clear()
        .env("ACB_CONFIG_DIR", dir)
        .env("ACB_POD_NAME", "hub-0")
        .env("ACB_POD_IP", "127.0.0.1")
        .env("ACB_GRPC_PORT", grpc.to_string())
        .env("ACB_OPS_PORT", operations.to_string())
        .stdin(Stdio::null())
        .stderr(log.try_clone().unwrap())
        .stdout(log)
        .spawn()
        .unwrap()
}

/// Cargo names to tests the binaries of their own package only; it builds all into one folder.
fn binary() -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_acb-isolation")).with_file_name("acb-hub");
    assert!(binary.exists(), "{} is missing: run cargo build -p acb-hub", binary.display());
    binary
}

fn free_ports() -> [u16; 2] {
    let held: [TcpListener; 2] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn write(dir: &Path, file: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
