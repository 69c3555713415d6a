//! A hub without a door: it answers whatever it is asked, with an empty message, and keeps the tokens that it is shown.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use acb_isolation::HubAccess;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::hub::Authority;

pub struct Doorless {
    server: JoinHandle<()>,
    endpoint: String,
    ca_pem: String,
    shown: Arc<Mutex<Vec<String>>>,
}

impl Doorless {
    pub async fn start() -> Self {
        let authority = Authority::new("doorless");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let tls = acceptor(&authority);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let keeps = shown.clone();
        let server = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, keeps) = (tls.clone(), keeps.clone());
                tokio::spawn(async move {
                    // A client that goes away is of no interest here.
                    if let Ok(stream) = tls.accept(socket).await {
                        let _ = http2::Builder::new(TokioExecutor::new())
                            .serve_connection(TokioIo::new(stream), service_fn(move |request| answer(request, keeps.clone())))
                            .await;
                    }
                });
            }
        });
        Self { server, endpoint, ca_pem: authority.pem, shown }
    }

    /// The tokens that it was shown.
    pub fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap().clone()
    }

    pub fn access(&self) -> HubAccess {
        HubAccess { endpoints: vec![self.endpoint.clone()], ca_pem: self.ca_pem.clone(), api_key: None, signing_key: None }
    }
}

impl Drop for Doorless {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    shown: Arc<Mutex<Vec<String>>>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap());
    let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
    if token.is_some() {
        assert_eq!(request.headers().get("x-correlation-id").unwrap(), acb_isolation::CORRELATION, "{}", request.uri());
    }
    shown.lock().unwrap().extend(token);
    // An uncompressed gRPC message of no bytes.
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        Some(Ok(trailers))
    });
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}

fn acceptor(authority: &Authority) -> TlsAcceptor {
    let (chain, key) = authority.leaf();
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
