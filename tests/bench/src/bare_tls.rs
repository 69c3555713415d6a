//! A server that takes TLS connections and reads from them, and nothing else: what a connection costs without a hub. With rustls as the hub has it.

use std::{collections::VecDeque, sync::Arc};

use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    process::Child,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    Failure,
    bare::{Identity, acceptor, closed, identity, settings, spawn},
    tell,
};

/// Serves until standard input closes.
pub(crate) async fn serve() -> Result<(), Failure> {
    let identity: Identity = settings()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let acceptor = acceptor(&identity)?;
    tell(listener.local_addr()?.port());
    let accepting = async {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                while stream.read_u8().await.is_ok() {}
            });
        }
    };
    tokio::select! {
        () = accepting => Err(Failure("the bare TLS server takes no more".to_owned())),
        () = closed() => Ok(()),
    }
}

/// The server as a process of its own. It ends with this value.
pub(crate) struct BareTls {
    process: Child,
    port: u16,
    connector: TlsConnector,
    open: VecDeque<TlsStream<TcpStream>>,
}

impl BareTls {
    pub(crate) async fn start() -> Result<Self, Failure> {
        let (ca_pem, identity) = identity()?;
        let (process, port) = spawn("bare-tls", &identity).await?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&ca_pem)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { process, port, connector: TlsConnector::from(Arc::new(config)), open: VecDeque::new() })
    }

    /// So many connections more.
    pub(crate) async fn connect(&mut self, count: u32) -> Result<(), Failure> {
        for _ in 0..count {
            let socket = TcpStream::connect(("127.0.0.1", self.port)).await?;
            self.open.push_back(self.connector.connect(ServerName::try_from("127.0.0.1")?, socket).await?);
        }
        Ok(())
    }

    pub(crate) fn pid(&self) -> Result<u32, Failure> {
        self.process.id().ok_or_else(|| Failure("the bare TLS server has ended".to_owned()))
    }
}
