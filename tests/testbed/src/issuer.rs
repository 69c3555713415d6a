//! OpenID Connect issuers for tests, over TLS on a loopback port: one of the tests' own, that answers whatever it is told to, and a real one.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use acb_operator::plan::OidcIssuerRow;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

const DISCOVERY: &str = "/.well-known/openid-configuration";

/// What an issuer of the tests' own answers.
#[derive(Clone, Debug)]
pub enum Response {
    /// This JSON.
    Json(Value),
    /// These bytes, as they are.
    Raw(Vec<u8>),
    /// A body that goes on and on.
    Endless,
    /// Nothing, on a connection that stays open.
    Never,
}

/// A certificate for `localhost`, signed by itself.
fn certificate() -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate, key)
}

/// An issuer of the tests' own. It ends with this.
#[derive(Debug)]
pub struct TestIssuer {
    url: String,
    ca: String,
    responses: Arc<Mutex<HashMap<String, Response>>>,
    asked: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl TestIssuer {
    /// One that says what a good one says, and has these keys.
    pub async fn start(keys: &[Value]) -> Self {
        let (certificate, key) = certificate();
        let key_der = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key_der)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (responses, asked) = (Arc::<Mutex<HashMap<String, Response>>>::default(), Arc::new(AtomicUsize::new(0)));
        let (acceptor, answers, count) = (TlsAcceptor::from(Arc::new(config)), responses.clone(), asked.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(acceptor.clone(), stream, answers.clone(), count.clone()));
            }
        });
        let issuer = Self { url, ca: certificate.pem(), responses, asked, server };
        issuer.responds(DISCOVERY, Response::Json(json!({"issuer": issuer.url, "jwks_uri": format!("{}/jwks", issuer.url)})));
        issuer.has(keys);
        issuer
    }

    /// As its tokens have it in `iss`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// How often it was asked for its keys.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Has these keys now.
    pub fn has(&self, keys: &[Value]) {
        self.responds("/jwks", Response::Json(json!({"keys": keys})));
    }

    /// Answers so from now on.
    pub fn responds(&self, path: &str, response: Response) {
        self.responses.lock().unwrap().insert(path.to_owned(), response);
    }

    /// Has this in its discovery document.
    pub fn says_of_itself(&self, document: Value) {
        self.responds(DISCOVERY, Response::Json(document));
    }
}

async fn serve(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    responses: Arc<Mutex<HashMap<String, Response>>>,
    asked: Arc<AtomicUsize>,
) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut more = [0; 1024];
        match stream.read(&mut more).await {
            Ok(read) if read > 0 => request.extend_from_slice(&more[..read]),
            _ => return,
        }
    }
    let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or_default().to_owned();
    if path == "/jwks" {
        asked.fetch_add(1, Ordering::SeqCst);
    }
    let response = responses.lock().unwrap().get(&path).cloned();
    let head = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n");
    // Whoever asked may have left by now.
    let _ = match response {
        None => stream.write_all(format!("{}content-length: 2\r\n\r\n{{}}", head("404 Not Found")).as_bytes()).await,
        Some(Response::Json(json)) => {
            let body = json.to_string();
            stream.write_all(format!("{}content-length: {}\r\n\r\n{body}", head("200 OK"), body.len()).as_bytes()).await
        }
        Some(Response::Raw(bytes)) => stream.write_all(&bytes).await,
        Some(Response::Endless) => {
            let _ = stream.write_all(format!("{}\r\n", head("200 OK")).as_bytes()).await;
            while stream.write_all(&[b' '; 4096]).await.is_ok() {}
            Ok(())
        }
        Some(Response::Never) => std::future::pending().await,
    };
    let _ = stream.shutdown().await;
}

/// The public key of an issuer's, as it publishes it.
pub fn public_key(key: &KeyPair, kid: &str) -> Value {
    // 4, x and y of P-256.
    let point = key.der_bytes();
    let coordinate = |from: usize| BASE64_URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
    json!({"kid": kid, "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "x": coordinate(1), "y": coordinate(33)})
}

/// The row of an issuer on this machine, whose subjects are the names of agents.
pub fn issuer_row(url: &str, ca: &str, audiences: &[&str]) -> OidcIssuerRow {
    OidcIssuerRow {
        issuer: url.to_owned(),
        audiences: audiences.iter().map(ToString::to_string).collect(),
        agent: "claims.sub".to_owned(),
        role: None,
        authorities: Some(ca.to_owned()),
        networks: vec!["127.0.0.0/8".to_owned(), "::1/128".to_owned()],
    }
}

/// A real issuer: the package oidc-provider, which tests/testbed/oidc/build installs. It ends with this.
#[derive(Debug)]
pub struct RealIssuer {
    process: Child,
    url: String,
    ca: String,
    dir: TempDir,
}

impl Drop for RealIssuer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl RealIssuer {
    /// Starts one.
    pub fn start() -> Self {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/testbed/oidc/issuer.mjs");
        assert!(script.exists(), "{} is missing: run tests/testbed/oidc/build", script.display());
        let dir = TempDir::new().unwrap();
        let (certificate, key) = certificate();
        let (ca_file, key_file) = (dir.path().join("ca.crt"), dir.path().join("tls.key"));
        std::fs::write(&ca_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        let mut process = Command::new("node")
            .arg(script)
            .args([&ca_file, &key_file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is missing: install Node.js 20.19 or later");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines.find_map(|line| line.ok()?.strip_prefix("issuer ").map(str::to_owned)).expect("the issuer starts");
        Self { process, url, ca: certificate.pem(), dir }
    }

    /// As its tokens have it in `iss`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// The same, in a file.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.crt")
    }
}
