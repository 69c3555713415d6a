//! A broker whose certificate has expired. A front of the test's own does TLS before a real broker: Kafka itself doesn't start with one.

use std::sync::{Arc, Mutex};

use acb_kafka::Settings;
use acb_operator::effect::kafka::KafkaEffect;
use acb_testbed::{Kafka, KafkaListener};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use time::{Duration, OffsetDateTime};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::{BROKERS, Passwords, tenant};

struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self(rcgen::Issuer::new(params, key), pem)
    }

    /// For loopback, good until so many days from now.
    fn server(&self, days: i64) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = OffsetDateTime::now_utc() - Duration::days(9);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
        let certificate: CertificateDer<'static> = params.signed_by(&key, &self.0).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()).into()
    }
}

/// Its address.
async fn front(broker: String, acceptor: Arc<Mutex<TlsAcceptor>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, broker) = (acceptor.lock().unwrap().clone(), broker.clone());
            tokio::spawn(async move {
                // A client that takes the certificate for none of a friend's ends the handshake.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut behind = TcpStream::connect(broker).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut behind).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_named_and_a_good_one_heals() {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(KafkaListener::Plain).await;
    let authority = Authority::new();
    let acceptor = Arc::new(Mutex::new(authority.server(-1)));
    let address = front(kafka.bootstrap_servers(), acceptor.clone()).await;
    let settings = Settings::new(&address, Kafka::ADMIN, kafka.admin_password());
    let effect = KafkaEffect::new(settings.with_tls(authority.1.as_bytes()).unwrap(), -1);

    let error = effect.apply(&tenant("acme"), &Passwords).await.unwrap_err();
    assert!(error.is_transient(), "someone elsewhere mends it: {error}");
    assert!(error.to_string().contains("Kafka") && error.to_string().contains("xpired"), "{error}");

    *acceptor.lock().unwrap() = authority.server(9);
    effect.apply(&tenant("acme"), &Passwords).await.unwrap();
}
