//! A tenant's password is tried once, and again when someone has set another: that shows without a login.

use std::{net::SocketAddr, sync::Arc};

use acb_crds::names::TenantName;
use acb_kafka::{
    Connection, Settings,
    kafka_protocol::messages::{
        AlterUserScramCredentialsRequest, alter_user_scram_credentials_request::ScramCredentialUpsertion,
    },
    salted_password,
};
use acb_operator::{
    effect::{
        EffectError, SecretReader as _,
        kafka::{COMMON_ROUNDS, KafkaEffect},
        kafka_shared::SharedSnapshot,
    },
    observed::{LoginState, ObservedKafka},
    plan::{KafkaStep, SecretRef},
    tenant::{
        fetch::{Hubs, Sources, fetch},
        proved_logins::ProvedLogins,
    },
};
use acb_testbed::{Kafka, KafkaListener, Outside, Relay, relay::Protocol};
use bytes::Bytes;
use serde_json::json;

use crate::{
    BROKERS, Passwords,
    given::{first, kafka_platform, sample},
    text,
};

struct RolledOut;

impl Hubs for RolledOut {
    fn is_rolled_out(&self, _: &TenantName) -> bool {
        true
    }
}

/// Sets a password as Kafka's own tools do.
async fn set_password(admin: &Settings, user: &str, password: &str, rounds: u32) {
    let salt = [7; 16];
    let credential = ScramCredentialUpsertion::default()
        .with_name(text(user))
        .with_mechanism(2)
        .with_iterations(rounds.cast_signed())
        .with_salt(Bytes::copy_from_slice(&salt))
        .with_salted_password(Bytes::copy_from_slice(salted_password(password.as_bytes(), &salt, rounds).as_ref()));
    let request = AlterUserScramCredentialsRequest::default().with_upsertions(vec![credential]);
    let answer = Connection::open(admin).await.unwrap().send(&request, 0).await.unwrap();
    assert_eq!(answer.results[0].error_code, 0);
}

#[tokio::test]
async fn what_was_tried_is_not_tried_again_until_someone_sets_another_password() {
    let _turn = BROKERS.acquire().await.unwrap();
    let kafka = Kafka::start(KafkaListener::Plain).await;
    let relay = Relay::start(Protocol::Kafka, SocketAddr::from(([127, 0, 0, 1], kafka.port()))).await.unwrap();
    let settings = |port: u16| Settings::new(&format!("127.0.0.1:{port}"), Kafka::ADMIN, kafka.admin_password());
    let shared = Arc::new(SharedSnapshot::default());
    let effect = KafkaEffect::new(settings(relay.port), -1).sharing(Arc::clone(&shared));
    let (given, proved) = (sample("acme.yaml"), ProvedLogins::default());
    let tenant = first(&given);
    let user = acb_crds::names::TenantId::from_uid(tenant.metadata.uid.as_deref().unwrap()).login();
    let secret = SecretRef { namespace: "acbhub-acme".into(), name: "hub-kafka".into(), generation: 1 };
    let mut cluster = Outside::default();
    let metadata = json!({"name": secret.object_name(), "namespace": secret.namespace});
    cluster.add(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata}), Passwords.read(&secret).await.unwrap());

    let look = async || -> ObservedKafka {
        let away = Err(EffectError::unavailable("PostgreSQL", "away"));
        let proved = Some(&proved);
        let sources = Sources { objects: &cluster, postgres: away, kafka: Ok(Some(&effect)), hubs: &RolledOut, proved };
        fetch(&tenant, given.clone(), &sources, &kafka_platform()).await.kafka.known().unwrap().clone()
    };
    let logins = || relay.counts().get("SaslHandshake").copied().unwrap_or_default();
    let ensure = KafkaStep::EnsureUser { username: user.clone(), secret: secret.clone() };

    let mut rounds = Vec::new();
    for password in ["another", &user, "a third"] {
        effect.apply(std::slice::from_ref(&ensure), &Passwords).await.unwrap();
        shared.outdate();
        let found = look().await;
        assert_eq!(found.user, LoginState::Works, "tried");
        assert!(found.credential_rounds > COMMON_ROUNDS && found.credential_rounds < 2 * COMMON_ROUNDS, "{found:?}");
        rounds.push(found.credential_rounds);
        let before = logins();
        for _ in 0..5 {
            assert_eq!(look().await.user, LoginState::Works);
        }
        shared.outdate();
        assert_eq!(look().await.user, LoginState::Works);
        assert_eq!(logins() - before, 1, "nobody but the operator logs in, to read again");

        set_password(&settings(kafka.port()), &user, password, COMMON_ROUNDS).await;
        shared.outdate();
        assert_eq!(look().await.user, LoginState::Refused, "a password that someone else set is found at the next look");
    }
    rounds.dedup();
    assert!(rounds.len() > 1, "each credential is told from the one before: {rounds:?}");

    // Where the same password is set as others would, it is not known from theirs, and each look tries it.
    let own = Passwords.read(&secret).await.unwrap();
    set_password(&settings(kafka.port()), &user, own.text(&secret, "password").unwrap(), COMMON_ROUNDS).await;
    shared.outdate();
    assert_eq!(look().await.user, LoginState::Works);
    let before = logins();
    assert_eq!(look().await.user, LoginState::Works);
    assert_eq!(logins() - before, 1);
}
