//! Keys and certificates that change under a running hub.

use std::{fs, time::Duration};

use acb_proto::v1::{GetJwksRequest, HeartbeatRequest};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

use crate::hub::{Hub, reason, with, write};

async fn served(hub: &Hub) -> CertificateDer<'static> {
    let stream = hub.tls(&[&rustls::version::TLS13]).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Until it holds, however long the hub takes to look at its files.
async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), holds).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn keys(hub: &Hub) -> usize {
    let jwks = hub.auth().get_jwks(GetJwksRequest {}).await.unwrap().into_inner().jwks_json;
    jwks.matches(r#""kid""#).count()
}

#[tokio::test]
async fn a_new_leaf_is_served_to_new_connections_and_a_damaged_one_is_not() {
    let hub = Hub::start().await;
    let (_, token) = hub.agent("alice", "agent-full").await;
    let mut agents = hub.agents();
    agents.heartbeat(with(&token, HeartbeatRequest {})).await.unwrap();
    let old = served(&hub).await;

    // Half-written: the old one stays.
    write(hub.dir(), "tls/tls.crt", "-----BEGIN CERTIFICATE-----\n");
    eventually("the damaged certificate is not reported", async || hub.log().contains("the old ones stay")).await;
    assert_eq!(served(&hub).await, old);

    hub.renew_certificate();
    eventually("the new leaf is not served", async || served(&hub).await != old).await;
    // What was open goes on.
    agents.heartbeat(with(&token, HeartbeatRequest {})).await.unwrap();
}

#[tokio::test]
async fn a_new_key_is_published_before_it_signs() {
    let hub = Hub::start().await;
    let (alice, old) = hub.agent("alice", "agent-full").await;
    let previous = fs::read_to_string(hub.dir().join("keys/signing.key")).unwrap();
    let from = std::time::SystemTime::now() + Duration::from_secs(20);
    let from = from.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    write(hub.dir(), "keys/signing.previous.pub", KeyPair::from_pem(&previous).unwrap().public_key_pem());
    write(hub.dir(), "keys/signing.previous.key", previous);
    write(hub.dir(), "keys/signing.from", from.to_string());
    write(hub.dir(), "keys/signing.key", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem());
    eventually("the new key is not published", async || keys(&hub).await == 2).await;
    let head = |token: &str| token.split('.').next().unwrap().to_owned();
    let issued = async || {
        let token = hub.exchange(&alice.api_key).await.unwrap().access_token;
        hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap();
        head(&token)
    };
    assert_eq!(issued().await, head(&old), "other replicas know no other key yet");
    eventually("the new key never signs", async || issued().await != head(&old)).await;
}

#[tokio::test]
async fn each_previous_key_has_its_own_time() {
    let hub = Hub::start().await;
    let previous = || KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().public_key_pem();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    write(hub.dir(), "keys/signing.previous.until", format!("{}\n{}", now + 3600, now + 20));
    write(hub.dir(), "keys/signing.previous.pub", format!("{}{}", previous(), previous()));
    eventually("both are taken", async || keys(&hub).await == 3).await;
    eventually("one of them still is", async || keys(&hub).await == 2).await;
}

#[tokio::test]
async fn tokens_of_the_previous_key_are_valid_while_it_is_there() {
    let hub = Hub::start().await;
    let (alice, old) = hub.agent("alice", "agent-full").await;
    assert_eq!(keys(&hub).await, 1);
    let previous = KeyPair::from_pem(&fs::read_to_string(hub.dir().join("keys/signing.key")).unwrap()).unwrap();
    write(hub.dir(), "keys/signing.previous.pub", previous.public_key_pem());
    write(hub.dir(), "keys/signing.key", KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem());
    eventually("the new key is not taken", async || keys(&hub).await == 2).await;
    let new = hub.exchange(&alice.api_key).await.unwrap().access_token;
    let head = |token: &str| token.split('.').next().unwrap().to_owned();
    assert_ne!(head(&old), head(&new), "signed by the new key");
    for token in [&old, &new] {
        hub.agents().heartbeat(with(token, HeartbeatRequest {})).await.unwrap();
    }

    fs::remove_file(hub.dir().join("keys/signing.previous.pub")).unwrap();
    eventually("the previous key is still taken", async || keys(&hub).await == 1).await;
    let status = hub.agents().heartbeat(with(&old, HeartbeatRequest {})).await.unwrap_err();
    assert_eq!(reason(&status), "TOKEN_INVALID");
    hub.agents().heartbeat(with(&new, HeartbeatRequest {})).await.unwrap();
}
