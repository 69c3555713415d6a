//! Tokens of Kubernetes ServiceAccounts, exchanged at a real hub: vectors are signed here, with the key of a cluster that there is not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acb_operator::plan::{AgentRow, IssuerRow, ServiceAccountRow};
use acb_proto::v1::{ExchangeSubjectTokenRequest, HeartbeatRequest, RegisterRequest, TokenResponse};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};
use tonic::{Code, Status};

use crate::{
    hub::{Hub, reason, with},
    trail::logged_so_many,
};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const UID: &str = "7d0c2ad2-6d7c-4a43-8b4e-0a4a2f5d8f11";

/// A cluster's API server, as far as it signs.
struct Cluster(KeyPair);

impl Cluster {
    fn new() -> Self {
        Self(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap())
    }

    fn issuer(&self) -> IssuerRow {
        // 4, x and y.
        let point = self.0.der_bytes();
        let coordinate = |from: usize| BASE64_URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
        let key = json!({"kid": "one", "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "x": coordinate(1), "y": coordinate(33)});
        IssuerRow::new(ISSUER, json!({"keys": [key]}))
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": "one"});
        let encoded = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encoded(&header), encoded(claims));
        let key = EncodingKey::from_ec_der(&self.0.serialize_der());
        format!("{message}.{}", crypto::sign(message.as_bytes(), &key, Algorithm::ES256).unwrap())
    }
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// As an API server writes them for the account `worker`, for ten minutes.
fn claims(hub: &Hub) -> Value {
    json!({
        "aud": [format!("acb:{}", hub.tenant.id_hex())], "exp": now() + 600, "iat": now(), "nbf": now(), "iss": ISSUER, "jti": "0b1f2c6e",
        "kubernetes.io": {"namespace": "acb-acme", "serviceaccount": {"name": "worker", "uid": UID}},
        "sub": "system:serviceaccount:acb-acme:worker",
    })
}

/// An agent whose only credential is the account `worker`.
fn worker(hub: &Hub) -> AgentRow {
    let account = ServiceAccountRow { namespace: "acb-acme".to_owned(), name: "worker".to_owned(), uid: UID.to_owned() };
    AgentRow { service_account: Some(account), ..hub.tenant.agent_row("worker") }
}

async fn started() -> (Hub, Cluster, AgentRow) {
    let (hub, cluster) = (Hub::start().await, Cluster::new());
    hub.tenant.issuer(Some(cluster.issuer())).await;
    let row = worker(&hub);
    hub.tenant.project_without_key(&row).await;
    (hub, cluster, row)
}

async fn exchange(hub: &Hub, token: &str) -> Result<TokenResponse, Status> {
    let request = ExchangeSubjectTokenRequest { subject_token: token.to_owned(), subject_token_type: JWT.to_owned() };
    hub.auth().exchange_subject_token(request).await.map(tonic::Response::into_inner)
}

async fn is_refused(hub: &Hub, token: &str, what: &str) {
    let status = exchange(hub, token).await.expect_err(what);
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "SUBJECT_TOKEN_REFUSED"), "{what}");
}

/// Waits until an access token is not taken any more. A revocation holds within 5 s.
async fn until_refused(hub: &Hub, access_token: &str) {
    let began = Instant::now();
    while hub.agents().heartbeat(with(access_token, HeartbeatRequest {})).await.is_ok() {
        assert!(began.elapsed() < Duration::from_secs(5), "still let in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_account_logs_in_without_a_secret_of_acb() {
    let (hub, cluster, row) = started().await;
    let claims = claims(&hub);
    let token = cluster.token(&claims);
    let granted = exchange(&hub, &token).await.unwrap();
    assert_eq!((granted.agent.as_str(), &granted.agent_id, granted.tenant.as_str()), ("worker", &row.id, hub.tenant.name()));
    assert!(granted.refresh_token.is_empty() && granted.refresh_token_expires_at.is_none(), "the token itself is shown again");
    let ends = granted.access_token_expires_at.unwrap().seconds;
    assert!(ends <= claims["exp"].as_i64().unwrap() && ends > now() + 500, "{ends}");
    hub.agents().heartbeat(with(&granted.access_token, HeartbeatRequest {})).await.unwrap();

    let records = logged_so_many(&hub, &["ExchangeSubjectToken"], 1).await;
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.agent.as_str(), record.key.as_str()), ("worker", "serviceaccount:acb-acme/worker"));
    assert_eq!((record.object.as_str(), record.outcome.as_str()), (format!("token 0b1f2c6e of {ISSUER}").as_str(), "done"));
    let (_, metrics) = hub.operations("/metrics").await.unwrap();
    assert!(metrics.contains(r#"acb_logins_total{operation="ExchangeSubjectToken"} 1"#), "{metrics}");
    let log = hub.log();
    assert!(!log.contains(&token) && !log.contains(&granted.access_token), "a token is in the log");

    // What it registered would outlive the account.
    let request = RegisterRequest { name: "helper".to_owned(), ..RegisterRequest::default() };
    let status = hub.agents().register(with(&granted.access_token, request)).await.unwrap_err();
    assert_eq!(reason(&status), "REGISTRAR_KEY_UNKNOWN");
}

#[tokio::test]
async fn what_an_account_was_given_ends_with_it_within_seconds() {
    let (hub, cluster, row) = started().await;
    let token = cluster.token(&claims(&hub));
    let without = AgentRow { service_account: None, ..row.clone() };
    let mut again = row.clone();
    again.service_account.as_mut().unwrap().uid = "another".to_owned();
    let suspended = AgentRow { suspended: true, ..row.clone() };
    for (gone, what) in [(&without, "deleted"), (&again, "deleted and made again"), (&suspended, "suspended")] {
        hub.tenant.project_without_key(&row).await;
        let access = exchange(&hub, &token).await.unwrap().access_token;
        hub.tenant.project_without_key(gone).await;
        // At once: an exchange never goes by what was.
        is_refused(&hub, &token, what).await;
        until_refused(&hub, &access).await;
    }
    // The cluster calls itself by another name now, and its pods have tokens with the name before.
    hub.tenant.project_without_key(&row).await;
    let access = exchange(&hub, &token).await.unwrap().access_token;
    let renamed = IssuerRow { previous: Some(ISSUER.to_owned()), ..IssuerRow::new("https://renamed", cluster.issuer().jwks) };
    hub.tenant.issuer(Some(renamed)).await;
    exchange(&hub, &token).await.unwrap();
    // The cluster is another one now, and has the same accounts.
    hub.tenant.issuer(Some(IssuerRow { issuer: "https://another".to_owned(), ..cluster.issuer() })).await;
    is_refused(&hub, &token, "of the issuer before").await;
    until_refused(&hub, &access).await;
    // And it signs with another key.
    hub.tenant.issuer(Some(Cluster::new().issuer())).await;
    is_refused(&hub, &token, "of the key before").await;
    hub.tenant.issuer(None).await;
    is_refused(&hub, &token, "of no issuer").await;
}

#[tokio::test]
async fn a_token_that_proves_nobody_is_refused_whatever_is_wrong_with_it() {
    let (hub, cluster, _) = started().await;
    let good = claims(&hub);
    let changed = |pointer: &str, value: Value| {
        let mut claims = good.clone();
        *claims.pointer_mut(pointer).unwrap() = value;
        cluster.token(&claims)
    };
    let own = good["aud"][0].clone();
    for (token, what) in [
        (changed("/aud", json!(["https://kubernetes.default.svc"])), "the API server's audience"),
        (changed("/aud", json!([own, "https://kubernetes.default.svc"])), "two audiences"),
        (changed("/aud", json!(["acb:00000000000000000000"])), "another tenant's audience"),
        (changed("/iss", json!("https://evil.example")), "another issuer"),
        (changed("/exp", json!(now() - 60)), "expired"),
        (changed("/nbf", json!(now() + 60)), "from the future"),
        (changed("/sub", json!("system:serviceaccount:acb-acme:admin")), "another subject"),
        (changed("/kubernetes.io/serviceaccount/uid", json!("another")), "another UID"),
        (Cluster::new().token(&good), "another key"),
        (String::new(), "nothing"),
        ("a.b.c".to_owned(), "garbage"),
        ("x".repeat(10_000), "a long text"),
    ] {
        is_refused(&hub, &token, what).await;
    }
    let token = cluster.token(&good);
    let parts: Vec<&str> = token.split('.').collect();
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "none", "kid": "one"}),
        json!({"alg": "HS256", "kid": "one"}),
        json!({"alg": "ES256", "kid": "../one"}),
        json!({"alg": "ES256", "kid": "one", "jku": "https://evil.example"}),
    ] {
        let header = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
        is_refused(&hub, &format!("{header}.{}.{}", parts[1], parts[2]), &header).await;
        is_refused(&hub, &format!("{header}.{}.", parts[1]), &header).await;
    }
    for kind in ["", "urn:ietf:params:oauth:token-type:access_token", "urn:ietf:params:oauth:token-type:saml2"] {
        let request = ExchangeSubjectTokenRequest { subject_token: token.clone(), subject_token_type: kind.to_owned() };
        let status = hub.auth().exchange_subject_token(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "TOKEN_TYPE_UNSUPPORTED"), "{kind}");
    }
    // It is for being exchanged, and for nothing else.
    let status = hub.agents().heartbeat(with(&token, HeartbeatRequest {})).await.unwrap_err();
    assert_eq!(reason(&status), "TOKEN_INVALID");
    assert_eq!(reason(&hub.exchange(&token).await.unwrap_err()), "CREDENTIAL_REFUSED");
    exchange(&hub, &token).await.unwrap();
}

#[tokio::test]
async fn a_crowd_with_invented_tokens_keeps_nobody_from_logging_in() {
    let (hub, cluster, _) = started().await;
    let (good, invented) = (cluster.token(&claims(&hub)), Cluster::new().token(&claims(&hub)));
    // This replica knows the account by now.
    exchange(&hub, &good).await.unwrap();
    // Over one connection, which may have so many calls open, and over several.
    let mut connections = vec![hub.auth(); 200];
    connections.extend((0..10).flat_map(|_| vec![hub.auth(); 30]));
    let mut crowd = JoinSet::new();
    for mut auth in connections {
        let subject_token = invented.clone();
        crowd.spawn(async move {
            let request = ExchangeSubjectTokenRequest { subject_token, subject_token_type: JWT.to_owned() };
            reason(&auth.exchange_subject_token(request).await.unwrap_err())
        });
    }
    for _ in 0..20 {
        exchange(&hub, &good).await.unwrap();
    }
    while let Some(refused) = crowd.join_next().await {
        let refused = refused.unwrap();
        assert!(["SUBJECT_TOKEN_REFUSED", "TOO_MANY_LOGINS", "TOO_MANY_CALLS"].contains(&refused.as_str()), "{refused}");
    }
}
