//! A hub process with everything that its Deployment would mount.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use acb_proto::v1::{
    ExchangeTokenRequest, TokenResponse, agent_registry_client::AgentRegistryClient, auth_service_client::AuthServiceClient,
    exchange_token_request::Credential,
};
use acb_testbed::{Postgres, TestAgent, TestTenant};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

/// The tenant's, where its log is on Kafka.
pub const KAFKA_PASSWORD: &str = "the tenant's at Kafka";

const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

const DEADLINE: Duration = Duration::from_secs(30);

pub struct Hub {
    process: Child,
    dir: TempDir,
    grpc: u16,
    operations: u16,
    ca: CertificateDer<'static>,
    authority: Issuer<'static, KeyPair>,
    pub tenant: TestTenant,
}

impl Hub {
    /// A ready hub of a tenant of its own.
    pub async fn start() -> Self {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let hub = Self::launch(tenant, None);
        hub.until_ready().await;
        hub
    }

    /// A hub that may have its PostgreSQL at another port.
    pub fn launch(tenant: TestTenant, postgres_port: Option<u16>) -> Self {
        Self::launch_on(tenant, postgres_port, serde_json::json!({"kind": "postgres"}))
    }

    /// A ready hub that says all that it can, and whose standard output nobody reads.
    pub async fn start_unread() -> Self {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let mut hub = Self::launch(tenant, None);
        hub.until_ready().await;
        hub.process.kill().unwrap();
        hub.process.wait().unwrap();
        let mut command = command(hub.dir.path(), hub.grpc, hub.operations);
        hub.process = command.env("RUST_LOG", "trace").stdout(Stdio::piped()).spawn().unwrap();
        hub.until_ready().await;
        hub
    }

    /// With its log elsewhere.
    pub fn launch_on(tenant: TestTenant, postgres_port: Option<u16>, bus: serde_json::Value) -> Self {
        Self::launch_with(tenant, postgres_port, bus, serde_json::json!({}))
    }

    /// A ready hub of a tenant of its own, with more in its configuration.
    pub async fn start_with(more: serde_json::Value) -> Self {
        let tenant = Postgres::shared().await.fresh_tenant("acme").await;
        let hub = Self::launch_with(tenant, None, serde_json::json!({"kind": "postgres"}), more);
        hub.until_ready().await;
        hub
    }

    fn launch_with(tenant: TestTenant, postgres_port: Option<u16>, bus: serde_json::Value, more: serde_json::Value) -> Self {
        let dir = TempDir::new().unwrap();
        let options = tenant.connect_options();
        let mut json = serde_json::json!({
            "tenant": tenant.name(),
            "tenantId": tenant.id_hex(),
            "bus": bus,
            "postgres": {
                "host": options.get_host(),
                "port": postgres_port.unwrap_or_else(|| options.get_port()),
                "database": options.get_database().unwrap(),
                "sslMode": "prefer",
            },
        });
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (grpc, operations) = (free_port(), free_port());
        write(dir.path(), "config/hub.json", json.to_string());
        write(dir.path(), "postgres/username", tenant.username());
        write(dir.path(), "postgres/password", tenant.password());
        write(dir.path(), "kafka/username", tenant.name());
        write(dir.path(), "kafka/password", KAFKA_PASSWORD);
        write(dir.path(), "keys/signing.key", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem());
        write(dir.path(), "keys/audit.key", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem());
        write(dir.path(), "keys/pepper", tenant.pepper());
        write(dir.path(), "keys/refresh.key", [7; 32]);
        let (ca, authority) = authority(dir.path());
        write_leaf(dir.path(), &authority);
        let process = spawn(dir.path(), grpc, operations);
        Self { process, dir, grpc, operations, ca, authority, tenant }
    }

    /// What would be mounted.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A new leaf of the same authority, in the files that are mounted.
    pub fn renew_certificate(&self) {
        write_leaf(self.dir.path(), &self.authority);
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }

    /// What the process holds in memory, in bytes.
    pub fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }

    /// Waits for the process to end.
    pub async fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the hub did not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn until_ready(&self) {
        self.until("/readyz", |status, _| status == 200).await;
    }

    /// Asks an operations path until the answer is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (status, body) = self.operations(path).await.unwrap_or_default();
            if wanted(status, &body) {
                return body;
            }
            assert!(Instant::now() < deadline, "{path} still says {status} {body}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Status and body.
    pub async fn operations(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.operations)).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        Ok((status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// A connection with these TLS versions.
    pub async fn tls(&self, versions: &[&'static SupportedProtocolVersion]) -> std::io::Result<TlsStream<TcpStream>> {
        connect(LOCALHOST, self.grpc, self.ca.clone(), versions.to_vec(), b"h2").await
    }

    /// A connection for HTTP/1.1.
    pub async fn http1(&self) -> TlsStream<TcpStream> {
        connect(LOCALHOST, self.grpc, self.ca.clone(), vec![&rustls::version::TLS13], b"http/1.1").await.unwrap()
    }

    pub fn channel(&self) -> Channel {
        self.connect_lazily(Endpoint::from_static("http://localhost"))
    }

    /// A connection from this address.
    pub fn channel_from(&self, address: [u8; 4]) -> Channel {
        let (port, ca) = (self.grpc, self.ca.clone());
        Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_| {
            let ca = ca.clone();
            async move { connect(address, port, ca, vec![&rustls::version::TLS13], b"h2").await.map(TokioIo::new) }
        }))
    }

    /// A connection whose end takes 64 KiB that nobody reads.
    pub fn narrow_channel(&self) -> Channel {
        let endpoint = Endpoint::from_static("http://localhost");
        self.connect_lazily(endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535))
    }

    fn connect_lazily(&self, endpoint: Endpoint) -> Channel {
        let (port, ca) = (self.grpc, self.ca.clone());
        endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
            let ca = ca.clone();
            async move { connect(LOCALHOST, port, ca, vec![&rustls::version::TLS13], b"h2").await.map(TokioIo::new) }
        }))
    }

    pub fn auth(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.channel())
    }

    pub fn agents(&self) -> AgentRegistryClient<Channel> {
        AgentRegistryClient::new(self.channel())
    }

    pub async fn exchange(&self, api_key: &str) -> Result<TokenResponse, Status> {
        let request = ExchangeTokenRequest { credential: Some(Credential::ApiKey(api_key.to_owned())) };
        self.auth().exchange_token(request).await.map(tonic::Response::into_inner)
    }

    /// An agent with this role, and an access token of it.
    pub async fn agent(&self, name: &str, role: &str) -> (TestAgent, String) {
        let mut row = self.tenant.agent_row(name);
        row.role = role.to_owned();
        let agent = self.tenant.project(&row).await;
        let token = self.exchange(&agent.api_key).await.unwrap().access_token;
        (agent, token)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A request with a token.
pub fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", MetadataValue::try_from(format!("Bearer {token}")).unwrap());
    request
}

/// SIGTERM.
pub fn terminate(hub: &Hub) {
    let pid = rustix::process::Pid::from_raw(hub.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

/// The stable reason of a failure.
pub fn reason(status: &Status) -> String {
    tonic_types::StatusExt::get_error_details(status).error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

pub fn spawn(dir: &Path, grpc: u16, operations: u16) -> Child {
    command(dir, grpc, operations).spawn().unwrap()
}

fn command(dir: &Path, grpc: u16, operations: u16) -> Command {
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_acb-hub"));
    command
        .env_clear()
        .env("ACB_CONFIG_DIR", dir)
        .env("ACB_POD_NAME", "hub-0")
        .env("ACB_POD_IP", "127.0.0.1")
        .env("ACB_GRPC_PORT", grpc.to_string())
        .env("ACB_OPS_PORT", operations.to_string())
        .stdin(Stdio::null())
        .stderr(log.try_clone().unwrap())
        .stdout(log);
    command
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn write(dir: &Path, file: &str, content: impl AsRef<[u8]>) {
    let path = dir.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn authority(dir: &Path) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    write(dir, "tls/ca.crt", ca_certificate.pem());
    (ca_certificate.der().clone(), Issuer::new(ca, ca_key))
}

fn write_leaf(dir: &Path, authority: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    write(dir, "tls/tls.crt", leaf.pem());
    write(dir, "tls/tls.key", key.serialize_pem());
}

async fn connect(
    from: [u8; 4],
    port: u16,
    ca: CertificateDer<'static>,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(ca).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let stream = socket.connect(SocketAddr::from((LOCALHOST, port))).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}
